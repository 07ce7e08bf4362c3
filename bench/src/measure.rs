//! The driver: one run of all scenarios against one system.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::crew::Crew;
use crate::drive::{Drive, GENEROUS};
use crate::ledger::Act;
use crate::process::{self, Usage};
use crate::records::{self, Capacity, Freeze, Metric, Run, System};
use crate::scrape;
use crate::systems::{self, Absent, Name, Part, Running, Setup};
use crate::words::{Event, Instance, Order};

/// The first instance that hammers; its number is far from those of the watched instances.
const HAMMERERS: Instance = 100_000;

/// What to measure.
#[derive(Debug, Args)]
pub struct Plan {
    /// The system.
    #[arg(long, value_enum)]
    system: Name,
    /// The folder that the results are added to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The number of the run.
    #[arg(long, default_value_t = 1)]
    run: u32,
    /// How many instances beat.
    #[arg(long, default_value_t = 100)]
    instances: u32,
    /// Over how many services they are spread; for Beatkeeper alone.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    services: u32,
    /// Seconds of silence after which one counts as dead.
    #[arg(long, default_value_t = 10)]
    ttl: u64,
    /// Seconds between two beats.
    #[arg(long, default_value_t = 3)]
    interval: u64,
    /// Seconds before anything is measured, while all beat.
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// Seconds of steady state in which the use of processor and memory is measured.
    #[arg(long, default_value_t = 20)]
    steady: u64,
    /// Deaths of single instances, at random phases.
    #[arg(long, default_value_t = 200)]
    deaths: u32,
    /// Instances that say that they leave.
    #[arg(long, default_value_t = 50)]
    leaves: u32,
    /// At most so many die at once, and never more than half.
    #[arg(long, default_value_t = 3000)]
    mass: u32,
    /// Seconds for which each part stands still while everybody is alive; 0 for never.
    #[arg(long, default_value_t = 15)]
    freeze: u64,
    /// Seconds of renewals as fast as they are answered; 0 for none.
    #[arg(long, default_value_t = 10)]
    hammer: u64,
    /// So many renew at a time then.
    #[arg(long, default_value_t = 64)]
    clients: u32,
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
pub async fn measure(plan: Plan) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let setup = Setup {
        ttl: Duration::from_secs(plan.ttl),
        interval: Duration::from_secs(plan.interval),
        data: data.path().to_owned(),
        peers: plan.peers.clone(),
        services: plan.services,
        ballast: plan.ballast,
    };
    let told = |version: &str, absent: &str| System {
        system: plan.system,
        version: version.to_owned(),
        absent: absent.to_owned(),
    };
    let running = match systems::start(plan.system, &setup).await {
        Ok(running) => running,
        Err(error) => match error.downcast_ref::<Absent>() {
            Some(absent) => {
                eprintln!("{}: {absent}", plan.system.as_str());
                return records::append(&plan.out, &[told("", &absent.to_string())]);
            }
            None => return Err(error),
        },
    };
    records::append(&plan.out, &[told(&running.version, "")])?;
    let crew = Crew::start(plan.system, &running.address, &setup).await?;
    let run = Run {
        system: plan.system,
        variant: match (plan.ballast, plan.services) {
            (0, 1) => String::new(),
            (0, services) => format!("in {services} services"),
            (keys, _) => format!("beside {keys} other keys"),
        },
        instances: plan.instances,
        beats_per_second: f64::from(plan.instances) / plan.interval as f64,
        run: plan.run,
    };
    let drive = Drive::new(run, crew, setup.ttl, &plan.out);
    let mut driver = Driver { plan, setup, drive };
    driver.play(&running).await
}

struct Driver {
    plan: Plan,
    setup: Setup,
    drive: Drive,
}

impl Driver {
    async fn play(&mut self, running: &Running) -> Result<()> {
        self.drive.all_register(self.setup.interval).await?;
        self.drive.listen(Duration::from_secs(self.plan.warm_up)).await?;
        self.drive.tell("steady state");
        self.steady(&running.parts).await?;
        self.drive.tell("single deaths");
        self.scrape(&running.parts, "single began").await?;
        self.single_deaths().await?;
        self.scrape(&running.parts, "single ended").await?;
        self.drive.tell("leaving");
        self.leaves().await?;
        self.drive.tell("many die at once");
        self.mass_death().await?;
        if self.plan.hammer > 0 {
            self.drive.tell("as many renewals as are answered");
            self.capacity().await?;
        }
        self.scrape(&running.parts, "end").await?;
        if self.plan.freeze > 0 {
            for part in &running.parts {
                self.drive.tell(&format!("{} stands still", part.name));
                self.freeze(part).await?;
            }
        }
        let strays = self.drive.ledger.take_strays();
        self.drive.missed("stray", strays)
    }

