//! The loader: instances that register, beat, deregister and fall silent, in a process of their own.

use std::collections::HashMap;
use std::io::stdin;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::clock::{Moment, now};
use crate::messages::{Act, Event, Events, Instance, Order};
use crate::system::{Registry, Setup};

/// The delay before the retry of a failed renewal. The clients of all these systems retry as soon as this.
const RETRY: Duration = Duration::from_millis(250);

/// Executes the driver's orders, which arrive through a pipe on stdin, until it ends.
///
/// # Errors
/// If the system cannot be reached, or an order cannot be read.
pub async fn run<R: Registry>(setup: &Setup, address: &str, events: Events) -> Result<()> {
    let registry = R::connect(setup, address).await?;
    let (interval, renewals) = (setup.interval, AtomicU64::new(0));
    let loader = Arc::new(Loader { registry, interval, events, renewals });
    let mut running: HashMap<Instance, oneshot::Sender<Act>> = HashMap::new();
    // A plain read of stdin blocks a thread, which would keep this process from ending after an error.
    let orders = pipe::Receiver::from_owned_fd(stdin().as_fd().try_clone_to_owned()?)?;
    let mut orders = BufReader::new(orders).lines();
    loader.events.send(Event::Ready);
    while let Some(line) = orders.next_line().await? {
        match serde_json::from_str(&line).with_context(|| format!("no order: {line}"))? {
            Order::Act { act: Act::Return, instances, over } => {
                for instance in instances {
                    let phase = over.mul_f64(rand::rng().random_range(0.0..1.0));
                    running.insert(instance, loader.start(instance, phase));
                }
            }
            Order::Act { act, instances, .. } => {
                for ending in instances.iter().filter_map(|instance| running.remove(instance)) {
                    let _ = ending.send(act);
                }
            }
            Order::Hammer { instances, span } => loader.hammer(instances, span).await,
            Order::Count => {
                let renewals = loader.renewals.load(Ordering::Relaxed);
                loader.events.send(Event::Counted { renewals, failures: 0 });
            }
        }
    }
    Ok(())
}

struct Loader<R> {
    registry: R,
    interval: Duration,
    events: Events,
    /// How many renewals were answered.
    renewals: AtomicU64,
}

impl<R: Registry> Loader<R> {
    /// Makes an instance register after `phase`, and beat until it gets an order.
    fn start(self: &Arc<Self>, instance: Instance, phase: Duration) -> oneshot::Sender<Act> {
        let (order, ordered) = oneshot::channel();
        let loader = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(phase).await;
            loader.acts_now(Act::Return, instance);
            loader.live(instance, ordered).await;
        });
        order
    }

    fn acts_now(&self, act: Act, instance: Instance) {
        let sent = now();
        self.events.send(Event::Acted { act, instance, sent, answered: sent });
    }

    async fn live(&self, instance: Instance, mut ordered: oneshot::Receiver<Act>) {
        let (mut membership, mut sent) = self.register(instance).await;
        let mut answered = now();
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
            sent = now();
            let answer = timeout(self.interval, self.registry.renew(&mut membership)).await;
            drop(turn);
            answered = now();
            if let Ok(Ok(())) = answer {
                self.renewals.fetch_add(1, Ordering::Relaxed);
            } else {
                ticks.reset_after(RETRY);
            }
        };
        match end {
            Ok(Act::Leave) => {
                self.acts_now(Act::Leave, instance);
                let _turn = self.registry.turn().await;
                if let Err(error) = self.registry.leave(membership).await {
                    eprintln!("instance {instance} cannot leave: {error:#}");
                }
            }
            Ok(act) => {
                drop(membership);
                self.events.send(Event::Acted { act, instance, sent, answered });
            }
            // The loader ends.
            Err(_) => {}
        }
    }

    /// Registers, with as many tries as that takes. Returns when the last request was sent, too.
    async fn register(&self, instance: Instance) -> (R::Membership, Moment) {
        loop {
            let turn = self.registry.turn().await;
            let sent = now();
            let answer = timeout(4 * self.interval, self.registry.join(instance)).await;
            drop(turn);
            match answer {
                Ok(Ok(membership)) => return (membership, sent),
                Ok(Err(error)) => eprintln!("instance {instance} cannot register: {error:#}"),
                Err(_) => eprintln!("instance {instance} cannot register: no answer"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews for instances of its own, each as soon as its last renewal was answered.
    async fn hammer(self: &Arc<Self>, instances: Range<Instance>, span: Duration) {
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
        let counts: (Vec<u64>, Vec<u64>) = tasks.join_all().await.into_iter().unzip();
        let (renewals, failures) = (counts.0.iter().sum(), counts.1.iter().sum());
        self.events.send(Event::Counted { renewals, failures });
    }
}
