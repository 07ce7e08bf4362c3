//! Measures the cost of an operator: in steady state, while instances come and go, and when an operator starts or
//! takes over.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::crew::Crew;
use crate::drive::Drive;
use crate::records::{self, Run, System};
use crate::relay::Relay;
use crate::systems::beatkeeper::{Operator, Stage};
use crate::systems::{Name, Setup};
use crate::words::Instance;

mod churn;
mod meter;
mod takeover;

/// What to measure.
#[derive(Debug, Args)]
pub struct Plan {
    /// The folder that the results are added to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The number of the run.
    #[arg(long, default_value_t = 1)]
    run: u32,
    /// How many instances beat.
    #[arg(long, default_value_t = 100)]
    instances: u32,
    /// Seconds of silence after which one counts as dead.
    #[arg(long, default_value_t = 10)]
    ttl: u64,
    /// Seconds between two beats.
    #[arg(long, default_value_t = 3)]
    interval: u64,
    /// Seconds before anything is measured, while all beat.
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// Seconds of steady state.
    #[arg(long, default_value_t = 60)]
    steady: u64,
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
pub async fn cost(plan: Plan) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let setup = Setup {
        ttl: Duration::from_secs(plan.ttl),
        interval: Duration::from_secs(plan.interval),
        data: data.path().to_owned(),
        peers: None,
        services: 1,
        ballast: 0,
    };
    let stage = Stage::open(&setup).await?;
    let system = Name::Beatkeeper;
    let told = System { system, version: stage.version(), absent: String::new() };
    records::append(&plan.out, &[told])?;
    let crew = Crew::start(system, &stage.kubeconfig().display().to_string(), &setup).await?;
    let run = Run {
        system,
        variant: String::new(),
        instances: plan.instances,
        beats_per_second: f64::from(plan.instances) / plan.interval as f64,
        run: plan.run,
    };
    let drive = Drive::new(run, crew, setup.ttl, &plan.out);
    let relay = Relay::to(stage.address()).await?;
    let newcomer = plan.instances;
    let mut driver = Driver { plan, setup, drive, relay, stage, operators: 0, newcomer };
    driver.play().await
}

struct Driver {
    plan: Plan,
    setup: Setup,
    drive: Drive,
    relay: Relay,
    stage: Stage,
    /// The number of operators started so far.
    operators: u32,
    /// The next number that no instance has had.
    newcomer: Instance,
}

impl Driver {
    async fn play(&mut self) -> Result<()> {
        let operator = self.counted_operator().await?;
        self.drive.all_register(self.setup.interval).await?;
        self.drive.listen(Duration::from_secs(self.plan.warm_up)).await?;
        self.drive.tell("steady state");
        let before = self.reading(&operator).await?;
        self.drive.listen(Duration::from_secs(self.plan.steady)).await?;
        let after = self.reading(&operator).await?;
        self.account("steady", &before, &after)?;
        operator.server.end().await?;
        self.starts().await?;
        self.failovers().await?;
        // Churn is the last step: it leaves dead Leases, which an operator that starts later would have to read.
        if self.plan.churn > 0 {
            let operator = self.counted_operator().await?;
            // The operator would give an instance a full ttl from the operator's start, if the instance fell silent
            // before the operator has seen one of its beats.
            let all_have_beaten = self.plan.interval + 1;
            self.drive.listen(Duration::from_secs(self.plan.warm_up.max(all_have_beaten))).await?;
            self.drive.tell("instances come and go");
            self.churn(&operator).await?;
        }
        let strays = self.drive.ledger.take_strays();
        self.drive.missed("stray", strays)
    }

    /// Starts the only operator. Its bytes are counted.
    async fn counted_operator(&mut self) -> Result<Operator> {
        let kubeconfig = self.stage.kubeconfig_by(self.relay.port())?;
        let name = self.next_name();
        let operator = self.stage.operator(&name, &kubeconfig, &[])?;
        self.stage.until_it_publishes(&operator).await?;
        Ok(operator)
    }

    /// Returns the name of the next operator, for its log.
    fn next_name(&mut self) -> String {
        self.operators += 1;
        format!("operator-{}", self.operators)
    }
}