    async fn steady(&mut self, parts: &[Part]) -> Result<()> {
        let usage = |parts: &[Part]| -> Result<Vec<Usage>> {
            parts.iter().map(|part| Usage::of(part.pid)).collect()
        };
        self.scrape(parts, "steady began").await?;
        let (before, from) = (usage(parts)?, self.drive.count().await?);
        let began = Instant::now();
        self.drive.listen(Duration::from_secs(self.plan.steady)).await?;
        let (after, to) = (usage(parts)?, self.drive.count().await?);
        let seconds = began.elapsed().as_secs_f64();
        self.scrape(parts, "steady ended").await?;
        let lines: Vec<_> = parts
            .iter()
            .zip(before.iter().zip(&after))
            .map(|(part, (before, after))| {
                records::Usage::of(
                    &self.drive.run,
                    part.name.to_owned(),
                    seconds,
                    (to.0 - from.0) as f64 / seconds,
                    (after.cpu - before.cpu) / seconds,
                    after.rss,
                    after.peak,
                )
            })
            .collect();
        self.drive.append(&lines)
    }

    /// Records the metrics of the processes.
    async fn scrape(&self, parts: &[Part], phase: &str) -> Result<()> {
        for part in parts {
            let Some(address) = &part.metrics else { continue };
            let samples = scrape::scrape(address).await?.into_iter();
            let samples = samples.filter(|(series, _)| {
                part.name != scrape::STORE || scrape::is_kept_of_store(series)
            });
            let line = |(series, value)| {
                Metric::of(&self.drive.run, part.name.to_owned(), phase.to_owned(), series, value)
            };
            self.drive.append(&samples.map(line).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Lets instances die one after the other, at random moments. Instances that were seen to be removed come back
    /// meanwhile.
    async fn single_deaths(&mut self) -> Result<()> {
        // On average at most about a third is dead at a time. In a large crowd, instances still die one by one.
        let mean = (3.0 * self.setup.ttl.as_secs_f64() / f64::from(self.plan.instances)).max(0.3);
        for _ in 0..self.plan.deaths {
            if let Some(victim) = self.drive.idle().choose(&mut rand::rng()).copied() {
                self.drive.act(Act::Death, vec![victim]).await?;
            }
            let pause = Duration::from_secs_f64(mean * rand::rng().random_range(0.0..2.0));
            self.drive.listen(pause).await?;
            self.return_the_dead().await?;
        }
        self.drive.settle(self.setup.ttl + GENEROUS, "single").await?;
        self.return_the_dead().await?;
        self.drive.settle(GENEROUS, "single").await
    }

    async fn return_the_dead(&mut self) -> Result<()> {
        let away = |&instance: &Instance| self.drive.ledger.is_away(instance);
        let instances: Vec<Instance> = (0..self.plan.instances).filter(away).collect();
        self.drive.act(Act::Return, instances).await
    }

    async fn leaves(&mut self) -> Result<()> {
        let leaving = (self.plan.leaves.min(self.plan.instances / 2)) as usize;
        let mut who = self.drive.idle();
        who.shuffle(&mut rand::rng());
        who.truncate(leaving);
        for &instance in &who {
            self.drive.act(Act::Leave, vec![instance]).await?;
            self.drive.listen(Duration::from_millis(50)).await?;
        }
        self.drive.settle(GENEROUS, "leave").await?;
        self.drive.bring_back(&who, self.setup.interval, "leave").await
    }

    async fn mass_death(&mut self) -> Result<()> {
        let dying = (self.plan.mass.min(self.plan.instances / 2)) as usize;
        let mut who = self.drive.idle();
        who.shuffle(&mut rand::rng());
        who.truncate(dying);
        self.drive.act(Act::Death, who.clone()).await?;
        self.drive.settle(self.setup.ttl + GENEROUS, "mass").await?;
        self.drive.bring_back(&who, self.setup.interval, "mass").await
    }

    async fn capacity(&mut self) -> Result<()> {
        let span = Duration::from_secs(self.plan.hammer);
        let instances = HAMMERERS..HAMMERERS + self.plan.clients;
        self.drive.order(&Order::Hammer { instances, span }).await?;
        let is = |event: &Event| matches!(event, Event::Hammered { .. });
        let Event::Hammered { renewals, failures, seconds } =
            self.drive.answer(span + GENEROUS, is).await?
        else {
            bail!("the loader hammers with something else")
        };
        let rate = renewals as f64 / seconds;
        let line = Capacity::of(&self.drive.run, self.plan.clients, seconds, rate, failures);
        self.drive.append(&[line])?;
        // The removal of the hammerers is expected, so it does not count as stray.
        self.drive.listen(self.setup.interval).await?;
        let strays = self.drive.ledger.take_strays();
        self.drive.missed("stray", strays.into_iter().filter(|&who| who < HAMMERERS).collect())
    }

    /// All instances are alive and try to renew while a part is suspended. Instances that are removed within two
    /// ttls are counted.
    async fn freeze(&mut self, part: &Part) -> Result<()> {
        let before = self.drive.ledger.take_strays();
        self.drive.missed("stray", before)?;
        let from = self.drive.count().await?;
        process::freeze(part.pid, true)?;
        let listened = self.drive.listen(Duration::from_secs(self.plan.freeze)).await;
        process::freeze(part.pid, false)?;
        listened?;
        self.drive.listen(2 * self.setup.ttl).await?;
        let to = self.drive.count().await?;
        let removed: std::collections::HashSet<_> =
            self.drive.ledger.take_strays().into_iter().collect();
        let line = Freeze::of(
            &self.drive.run,
            part.name.to_owned(),
            self.plan.freeze as f64,
            u32::try_from(removed.len())?,
            to.1 - from.1,
        );
        self.drive.append(&[line])
    }
}
