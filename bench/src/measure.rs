//! One run of all scenarios against one system.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::driver::{Driver, GENEROUS};
use crate::ledger::Act;
use crate::messages::{Event, Instance, Order};
use crate::metrics;
use crate::plan::Plan;
use crate::process::{self, Usage};
use crate::results;
use crate::system::{Absent, Part, Running, Setup, System};
use crate::systems;
use crate::workers::Workers;

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
    /// Instances that say that they leave.
    #[arg(long, default_value_t = 50)]
    leaves: u32,
    /// At most so many die at once, and never more than half.
    #[arg(long, default_value_t = 3000)]
    mass: u32,
    /// Seconds for which each part stands still while all instances are alive; 0 for never.
    #[arg(long, default_value_t = 15)]
    freeze: u64,
    /// Seconds of renewals as fast as they are answered; 0 for none.
    #[arg(long, default_value_t = 10)]
    hammer: u64,
    /// So many other keys lie in Redis.
    #[arg(long, default_value_t = 0)]
    ballast: u32,
    /// Where the servers of the peers were unpacked.
    #[arg(long, env = "BEATKEEPER_BENCH_PEERS", value_name = "DIR")]
    peers: Option<PathBuf>,
}

/// Measures, and adds the results to the files of the folder. If a system is not available here, this is recorded
/// in the results.
///
/// # Errors
/// If something fails that is not caused by the measured system.
pub async fn measure(what: Measure) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let Measure { system, services, ballast, .. } = what;
    let usual = what.plan.setup(data.path().to_owned());
    let setup = Setup { services, ballast, peers: what.peers.clone(), ..usual };
    let running = match systems::start(system, &setup).await {
        Ok(running) => running,
        Err(error) => {
            let absent = error.downcast::<Absent>()?.to_string();
            eprintln!("{system}: {absent}");
            return results::append_system(&what.plan.out, system, "", &absent);
        }
    };
    results::append_system(&what.plan.out, system, &running.version, "")?;
    let workers = Workers::start(system, &running.address, &setup).await?;
    let variant = match (ballast, services) {
        (0, 1) => String::new(),
        (0, services) => format!("in {services} services"),
        (keys, _) => format!("beside {keys} other keys"),
    };
    let run = what.plan.run(system, variant, what.run);
    let driver = Driver::new(run, workers, setup.ttl, &what.plan.out);
    Measurement { what, setup, driver }.play(&running).await
}

struct Measurement {
    what: Measure,
    setup: Setup,
    driver: Driver,
}

impl Measurement {
    async fn play(&mut self, Running { parts, .. }: &Running) -> Result<()> {
        self.driver.all_register(self.setup.interval).await?;
        self.driver.listen(Duration::from_secs(self.what.plan.warm_up)).await?;
        self.driver.say("steady state");
        self.steady(parts).await?;
        self.driver.say("single deaths");
        self.scrape(parts, "single began").await?;
        self.single_deaths().await?;
        self.scrape(parts, "single ended").await?;
        self.driver.say("leaving");
        let leaving = self.driver.some_idle(self.what.leaves.min(self.what.plan.instances / 2));
        for &instance in &leaving {
            self.driver.act(Act::Leave, vec![instance]).await?;
            self.driver.listen(Duration::from_millis(50)).await?;
        }
        self.driver.settle(GENEROUS, "leave").await?;
        self.driver.bring_back(&leaving, self.setup.interval, "leave").await?;
        self.driver.say("many die at once");
        let dying = self.driver.some_idle(self.what.mass.min(self.what.plan.instances / 2));
        self.driver.act(Act::Death, dying.clone()).await?;
        self.driver.settle(self.setup.ttl + GENEROUS, "mass").await?;
        self.driver.bring_back(&dying, self.setup.interval, "mass").await?;
        if self.what.hammer > 0 {
            self.driver.say("as many renewals as are answered");
            self.capacity().await?;
        }
        self.scrape(parts, "end").await?;
        if self.what.freeze > 0 {
            for part in parts {
                self.driver.say(&format!("{} stands still", part.name));
                self.freeze(part).await?;
            }
        }
        self.driver.note_strays(|_| true).map(drop)
    }

