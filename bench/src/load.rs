//! The loader: instances that register, beat, deregister and fall silent, in a process of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::clock::Moment;
use crate::messages::{Event, Events, Instance, Order};
use crate::system::Registry;

/// The delay before the retry of a failed renewal. The clients of all these systems retry as soon as this.
const RETRY: Duration = Duration::from_millis(250);

/// How an instance ends.
enum End {
    Die,
    Leave,
}

/// Executes the driver's orders, which arrive on stdin, until stdin ends.
///
/// # Errors
/// If an order cannot be read.
pub async fn run<R: Registry>(registry: R, interval: Duration, events: Events) -> Result<()> {
    let (renewals, failures) = Default::default();
    let loader = Arc::new(Loader { registry, interval, events, renewals, failures });
    let mut running: HashMap<Instance, oneshot::Sender<End>> = HashMap::new();
    let mut lines = lines_of_stdin();
    loader.events.send(Event::Ready);
    while let Some(line) = lines.recv().await {
        let mut end = |instance: &Instance, how| {
            if let Some(order) = running.remove(instance) {
                let _ = order.send(how);
            }
        };
        match serde_json::from_str(&line).with_context(|| format!("no order: {line}"))? {
            Order::Join { instances, over } => {
                for instance in instances {
                    let phase = over.mul_f64(rand::rng().random_range(0.0..1.0));
                    running.insert(instance, loader.start(instance, phase));
                }
            }
            Order::Die(instances) => instances.iter().for_each(|it| end(it, End::Die)),
            Order::Leave(instances) => instances.iter().for_each(|it| end(it, End::Leave)),
            Order::Hammer { instances, span } => loader.hammer(instances, span).await,
            Order::Count => {
                let renewals = loader.renewals.load(Ordering::Relaxed);
                let failures = loader.failures.load(Ordering::Relaxed);
                loader.events.send(Event::Counted { renewals, failures });
            }
        }
    }
    Ok(())
}

/// Reads stdin on a thread of its own, because a read may block forever.
fn lines_of_stdin() -> mpsc::UnboundedReceiver<String> {
    let (tell, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::io::Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

struct Loader<R> {
    registry: R,
    interval: Duration,
    events: Events,
    renewals: AtomicU64,
    failures: AtomicU64,
}

impl<R: Registry> Loader<R> {
    /// Makes an instance register after `phase`, and beat until it gets an order.
    fn start(self: &Arc<Self>, instance: Instance, phase: Duration) -> oneshot::Sender<End> {
        let (order, ordered) = oneshot::channel();
        let loader = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(phase).await;
            loader.events.send(Event::Joining { instance, at: Moment::now() });
            loader.live(instance, ordered).await;
        });
        order
    }

    async fn live(&self, instance: Instance, mut ordered: oneshot::Receiver<End>) {
        let (mut membership, mut last_renewal) = self.register(instance).await;
        let mut answered = Moment::now();
        let first = tokio::time::Instant::now() + self.interval;
        let mut ticks = tokio::time::interval_at(first, self.interval);
        // A late beat does not delay later beats. A beat that becomes due before the answer to the previous one is
        // skipped.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = loop {
            tokio::select! {
                biased;
                end = &mut ordered => break end,
                _ = ticks.tick() => {}
            }
            // The renewal is not interrupted: the last renewal of an instance that dies must have been answered, so
            // that it is known which renewal counts. It may have arrived although it failed.
            let turn = self.registry.turn().await;
            last_renewal = Moment::now();
            let answer = timeout(self.interval, self.registry.renew(&mut membership)).await;
            drop(turn);
            answered = Moment::now();
            if let Ok(Ok(())) = answer {
                self.renewals.fetch_add(1, Ordering::Relaxed);
            } else {
                self.failures.fetch_add(1, Ordering::Relaxed);
                ticks.reset_after(RETRY);
            }
        };
        match end {
            Ok(End::Leave) => {
                self.events.send(Event::Leaving { instance, at: Moment::now() });
                let _turn = self.registry.turn().await;
                if let Err(error) = self.registry.leave(membership).await {
                    eprintln!("instance {instance} cannot leave: {error:#}");
                }
            }
            Ok(End::Die) => {
                drop(membership);
                self.events.send(Event::Died { instance, last_renewal, answered });
            }
            Err(_) => {}
        }
    }

    /// Registers, with as many tries as that takes. Returns when the last request was sent, too.
    async fn register(&self, instance: Instance) -> (R::Membership, Moment) {
        loop {
            let turn = self.registry.turn().await;
            let sent = Moment::now();
            let answer = timeout(4 * self.interval, self.registry.join(instance)).await;
            drop(turn);
            match answer {
                Ok(Ok(membership)) => return (membership, sent),
                Ok(Err(error)) => eprintln!("instance {instance} cannot register: {error:#}"),
                Err(_) => eprintln!("instance {instance} cannot register: no answer"),
            }
            self.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews for instances of its own, each as soon as its last renewal was answered.
    async fn hammer(self: &Arc<Self>, instances: std::ops::Range<Instance>, span: Duration) {
        let mut members = Vec::new();
        for instance in instances {
            members.push(self.register(instance).await.0);
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut membership in members {
            let loader = self.clone();
            tasks.spawn(async move {
                let (mut renewals, mut failures) = (0_u64, 0_u64);
                while began.elapsed() < span {
                    match loader.registry.renew(&mut membership).await {
                        Ok(()) => renewals += 1,
                        Err(_) => failures += 1,
                    }
                }
                let _ = loader.registry.leave(membership).await;
                (renewals, failures)
            });
        }
        let (renewals, failures) = tasks
            .join_all()
            .await
            .into_iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        self.events.send(Event::Hammered { renewals, failures, seconds: span.as_secs_f64() });
    }
}
