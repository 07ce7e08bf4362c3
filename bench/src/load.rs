//! The loader: instances that register, beat, deregister and fall silent, in a process of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};

use crate::clock::Moment;
use crate::systems::Registry;
use crate::words::{Event, Instance, Order, Tell};

/// The delay before the retry of a failed renewal. The clients of all these systems retry as soon as this.
const RETRY: Duration = Duration::from_millis(250);

/// How an instance ends.
enum End {
    Die,
    Leave,
}

#[derive(Default)]
struct Counts {
    renewals: AtomicU64,
    failures: AtomicU64,
}

/// Executes the driver's orders, which arrive on stdin, until stdin ends.
///
/// # Errors
/// If an order cannot be read.
pub async fn run<R: Registry>(registry: R, interval: Duration, tell: Tell) -> Result<()> {
    let loader = Loader { registry: Arc::new(registry), interval, tell, counts: Arc::default() };
    let mut hearts: HashMap<Instance, oneshot::Sender<End>> = HashMap::new();
    let mut lines = lines_of_stdin();
    loader.tell.tell(Event::Ready);
    while let Some(line) = lines.recv().await {
        match serde_json::from_str(&line).with_context(|| format!("no order: {line}"))? {
            Order::Join { instances, over } => {
                for instance in instances {
                    let phase = over.mul_f64(rand::rng().random_range(0.0..1.0));
                    hearts.insert(instance, loader.start(instance, phase));
                }
            }
            Order::Die(instances) => end(&mut hearts, instances, || End::Die),
            Order::Leave(instances) => end(&mut hearts, instances, || End::Leave),
            Order::Hammer { instances, span } => loader.hammer(instances, span).await,
            Order::Count => {
                let renewals = loader.counts.renewals.load(Ordering::Relaxed);
                let failures = loader.counts.failures.load(Ordering::Relaxed);
                loader.tell.tell(Event::Counted { renewals, failures });
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

fn end(
    hearts: &mut HashMap<Instance, oneshot::Sender<End>>,
    instances: Vec<Instance>,
    how: impl Fn() -> End,
) {
    for instance in instances {
        if let Some(heart) = hearts.remove(&instance) {
            let _ = heart.send(how());
        }
    }
}

struct Loader<R> {
    registry: Arc<R>,
    interval: Duration,
    tell: Tell,
    counts: Arc<Counts>,
}

impl<R: Registry> Loader<R> {
    /// Makes an instance register after `phase`, and beat from then on.
    fn start(&self, instance: Instance, phase: Duration) -> oneshot::Sender<End> {
        let (order, mut ordered) = oneshot::channel();
        let (registry, interval) = (self.registry.clone(), self.interval);
        let (tell, counts) = (self.tell.clone(), self.counts.clone());
        tokio::spawn(async move {
            tokio::time::sleep(phase).await;
            let mut last_renewal = Moment::now();
            tell.tell(Event::Joining { instance, at: last_renewal });
            let mut membership = loop {
                let turn = registry.turn().await;
                last_renewal = Moment::now();
                let answer = timeout(4 * interval, registry.join(instance)).await;
                drop(turn);
                match answer {
                    Ok(Ok(membership)) => break membership,
                    Ok(Err(error)) => eprintln!("instance {instance} cannot register: {error:#}"),
                    Err(_) => eprintln!("instance {instance} cannot register: no answer"),
                }
                counts.failures.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RETRY).await;
            };
            let mut answered = Moment::now();
            let mut ticks =
                tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
            // A late beat does not delay later beats. A beat that becomes due before the answer to the previous one
            // is skipped.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let end = loop {
                tokio::select! {
                    biased;
                    end = &mut ordered => break end,
                    _ = ticks.tick() => {}
                }
                // The renewal is not interrupted: the last renewal of an instance that dies must have been
                // answered, so that it is known which renewal counts.
                let turn = registry.turn().await;
                let sent = Moment::now();
                let answer = timeout(interval, registry.renew(&mut membership)).await;
                drop(turn);
                answered = Moment::now();
                match answer {
                    Ok(Ok(())) => {
                        last_renewal = sent;
                        counts.renewals.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Err(_)) | Err(_) => {
                        counts.failures.fetch_add(1, Ordering::Relaxed);
                        // The renewal may have arrived although it failed.
                        last_renewal = sent;
                        ticks.reset_after(RETRY);
                    }
                }
            };
            match end {
                Ok(End::Leave) => {
                    tell.tell(Event::Leaving { instance, at: Moment::now() });
                    let _turn = registry.turn().await;
                    if let Err(error) = registry.leave(membership).await {
                        eprintln!("instance {instance} cannot leave: {error:#}");
                    }
                }
                Ok(End::Die) => {
                    drop(membership);
                    tell.tell(Event::Died { instance, last_renewal, answered });
                }
                Err(_) => {}
            }
        });
        order
    }

    /// Renews for instances of its own, each as soon as its last renewal was answered.
    async fn hammer(&self, instances: std::ops::Range<Instance>, span: Duration) {
        let mut members = Vec::new();
        for instance in instances {
            match self.registry.join(instance).await {
                Ok(membership) => members.push(membership),
                Err(error) => eprintln!("instance {instance} cannot register: {error:#}"),
            }
        }
        let began = Instant::now();
        let hearts = members.into_iter().map(|mut membership| {
            let registry = self.registry.clone();
            tokio::spawn(async move {
                let (mut renewals, mut failures) = (0_u64, 0_u64);
                while began.elapsed() < span {
                    match registry.renew(&mut membership).await {
                        Ok(()) => renewals += 1,
                        Err(_) => failures += 1,
                    }
                }
                let _ = registry.leave(membership).await;
                (renewals, failures)
            })
        });
        let (mut renewals, mut failures) = (0, 0);
        for heart in hearts.collect::<Vec<_>>() {
            if let Ok((answered, not)) = heart.await {
                renewals += answered;
                failures += not;
            }
        }
        self.tell.tell(Event::Hammered { renewals, failures, seconds: span.as_secs_f64() });
    }
}
