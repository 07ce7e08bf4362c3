//! A namespace with many instances, watched from the start, and the evaluation at the end.

use beatkeeper_test_support::{History, SliceObserver};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use beatkeeper_cluster::ControlPlane;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{conditions::Conditions, evaluation::Evaluation, instances::Instances};
use crate::support::{TestNamespace, eventually};

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
pub struct ChaosFixture {
    pub ns: TestNamespace,
    pub instances: Instances,
    pub observer: SliceObserver,
    pub conditions: Conditions,
    rng: StdRng,
    pub scale: Scale,
    case: String,
}

impl ChaosFixture {
    /// Prepares a fixture on the shared control plane.
    pub async fn new(case: &str, scale: Scale) -> Self {
        Self::on(TestNamespace::new("chaos").await, case, scale).await
    }

    /// Prepares a fixture on a control plane that may be broken: see [`super::turn`].
    pub async fn new_on(plane: &'static ControlPlane, case: &str, scale: Scale) -> Self {
        Self::on(TestNamespace::new_on(plane, "chaos").await, case, scale).await
    }

    async fn on(ns: TestNamespace, case: &str, scale: Scale) -> Self {
        let registrations: Vec<String> =
            (1..=scale.registrations).map(|n| format!("greeter-{n}")).collect();
        for name in &registrations {
            let spec = json!({
                "ttl": format!("{}ms", scale.ttl.as_millis()),
                "interval": format!("{}ms", scale.interval.as_millis()),
                "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
            });
            ns.register(name, spec).await;
        }
        let conditions = Conditions::watch(&ns).await;
        let instances = Instances::new(&ns, &registrations, scale, conditions.write_log());
        let observer = ns.observe_all().await;
        let rng = super::seeded(case);
        Self { ns, instances, observer, conditions, rng, scale, case: case.to_owned() }
    }

    /// Starts instances until as many live as the scale says. Waits until exactly these are
    /// published.
    pub async fn fill(&mut self) {
        for n in self.instances.living().len()..self.scale.instances {
            self.instances.start(&mut self.rng);
            // They start concurrently, but at most 50 at once.
            if n % 50 == 49 {
                self.until_all_published().await;
            }
        }
        self.until_all_published().await;
    }

    async fn until_all_published(&self) {
        eventually("exactly the living instances are published", async || {
            (self.observer.published() == self.living()).then_some(())
        })
        .await;
    }

    /// A random number generator, derived from the same seed, for tasks that run beside the fixture.
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
            let victim = self.instances.any(&mut self.rng).unwrap();
            self.instances.kill(&victim);
        }
        tokio::time::sleep_until(end.into()).await;
    }

    /// Waits until exactly the living instances are published. Then evaluates the records, prints
    /// the figures, and panics if a promise was broken. Returns the instances that left late. Only
    /// a run on a machine without other work can judge these.
    pub async fn settle(self, faults: u32) -> Vec<String> {
        let patience = Duration::from_secs(20) + 4 * self.scale.ttl;
        let start = Instant::now();
        while self.observer.published() != self.living()
            && self.conditions.undisturbed(start, Instant::now()) < patience
            && start.elapsed() < 10 * patience
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The correct state must last for as long as a wrong decision takes to show.
        if self.observer.published() == self.living() {
            tokio::time::sleep(self.scale.ttl + self.scale.interval).await;
        }
        let evaluation = self.evaluate(faults);
        println!("\n{}\n{}: {}", evaluation.row(&self.case), self.case, evaluation.remarks());
        assert_eq!(evaluation.false_prunes, [""; 0], "a living instance was removed");
        assert_eq!(evaluation.leftover, [""; 0], "a dead instance stayed");
        assert_eq!(evaluation.absent, [""; 0], "a living instance is not published");
        assert_eq!(
            self.observer.look(History::gaps),
            0,
            "there are states that the observer did not see"
        );
        evaluation.late
    }

    fn living(&self) -> BTreeSet<String> {
        self.instances.living().into_iter().collect()
    }

    fn evaluate(&self, faults: u32) -> Evaluation {
        let stays = self.observer.look(History::stays);
        let (published, living) = (self.observer.published(), self.living());
        let mut evaluation = Evaluation {
            faults,
            states: self.observer.look(History::states),
            away: self.conditions.away(),
            longest_pause: self.conditions.longest_pause(),
            leftover: published.difference(&living).cloned().collect(),
            absent: living.difference(&published).cloned().collect(),
            ..Evaluation::default()
        };
        for (address, record) in &self.instances.records() {
            let stays = stays.get(address).map(Vec::as_slice).unwrap_or_default();
            evaluation.enter(address, record, stays, &self.conditions, &self.scale);
        }
        evaluation.close();
        evaluation
    }
}
