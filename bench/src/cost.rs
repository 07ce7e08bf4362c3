//! Measures the cost of an operator: in steady state, while instances come and go, and when an operator starts or
//! takes over.

use std::time::{Duration, Instant};

use anyhow::Result;
use beatkeeper_cluster::Part;
use clap::Args;

mod measurement;
mod takeover;

use crate::driver::Driver;
use crate::messages::{Act, Instance};
use crate::meter::Edge;
use crate::plan::{Plan, seconds};
use crate::process::PATIENCE;
use crate::relay::Relay;
use crate::system::System;
use crate::systems::control_plane::Cluster;
use measurement::Measurement;

/// The time between two replacements.
const PACE: Duration = Duration::from_millis(100);

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
        churn(measurement, what).await?;
    }
    measurement.driver.record_strays().map(drop)
}

/// Measures while instances are replaced: half of the leaving instances deregister, and half fall silent.
async fn churn(measurement: &mut Measurement, what: &Cost) -> Result<()> {
    let plan = &what.plan;
    let operator = measurement.counted_operator().await?;
    // The operator would give an instance a full ttl from the operator's start, if the instance fell silent before
    // the operator has seen one of its beats.
    let all_have_beaten = plan.interval + Duration::from_secs(1);
    measurement.driver.listen(plan.warm_up.max(all_have_beaten)).await?;
    measurement.driver.say("instances come and go");
    let a_second = f64::from(plan.instances) * what.replaced;
    // The first ttl is not measured. After it, as many deadlines pass as instances fall silent.
    replace(measurement, plan.ttl, a_second).await?;
    measurement.record(&operator, Edge::Began("churn")).await?;
    replace(measurement, what.churn, a_second).await?;
    measurement.record(&operator, Edge::Ended("churn")).await?;
    measurement.driver.settle("churn").await
}

async fn replace(measurement: &mut Measurement, span: Duration, a_second: f64) -> Result<()> {
    let (began, mut replaced) = (Instant::now(), 0);
    while began.elapsed() < span {
        let due = (began.elapsed().as_secs_f64() * a_second) as Instance;
        let mut leaving = measurement.driver.some(due - replaced);
        let first = measurement.newcomer;
        measurement.newcomer += leaving.len() as Instance;
        // The instance that is one too many falls silent and leaves by turns.
        let silent = leaving.split_off((leaving.len() + replaced as usize % 2) / 2);
        replaced = due;
        measurement.driver.act(Act::Death, silent).await?;
        measurement.driver.act(Act::Leave, leaving).await?;
        let new = (first..measurement.newcomer).collect();
        measurement.driver.act(Act::Return, new).await?;
        measurement.driver.listen(PACE).await?;
    }
    Ok(())
}
