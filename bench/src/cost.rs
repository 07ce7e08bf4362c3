//! Measures the cost of an operator: in steady state, while instances come and go, and when an operator starts or
//! takes over.

use std::time::Duration;

use anyhow::Result;
use beatkeeper_cluster::Part;
use clap::Args;

mod churn;
mod measurement;
mod takeover;

use crate::driver::Driver;
use crate::meter::Edge;
use crate::plan::{Plan, seconds};
use crate::process::PATIENCE;
use crate::relay::Relay;
use crate::system::System;
use crate::systems::control_plane::Cluster;
use measurement::Measurement;

/// What to measure.
#[derive(Debug, Args)]
pub struct Cost {
    #[command(flatten)]
    plan: Plan,
    /// Seconds in which instances come and go; 0 for none.
    #[arg(long, default_value = "60", value_parser = seconds)]
    churn: Duration,
    /// The share of all instances that is replaced each second meanwhile.
    #[arg(long, default_value_t = 0.01)]
    replaced: f64,
    /// So many starts of an operator.
    #[arg(long, default_value_t = 5)]
    starts: u32,
    /// So many leaders are asked to end, and so many are killed.
    #[arg(long, default_value_t = 5)]
    failovers: u32,
}

/// Measures at one size, and adds the results to the files of the folder.
///
/// # Errors
/// If a process fails, or an operator does not take over.
pub async fn measure(what: Cost) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let Cost { plan, .. } = &what;
    let setup = plan.setup(System::Beatkeeper, data.path());
    let cluster = Cluster::start(&setup).await?;
    let results = plan.results(System::Beatkeeper, String::new(), 1);
    results.append_version(&cluster.version())?;
    let address = cluster.plane.kubeconfig().display().to_string();
    let driver = Driver::start(setup, &address, results).await?;
    let relay = Relay::to(cluster.address(Part::ApiServer)).await?;
    let (operators, newcomer) = (0, plan.instances);
    play(&mut Measurement { driver, relay, cluster, operators, newcomer }, &what).await
}

async fn play(measurement: &mut Measurement, what: &Cost) -> Result<()> {
    let plan = &what.plan;
    let mut operator = measurement.counted_operator().await?;
    measurement.driver.warm_up(plan.warm_up).await?;
    measurement.driver.say("steady state");
    measurement.record(&operator, Edge::Began("steady")).await?;
    measurement.driver.listen(plan.steady).await?;
    measurement.record(&operator, Edge::Ended("steady")).await?;
    operator.process.stop(PATIENCE).await?;
    takeover::starts(measurement, what.starts).await?;
    takeover::failovers(measurement, what.failovers).await?;
    // Churn is the last step: it leaves dead Leases, which an operator that starts later would have to read.
    if !what.churn.is_zero() {
        let operator = measurement.counted_operator().await?;
        // The operator would give an instance a full ttl from the operator's start, if the instance fell silent
        // before the operator has seen one of its beats.
        let all_have_beaten = plan.interval + Duration::from_secs(1);
        measurement.driver.listen(plan.warm_up.max(all_have_beaten)).await?;
        measurement.driver.say("instances come and go");
        let a_second = f64::from(plan.instances) * what.replaced;
        churn::measure(measurement, &operator, what.churn, a_second).await?;
    }
    measurement.driver.record_strays().map(drop)
}
