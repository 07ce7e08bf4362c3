//! The probe (L3): a Lease of this replica, which it renews in the same way as workloads renew theirs. A
//! renewal counts when the heartbeat watch shows it.
//!
//! The registration with the least slack determines the pace of the renewals. In addition, the probe is renewed
//! shortly before each deadline, so that no decision has to wait for the proof: no instance is pruned before
//! the watch shows a renewal that proves the time up to the instance's deadline.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::api::{DeleteParams, Preconditions};
use tokio::sync::{Notify, watch};

use crate::controller::{
    context::{CALL_TIMEOUT, Context, call_write},
    error::ApiError,
};
use crate::kube_client::list::Collection;
use beatkeeper_core::{
    liveness::{
        probe_tracker::{self, Proof},
        silence_log::SilenceLog,
    },
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::SHORTEST_GAP, version::Version},
};

use super::renewal::{MEMORY_ANNOTATION, PROBE_LABEL, Renewal, our_lease};

/// The pause after a failed renewal.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// While probes are known to fail, a decision waits at most this long for a proof.
const PATIENCE_IN_DOUBT: Duration = Duration::from_millis(250);
/// The probe of a replica that is gone is deleted after this time.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);
/// The memory is written at most this often, together with a renewal.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

/// The probe of this replica in one scope.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Its Lease.
    key: Key,
    /// A task waits for a renewal.
    wanted: Notify,
    /// The next renewal may be due sooner than it was.
    sooner: Notify,
    /// The results of the latest renewals.
    outcome: watch::Sender<Outcome>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// When the latest proven renewal was sent.
    proof: Option<MonotonicTime>,
    /// How many renewals failed.
    failures: u64,
}

/// The probes of other replicas, including those of ended processes.
#[derive(Debug, Default)]
pub(crate) struct Others(HashMap<String, Other>);

impl Others {
    /// Forgets all of them. The watch shows the existing ones again.
    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }

    /// Forgets a probe if it still has this version. Needed since a watch that begins anew shows no deletion.
    fn forget(&mut self, name: &str, version: Version) {
        if self.0.get(name).is_some_and(|other| other.version == version) {
            self.0.remove(name);
        }
    }
}

#[derive(Debug)]
struct Other {
    uid: Arc<str>,
    version: Version,
    seen: MonotonicTime,
    memory: Option<SilenceLog>,
}

impl Probe {
    pub(crate) fn new(namespace: &str, identity: &str) -> Self {
        Self {
            key: Key::new(namespace, format!("beatkeeper-probe-{identity}")),
            wanted: Notify::new(),
            sooner: Notify::new(),
            outcome: watch::Sender::default(),
        }
    }

    /// Discards the proofs, since they belong to a history of the store that does not continue.
    pub(crate) fn begin_anew(&self) {
        self.outcome.send_modify(|outcome| {
            outcome.proof = None;
            outcome.failures += 1;
        });
        self.hurry();
    }

    /// Requests a renewal at once.
    pub(crate) fn hurry(&self) {
        self.wanted.notify_one();
    }

    /// Notes the next deadline in this registration, so that a renewal is proven by then.
    pub(crate) fn await_deadline(
        &self,
        registration: &Key,
        deadline: Option<MonotonicTime>,
        context: &Context,
    ) {
        context.path().await_deadline(registration, deadline);
        if deadline.is_some() {
            self.sooner.notify_one();
        }
    }

    /// Waits for a proof of the time up to `deadline`, which has passed. A renewal that was sent ahead of the
    /// deadline is not repeated while it may still suffice.
    ///
    /// # Errors
    /// Why there is no proof. Then no instance may be pruned.
    pub(crate) async fn prove_up_to(
        &self,
        deadline: MonotonicTime,
        context: &Context,
    ) -> Result<(), String> {
        let mut outcome = self.outcome.subscribe();
        let failures = outcome.borrow().failures;
        let reached = |outcome: &Outcome| {
            outcome
                .proof
                .is_some_and(|sent| probe_tracker::reaches(sent, deadline, context.clock.now()))
        };
        let now = context.clock.now();
        let under_way = context.path().is_under_way_for(deadline, now);
        if under_way {
            let answered = outcome.wait_for(|now| reached(now) || now.failures != failures);
            // The result is checked below.
            let _ = tokio::time::timeout(SHORTEST_GAP, answered).await;
        }
        if reached(&outcome.borrow()) {
            return Ok(());
        }
        self.prove(deadline, context).await
    }

    /// Waits for the proof of a renewal that was sent at `after` or later.
    ///
    /// # Errors
    /// Why there is no proof. Then no instance may be pruned.
    async fn prove(&self, after: MonotonicTime, context: &Context) -> Result<(), String> {
        let mut outcome = self.outcome.subscribe();
        let failures = outcome.borrow().failures;
        let proven = |outcome: &Outcome| outcome.proof.is_some_and(|sent| sent >= after);
        if proven(&outcome.borrow()) {
            return Ok(());
        }
        let patience = match context.path().failure() {
            Some(_) => PATIENCE_IN_DOUBT,
            None => CALL_TIMEOUT,
        };
        self.hurry();
        let answered = outcome.wait_for(|now| proven(now) || now.failures != failures);
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(now)) if proven(&now) => return Ok(()),
            Ok(_) => {}
            Err(_) => {
                let mut path = context.path();
                if path.failure().is_none() {
                    path.failed(format!(
                        "Lease {} was renewed, but the watch of Leases does not bring it back",
                        self.key
                    ));
                }
            }
        }
        let why = context.path().failure().map(str::to_owned);
        Err(why.unwrap_or_else(|| "it takes too long".to_owned()))
    }
}

