//! The proofs that beats can be written and are seen (L3). A decision waits here for the proof that it needs.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::controller::{
    api::CALL_TIMEOUT, clock::Clock, liveness::Liveness, metrics::process::Metrics,
    queue::WorkQueue,
};
use beatkeeper_core::{
    liveness::{
        probe_tracker::{self, Proof},
        rollback::OurLease,
        unproven::Unproven,
    },
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::{Pace, SHORTEST_GAP},
    },
};

/// While probes are known to fail, a decision waits at most this long for a proof.
const PATIENCE_IN_DOUBT: Duration = Duration::from_millis(250);
/// The pause after a failed renewal.
pub(crate) const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

/// The proofs of one replica in one scope.
pub(crate) struct Proofs {
    /// The Lease of the probe.
    pub(crate) key: Key,
    clock: Clock,
    liveness: Arc<Liveness>,
    queue: Arc<WorkQueue>,
    metrics: Arc<Metrics>,
    /// A task waits for a renewal.
    wanted: Notify,
    /// The next renewal may be due sooner than it was.
    sooner: Notify,
    /// The results of the latest renewals.
    renewals: watch::Sender<Renewals>,
    /// The registrations with a decision that waits for a proof.
    unproven: Mutex<HashSet<Key>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Renewals {
    /// When the latest proven renewal was sent.
    proven: Option<MonotonicTime>,
    /// How many renewals failed.
    failures: u64,
}

/// What is to be done about the probe.
pub(crate) enum Wake {
    /// Renew it now.
    Renew,
    /// Compute again when the next renewal is due.
    Reschedule,
}

impl Proofs {
    pub(crate) fn new(
        namespace: &str,
        identity: &str,
        clock: Clock,
        liveness: Arc<Liveness>,
        queue: Arc<WorkQueue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            key: Key::new(namespace, format!("beatkeeper-probe-{identity}")),
            clock,
            liveness,
            queue,
            metrics,
            wanted: Notify::new(),
            sooner: Notify::new(),
            renewals: watch::Sender::default(),
            unproven: Mutex::default(),
        }
    }

    /// Discards the proofs, since they belong to a history of the store that does not continue.
    pub(crate) fn discard(&self) {
        self.renewals.send_modify(|renewals| {
            renewals.proven = None;
            renewals.failures += 1;
        });
        self.hurry();
    }

    /// Requests a renewal at once.
    pub(crate) fn hurry(&self) {
        self.wanted.notify_one();
    }

    /// Makes the probe renew at this pace.
    pub(crate) fn set_pace(&self, tightest: Option<Pace>) {
        let now = self.clock.now();
        let sooner = {
            let mut path = self.liveness.path();
            let before = path.next(now);
            path.set_pace(tightest);
            path.next(now) < before
        };
        if sooner {
            self.hurry();
        }
    }

    /// Notes the next deadline in this registration, so that a renewal is proven by then.
    pub(crate) fn await_deadline(&self, registration: &Key, deadline: Option<MonotonicTime>) {
        self.liveness.path().await_deadline(registration, deadline);
        if deadline.is_some() {
            self.sooner.notify_one();
        }
    }

    /// Waits until the next renewal is due or wanted.
    pub(crate) async fn due(&self) -> Wake {
        let pause = {
            let now = self.clock.now();
            self.liveness.path().next(now).since(now)
        };
        tokio::select! {
            biased;
            // This branch is first, so that a stored wake-up does not cause another renewal after the one that
            // is due.
            () = self.wanted.notified() => Wake::Renew,
            () = tokio::time::sleep(pause) => Wake::Renew,
            () = self.sooner.notified() => Wake::Reschedule,
        }
    }

    /// Notes a failed renewal.
    pub(crate) fn failed(&self) {
        self.renewals.send_modify(|renewals| renewals.failures += 1);
    }

    /// Takes in what the watch shows of the probe. Wakes the registrations that wait for a proof.
    pub(crate) fn shown(&self, lease: Option<OurLease>, now: MonotonicTime) {
        let proof = lease.and_then(|lease| {
            let mut path = self.liveness.path();
            let doubted = path.failure().is_some();
            let proof = path.shown(lease, now);
            if proof.is_some() && doubted {
                tracing::info!("the probe comes back again");
            }
            proof
        });
        if let Some(Proof { sent, ends_gap }) = proof {
            tracing::trace!(took = ?now.since(sent), "the probe is back");
            self.metrics.path_proven(now);
            if ends_gap {
                self.metrics.path_gap();
            }
            self.renewals.send_modify(|renewals| renewals.proven = Some(sent));
            let waiting = {
                let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *unproven)
            };
            self.queue.wake(waiting);
        }
    }

    /// Wakes this registration with the next proof.
    pub(crate) fn wake_when_proven(&self, registration: &Key) {
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        unproven.insert(registration.clone());
    }

    /// Waits for a proof of the time up to `deadline`, which has passed. Returns when the renewal that proves it
    /// was sent. A renewal that was sent ahead of the deadline is not repeated while it may still suffice.
    ///
    /// # Errors
    /// [`Unproven`].
    pub(crate) async fn prove_up_to(
        &self,
        deadline: MonotonicTime,
    ) -> Result<MonotonicTime, Unproven> {
        let mut renewals = self.renewals.subscribe();
        let failures = renewals.borrow().failures;
        let reaching = |renewals: &Renewals| {
            renewals.proven.filter(|sent| probe_tracker::reaches(*sent, deadline, self.clock.now()))
        };
        let now = self.clock.now();
        let under_way = self.liveness.path().is_under_way_for(deadline, now);
        if under_way {
            let answered =
                renewals.wait_for(|now| reaching(now).is_some() || now.failures != failures);
            // The result is checked below.
            let _ = tokio::time::timeout(SHORTEST_GAP, answered).await;
        }
        let reached = reaching(&renewals.borrow());
        match reached {
            Some(sent) => Ok(sent),
            None => self.prove(deadline).await,
        }
    }

    /// Waits for the proof of a renewal that was sent at `after` or later. Returns when it was sent.
    ///
    /// # Errors
    /// [`Unproven`].
    async fn prove(&self, after: MonotonicTime) -> Result<MonotonicTime, Unproven> {
        let mut renewals = self.renewals.subscribe();
        let failures = renewals.borrow().failures;
        let proven = |renewals: &Renewals| renewals.proven.filter(|sent| *sent >= after);
        if let Some(sent) = proven(&renewals.borrow()) {
            return Ok(sent);
        }
        let patience = match self.liveness.path().failure() {
            Some(_) => PATIENCE_IN_DOUBT,
            None => CALL_TIMEOUT,
        };
        self.hurry();
        let answered = renewals.wait_for(|now| proven(now).is_some() || now.failures != failures);
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(now)) => {
                if let Some(sent) = proven(&now) {
                    return Ok(sent);
                }
            }
            Ok(Err(_)) => {}
            Err(_) => {
                let mut path = self.liveness.path();
                if path.failure().is_none() {
                    path.failed(Unproven::NotShown(self.key.clone()));
                }
            }
        }
        Err(self.liveness.path().failure().cloned().unwrap_or(Unproven::TooSlow))
    }

    /// Waits for the proof of a renewal that was sent at `after` or later, without a time limit.
    pub(crate) async fn prove_until_it_succeeds(&self, after: MonotonicTime) {
        let mut logged = false;
        while let Err(why) = self.prove(after).await {
            if !std::mem::replace(&mut logged, true) {
                tracing::warn!(%why, "nothing is published before the probe has come back");
            }
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}