    async fn steady(&mut self, parts: &[Part]) -> Result<()> {
        let usage = || parts.iter().map(|part| Usage::of(part.pid)).collect::<Result<Vec<_>>>();
        self.scrape(parts, "steady began").await?;
        let (before, from) = (usage()?, self.driver.count().await?);
        let began = Instant::now();
        self.driver.listen(Duration::from_secs(self.what.plan.steady)).await?;
        let (after, to) = (usage()?, self.driver.count().await?);
        let seconds = began.elapsed().as_secs_f64();
        self.scrape(parts, "steady ended").await?;
        let lines = parts.iter().zip(before.iter().zip(&after)).map(|(part, (before, after))| {
            json!({
                "part": part.name, "scenario": "peers", "seconds": seconds,
                "renewals": (to.0 - from.0) as f64 / seconds, "cpu": (after.cpu - before.cpu) / seconds,
                "rss": after.rss, "peak": after.peak, "received": null,
            })
        });
        self.driver.append("usage", lines)
    }

    /// Records the metrics of the processes. A store has many, of which few are used.
    async fn scrape(&self, parts: &[Part], phase: &str) -> Result<()> {
        for part in parts {
            let Some(address) = &part.metrics else { continue };
            let samples = metrics::scrape(address).await?.into_iter().filter(|sample| {
                ["beatkeeper_", "etcd_disk_", "etcd_mvcc_db_total_size_in_use_in_bytes"]
                    .iter()
                    .any(|prefix| sample.name.starts_with(prefix))
            });
            let lines = samples.map(|sample| {
                let [kind, verb, step, le] = ["kind", "verb", "step", "le"].map(|it| sample.label(it));
                json!({
                    "part": part.name, "phase": phase, "name": sample.name, "kind": kind, "verb": verb,
                    "step": step, "le": le.replace("+Inf", "inf"), "value": sample.value,
                })
            });
            self.driver.append("metrics", lines)?;
        }
        Ok(())
    }

    /// Lets instances die one after the other, at random moments. Instances that were seen to be removed come back
    /// meanwhile.
    async fn single_deaths(&mut self) -> Result<()> {
        // On average at most about a third is dead at a time. With many instances, they still die one by one.
        let mean =
            (3.0 * self.setup.ttl.as_secs_f64() / f64::from(self.what.plan.instances)).max(0.3);
        for _ in 0..self.what.deaths {
            if let Some(victim) = self.driver.idle().choose(&mut rand::rng()).copied() {
                self.driver.act(Act::Death, vec![victim]).await?;
            }
            let pause = Duration::from_secs_f64(mean * rand::rng().random_range(0.0..2.0));
            self.driver.listen(pause).await?;
            self.return_the_dead().await?;
        }
        self.driver.settle(self.setup.ttl + GENEROUS, "single").await?;
        self.return_the_dead().await?;
        self.driver.settle(GENEROUS, "single").await
    }

    async fn return_the_dead(&mut self) -> Result<()> {
        let away = |&instance: &Instance| self.driver.ledger.is_away(instance);
        let instances: Vec<Instance> = (0..self.what.plan.instances).filter(away).collect();
        self.driver.act(Act::Return, instances).await
    }

    async fn capacity(&mut self) -> Result<()> {
        let span = Duration::from_secs(self.what.hammer);
        let instances = HAMMERERS..HAMMERERS + CLIENTS;
        self.driver.order(&Order::Hammer { instances, span }).await?;
        let is = |event: &Event| matches!(event, Event::Hammered { .. });
        let Event::Hammered { renewals, failures, seconds } =
            self.driver.answer(span + GENEROUS, is).await?
        else {
            bail!("the loader hammers with something else")
        };
        let line = json!({
            "clients": CLIENTS, "seconds": seconds,
            "renewals": renewals as f64 / seconds, "failures": failures,
        });
        self.driver.append("capacity", [line])?;
        // The removal of the hammerers is expected, so it does not count as stray.
        self.driver.listen(self.setup.interval).await?;
        self.driver.note_strays(|instance| instance < HAMMERERS).map(drop)
    }

    /// All instances are alive and try to renew while a part is suspended. Instances that are removed within two
    /// ttls are counted.
    async fn freeze(&mut self, part: &Part) -> Result<()> {
        self.driver.note_strays(|_| true)?;
        process::freeze(part.pid, true)?;
        let listened = self.driver.listen(Duration::from_secs(self.what.freeze)).await;
        process::freeze(part.pid, false)?;
        listened?;
        self.driver.listen(2 * self.setup.ttl).await?;
        let strays = self.driver.ledger.take_strays();
        let removed: std::collections::HashSet<Instance> = strays.into_iter().collect();
        let line = json!({
            "part": part.name, "seconds": self.what.freeze, "removed": removed.len(),
        });
        self.driver.append("freeze", [line])
    }
}