/// Waits for the proof of a renewal that was sent at `after` or later, without a time limit.
pub(crate) async fn prove_until_it_succeeds(after: MonotonicTime, context: &Context) {
    let mut told = false;
    while let Err(why) = context.probe.prove(after, context).await {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%why, "nothing is published before the probe has come back");
        }
        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
    }
}

/// Renews the probe for ever. Must be started after the first list of the Leases is complete.
pub(crate) async fn run(context: Arc<Context>) {
    let probe = &context.probe;
    let mut memory_written: Option<MonotonicTime> = None;
    loop {
        let pause = {
            let now = context.clock.now();
            context.path().next(now).since(now)
        };
        tokio::select! {
            biased;
            // This branch is first, so that a stored wake-up does not cause another renewal after the one that
            // is due.
            () = probe.wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = probe.sooner.notified() => continue,
        }
        let now = context.clock.now();
        if context.path().is_paused(now) {
            continue;
        }
        let due = memory_written.is_none_or(|written| now.since(written) >= MEMORY_PERIOD);
        let renewal = Renewal::send(due, now, &context);
        let with_memory = renewal.memory.is_some();
        match renewal.carry_out(&probe.key, &context).await {
            Ok(()) if with_memory => memory_written = Some(now),
            Ok(()) => {}
            Err(error) => {
                tell(&error, &context);
                context.path().failed(error.to_string());
                probe.outcome.send_modify(|outcome| outcome.failures += 1);
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Logs the first failure in a row as a warning, and the next ones for debugging.
fn tell(error: &ApiError, context: &Context) {
    if context.path().failure().is_none() {
        tracing::warn!(%error, "the probe cannot be renewed: no instance is pruned until it can");
    } else {
        tracing::debug!(%error, "the probe still cannot be renewed");
    }
}

/// Takes in a Lease from the heartbeat watch if it is a probe. Returns whether it is one. No other code
/// processes probes.
pub(crate) fn take_in(
    lease: &HeartbeatLease,
    beat: &Heartbeat,
    now: MonotonicTime,
    context: &Context,
) -> bool {
    if beat.registration.as_deref() != Some(PROBE_LABEL) {
        return false;
    }
    let key = Key::of(&lease.metadata);
    let probe = &context.probe;
    if key == probe.key {
        let proof = our_lease(beat).and_then(|lease| {
            let mut path = context.path();
            let doubted = path.failure().is_some();
            let proof = path.shown(lease, now);
            if proof.is_some() && doubted {
                tracing::info!("the probe comes back again");
            }
            proof
        });
        if let Some(Proof { sent, ends_gap }) = proof {
            tracing::trace!(took = ?now.since(sent), "the probe is back");
            context.metrics.path_proven(now);
            if ends_gap {
                context.metrics.path_gap();
            }
            probe.outcome.send_modify(|outcome| outcome.proof = Some(sent));
            let waiting = std::mem::take(&mut *context.unproven());
            context.wake(waiting);
        }
    // Other namespaces are ignored: in the namespace of a registration, any workload might write a probe.
    } else if key.namespace == probe.key.namespace {
        let annotations = lease.metadata.annotations.as_ref();
        let Heartbeat { token, version, .. } = beat;
        let memory = annotations.and_then(|all| {
            SilenceLog::read_from(&token.uid, *version, all.get(MEMORY_ANNOTATION)?).ok()
        });
        let other = Other { uid: token.uid.clone(), version: *version, seen: now, memory };
        context.other_probes().0.insert(key.name, other);
    }
    true
}

/// Takes in the deletion of a probe.
pub(crate) fn take_out(lease: &Key, context: &Context) {
    if *lease == context.probe.key {
        context.path().rollback_detector().deleted();
    } else if lease.namespace == context.probe.key.namespace {
        context.other_probes().0.remove(&lease.name);
    }
}

/// Restores the memory of the last process that ran before this one. Must be called after the first list is
/// complete and before the first renewal.
pub(crate) fn recall(context: &Context) {
    let newest = {
        let others = context.other_probes();
        let newest = others.0.values().max_by_key(|other| other.version);
        newest.and_then(|other| other.memory.clone())
    };
    if let Some(memory) = newest {
        context.index().resume_silence(&memory);
        context.path().resume(memory);
    }
}

/// Deletes the probes of replicas that are gone, each on the condition that it is unchanged since it was seen.
pub(crate) async fn sweep(context: &Context) -> Result<(), ApiError> {
    let now = context.clock.now();
    let abandoned: Vec<(String, Arc<str>, Version)> = {
        let others = context.other_probes();
        let old = others.0.iter().filter(|(_, other)| now.since(other.seen) >= ABANDONED_AFTER);
        old.map(|(name, other)| (name.clone(), other.uid.clone(), other.version)).collect()
    };
    let namespace = &context.probe.key.namespace;
    let leases = Collection::of::<HeartbeatLease>(&context.client, Some(namespace));
    for (name, uid, version) in abandoned {
        let only_this = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_string()),
            resource_version: Some(version.0.to_string()),
        });
        let doing = || format!("delete the abandoned probe Lease {namespace}/{name}");
        match call_write(context, doing, leases.delete(&name, &only_this)).await {
            Err(error) if !error.is_conflict() => return Err(error),
            // If the Lease has changed or was made anew, the watch shows it.
            _ => context.other_probes().forget(&name, version),
        }
    }
    Ok(())
}
