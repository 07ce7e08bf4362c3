//! One run of all scenarios against one system.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use rand::Rng;
use serde_json::json;

use crate::driver::Driver;
use crate::messages::{Act, Instance, Order};
use crate::meter::{self, Edge};
use crate::plan::{Plan, seconds};
use crate::process::Stopped;
use crate::system::{Part, Setup, System};
use crate::systems;

/// The first instance that hammers; its number is far from those of the watched instances.
const HAMMERERS: Instance = 100_000;
/// So many renew at a time then.
const CLIENTS: u32 = 64;

/// What to measure.
#[derive(Debug, Args)]
pub struct Measure {
    #[command(flatten)]
    plan: Plan,
    /// The system.
    #[arg(long, value_enum)]
    system: System,
    /// The number of the run.
    #[arg(long, default_value_t = 1)]
    run: u32,
    /// Over how many services they are spread; for Beatkeeper alone.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    services: u32,
    /// Deaths of single instances, at random phases.
    #[arg(long, default_value_t = 200)]
    deaths: u32,
    /// Instances that say that they leave, at most half of all.
    #[arg(long, default_value_t = 50)]
    leaves: u32,
    /// At most so many die at once, and never more than half.
    #[arg(long, default_value_t = 3000)]
    mass: u32,
    /// Seconds for which each part stands still while all instances are alive; 0 for never.
    #[arg(long, default_value = "15", value_parser = seconds)]
    freeze: Duration,
    /// Seconds of renewals as fast as they are answered; 0 for none.
    #[arg(long, default_value = "10", value_parser = seconds)]
    hammer: Duration,
    /// So many other keys lie in Redis.
    #[arg(long, default_value_t = 0)]
    ballast: u32,
}

/// Measures, and adds the results to the files of the folder.
///
/// # Errors
/// If the system does not start, or a process fails.
pub async fn measure(what: Measure) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let Measure { system, services, ballast, .. } = what;
    let setup = Setup { services, ballast, ..what.plan.setup(system, data.path()) };
    let variant = match (ballast, services) {
        (0, 1) => String::new(),
        (0, services) => format!("in {services} services"),
        (keys, _) => format!("beside {keys} other keys"),
    };
    let results = what.plan.results(system, variant, what.run);
    let running = systems::start(&setup).await?;
    results.append_version(&running.version)?;
    let driver = Driver::start(setup, &running.address, results).await?;
    Measurement { what, driver, parts: running.parts.clone() }.play().await
}

struct Measurement {
    what: Measure,
    driver: Driver,
    parts: Vec<Part>,
}

impl Measurement {
    async fn play(&mut self) -> Result<()> {
        let interval = self.driver.setup.interval;
        self.driver.warm_up(self.what.plan.warm_up).await?;
        self.driver.say("steady state");
        self.steady().await?;
        self.driver.say("single deaths");
        self.record_metrics(Edge::Began("single")).await?;
        self.single_deaths().await?;
        self.record_metrics(Edge::Ended("single")).await?;
        self.driver.say("leaving");
        let leaving = self.driver.some(self.what.leaves);
        for &instance in &leaving {
            self.driver.act(Act::Leave, vec![instance]).await?;
            self.driver.listen(Duration::from_millis(50)).await?;
        }
        self.driver.settle("leave").await?;
        self.driver.bring_back(leaving, interval, "leave").await?;
        self.driver.say("many die at once");
        let dying = self.driver.some(self.what.mass);
        self.driver.act(Act::Death, dying.clone()).await?;
        self.driver.settle("mass").await?;
        self.driver.bring_back(dying, interval, "mass").await?;
        if !self.what.hammer.is_zero() {
            self.driver.say("as many renewals as are answered");
            self.capacity().await?;
        }
        self.record_metrics(Edge::Ended("whole")).await?;
        if !self.what.freeze.is_zero() {
            for part in self.parts.clone() {
                self.driver.say(&format!("{} stands still", part.name));
                self.freeze(&part).await?;
            }
        }
        self.driver.record_strays().map(drop)
    }

    async fn steady(&mut self) -> Result<()> {
        let [began, ended] = [Edge::Began("peers"), Edge::Ended("peers")];
        // Outside of the span, because a page costs its process time.
        self.record_metrics(began).await?;
        self.record_usage(began).await?;
        self.driver.listen(self.what.plan.steady).await?;
        self.record_usage(ended).await?;
        self.record_metrics(ended).await
    }

    async fn record_usage(&mut self, edge: Edge<'_>) -> Result<()> {
        let renewals = Some(self.driver.renewals().await?);
        for part in &self.parts {
            meter::record_usage(&self.driver.results, edge, part, renewals, None)?;
        }
        Ok(())
    }

    async fn record_metrics(&self, edge: Edge<'_>) -> Result<()> {
        meter::record_metrics(&self.driver.results, edge, &self.parts).await
    }

    /// Lets instances die one after the other, at random moments. Instances that were seen to be removed come back
    /// meanwhile.
    async fn single_deaths(&mut self) -> Result<()> {
        // On average at most about a third is dead at a time. With many instances, they still die one by one.
        let share = 3.0 / f64::from(self.what.plan.instances);
        let mean = (share * self.what.plan.ttl.as_secs_f64()).max(0.3);
        for _ in 0..self.what.deaths {
            let victim = self.driver.some(1);
            self.driver.act(Act::Death, victim).await?;
            let pause = Duration::from_secs_f64(mean * rand::rng().random_range(0.0..2.0));
            self.driver.listen(pause).await?;
            self.return_the_dead().await?;
        }
        self.driver.settle("single").await?;
        self.return_the_dead().await?;
        self.driver.settle("single").await
    }

    async fn return_the_dead(&mut self) -> Result<()> {
        let away = |&instance: &Instance| self.driver.ledger.is_away(instance);
        let instances = (0..self.what.plan.instances).filter(away).collect();
        self.driver.act(Act::Return, instances).await
    }

    async fn capacity(&mut self) -> Result<()> {
        let span = self.what.hammer;
        let instances = HAMMERERS..HAMMERERS + CLIENTS;
        let (renewals, failures) = self.driver.count(&Order::Hammer { instances, span }).await?;
        let line = json!({
            "clients": CLIENTS,
            "seconds": span.as_secs(),
            "renewals": renewals as f64 / span.as_secs_f64(),
            "failures": failures,
        });
        self.driver.results.append("capacity", [line])?;
        // The removal of the hammerers is expected, so it does not count as stray.
        self.driver.listen(self.driver.setup.interval).await?;
        self.driver.ledger.strays.retain(|&instance| instance < HAMMERERS);
        Ok(())
    }

    /// All instances are alive and try to renew while a part is suspended. Instances that are removed within two
    /// ttls are counted.
    async fn freeze(&mut self, part: &Part) -> Result<()> {
        self.driver.record_strays()?;
        let alive = self.driver.ledger.idle().count();
        let stopped = Stopped::now([part.pid])?;
        self.driver.listen(self.what.freeze).await?;
        drop(stopped);
        self.driver.listen(2 * self.driver.setup.ttl).await?;
        let strays = std::mem::take(&mut self.driver.ledger.strays);
        let removed = HashSet::<Instance>::from_iter(strays).len();
        let seconds = self.what.freeze.as_secs();
        let part = part.name;
        let line = json!({ "part": part, "seconds": seconds, "alive": alive, "removed": removed });
        self.driver.results.append("freeze", [line])
    }
}
