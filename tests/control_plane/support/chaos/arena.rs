//! A namespace with many instances, watched from the start, and the evaluation at the end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use beatkeeper_cluster::ControlPlane;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{chronicle::Chronicle, crowd::Crowd, figures::Figures, weather::Weather};
use crate::support::{Shop, eventually};

/// The size of a case.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub registrations: usize,
    pub instances: usize,
    pub ttl: Duration,
    pub interval: Duration,
    /// How often the case injects its fault, or for how many seconds the fault lasts.
    pub rounds: u32,
}

impl Scale {
    /// Thirty instances of one registration, ttl 3 s, interval 1 s.
    pub const fn thirty(rounds: u32) -> Self {
        Self {
            registrations: 1,
            instances: 30,
            ttl: Duration::from_secs(3),
            interval: Duration::from_secs(1),
            rounds,
        }
    }
}

/// The environment of a case.
pub struct Arena {
    pub shop: Shop,
    pub crowd: Crowd,
    pub chronicle: Chronicle,
    pub weather: Weather,
    rng: StdRng,
    pub scale: Scale,
    case: String,
}

impl Arena {
    /// Prepares an arena on the shared control plane.
    pub async fn open(case: &str, scale: Scale) -> Self {
        Self::on(Shop::open("chaos").await, case, scale).await
    }

    /// Prepares an arena on a control plane that may be broken: see [`super::turn`].
    pub async fn open_on(plane: &'static ControlPlane, case: &str, scale: Scale) -> Self {
        Self::on(Shop::open_on(plane, "chaos").await, case, scale).await
    }

    async fn on(shop: Shop, case: &str, scale: Scale) -> Self {
        let registrations: Vec<String> =
            (1..=scale.registrations).map(|n| format!("greeter-{n}")).collect();
        for name in &registrations {
            let spec = json!({
                "ttl": format!("{}ms", scale.ttl.as_millis()),
                "interval": format!("{}ms", scale.interval.as_millis()),
                "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
            });
            shop.register(name, spec).await;
        }
        let weather = Weather::watch(&shop).await;
        let crowd = Crowd::new(&shop, &registrations, scale, weather.diary());
        let chronicle = Chronicle::begin(&shop).await;
        let rng = super::seeded(case);
        Self { shop, crowd, chronicle, weather, rng, scale, case: case.to_owned() }
    }

    /// Starts instances until as many live as the scale says. Waits until exactly these are
    /// published.
    pub async fn fill(&mut self) {
        for n in self.crowd.living().len()..self.scale.instances {
            self.crowd.start(&mut self.rng);
            // They start concurrently, but at most 50 at once.
            if n % 50 == 49 {
                self.calm().await;
            }
        }
        self.calm().await;
    }

    async fn calm(&self) {
        eventually("all that live are published, and nobody else", async || {
            (self.chronicle.published() == self.living()).then_some(())
        })
        .await;
    }

    /// A random number generator, derived from the same seed, for tasks that run beside the arena.
    pub fn chance(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.rng.random())
    }

    /// Kills `count` instances at moments spread over the duration `over`. The choice of instances
    /// is random.
    pub async fn die(&mut self, count: u32, over: Duration) {
        let end = Instant::now() + over;
        for left in (1..=count).rev() {
            let rest = end.saturating_duration_since(Instant::now());
            tokio::time::sleep(rest / (left + 1)).await;
            let victim = self.crowd.any(&mut self.rng).unwrap();
            self.crowd.kill(&victim);
        }
        tokio::time::sleep_until(end.into()).await;
    }

    /// Waits until exactly the living instances are published. Then evaluates the records, prints
    /// the figures, and panics if a promise was broken. Returns the instances that left late. Only
    /// a run on a machine without other work can judge these.
    pub async fn settle(self, faults: u32) -> Vec<String> {
        let patience = Duration::from_secs(20) + 4 * self.scale.ttl;
        let start = Instant::now();
        while self.chronicle.published() != self.living()
            && self.weather.undisturbed(start, Instant::now()) < patience
            && start.elapsed() < 10 * patience
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The correct state must last for as long as a wrong decision takes to show.
        if self.chronicle.published() == self.living() {
            tokio::time::sleep(self.scale.ttl + self.scale.interval).await;
        }
        let figures = self.reckon(faults);
        println!("\n{}\n{}: {}", figures.row(&self.case), self.case, figures.remarks());
        assert_eq!(figures.false_prunes, [""; 0], "somebody went who lived");
        assert_eq!(figures.leftover, [""; 0], "somebody stayed who was dead");
        assert_eq!(figures.absent, [""; 0], "somebody who lives is not published");
        assert_eq!(self.chronicle.holes(), 0, "there are states that nobody saw");
        figures.late
    }

    fn living(&self) -> BTreeSet<String> {
        self.crowd.living().into_iter().collect()
    }

    fn reckon(&self, faults: u32) -> Figures {
        let stays = self.chronicle.stays();
        let (published, living) = (self.chronicle.published(), self.living());
        let mut figures = Figures {
            faults,
            states: self.chronicle.states(),
            away: self.weather.away(),
            longest_pause: self.weather.longest_pause(),
            leftover: published.difference(&living).cloned().collect(),
            absent: living.difference(&published).cloned().collect(),
            ..Figures::default()
        };
        for (address, life) in &self.crowd.books() {
            let stays = stays.get(address).map(Vec::as_slice).unwrap_or_default();
            figures.enter(address, life, stays, &self.weather, &self.scale);
        }
        figures.close();
        figures
    }
}
