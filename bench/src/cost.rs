//! Measures the cost of an operator: in steady state, while instances come and go, and when an operator starts or
//! takes over.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

mod churn;
mod measurement;
mod takeover;

use crate::driver::Driver;
use crate::plan::Plan;
use crate::relay::Relay;
use crate::results;
use crate::system::System;
use crate::systems::control_plane::Cluster;
use crate::workers::Workers;
use measurement::Measurement;

/// What to measure.
#[derive(Debug, Args)]
pub struct Cost {
    #[command(flatten)]
    plan: Plan,
    /// Seconds in which instances come and go; 0 for none.
    #[arg(long, default_value_t = 60)]
    churn: u64,
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
    let setup = plan.setup(data.path().to_owned());
    let cluster = Cluster::start(&setup).await?;
    let system = System::Beatkeeper;
    results::append_system(&plan.out, system, &cluster.version(), "")?;
    let address = cluster.kubeconfig().display().to_string();
    let workers = Workers::start(system, &address, &setup).await?;
    let driver = Driver::new(plan.run(system, String::new(), 1), workers, setup.ttl, &plan.out);
    let relay = Relay::to(cluster.address()).await?;
    let (operators, newcomer) = (0, plan.instances);
    let mut measurement = Measurement { setup, driver, relay, cluster, operators, newcomer };
    play(&mut measurement, &what).await
}

async fn play(measurement: &mut Measurement, what: &Cost) -> Result<()> {
    let plan = &what.plan;
    let operator = measurement.counted_operator().await?;
    measurement.driver.all_register(measurement.setup.interval).await?;
    measurement.driver.listen(Duration::from_secs(plan.warm_up)).await?;
    measurement.driver.say("steady state");
    let before = measurement.reading(&operator).await?;
    measurement.driver.listen(Duration::from_secs(plan.steady)).await?;
    let after = measurement.reading(&operator).await?;
    measurement.record("steady", &before, &after)?;
    operator.server.end().await?;
    takeover::starts(measurement, what.starts).await?;
    takeover::failovers(measurement, what.failovers).await?;
    // Churn is the last step: it leaves dead Leases, which an operator that starts later would have to read.
    if what.churn > 0 {
        let operator = measurement.counted_operator().await?;
        // The operator would give an instance a full ttl from the operator's start, if the instance fell silent
        // before the operator has seen one of its beats.
        let all_have_beaten = plan.interval + 1;
        measurement.driver.listen(Duration::from_secs(plan.warm_up.max(all_have_beaten))).await?;
        measurement.driver.say("instances come and go");
        let a_second = f64::from(plan.instances) * what.replaced;
        churn::measure(measurement, &operator, Duration::from_secs(what.churn), a_second).await?;
    }
    measurement.driver.note_strays(|_| true).map(drop)
}
