//! The verify step. An instance is pruned only after a live read of its Lease that was sent after the
//! instance's deadline (L2). A Lease that the watch has lost counts as gone only when a live read says so (L4).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::{StreamExt, future, stream};
use kube::Api;
use opentelemetry::KeyValue;

use crate::controller::{
    api::{ApiServer, CALL_TIMEOUT},
    carriers::proving::GatewayProofs,
    clock::Clock,
    error::ApiError,
    liveness::Liveness,
    probe::proofs::Proofs,
    queue::WorkQueue,
    trace::recording::{Trace, count},
};
use crate::kube_client::{self, list::Collection};
use beatkeeper_core::{
    decide::verdict::Suspect,
    liveness::{index::LiveRead, unproven::Unproven},
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::{failure::Failure, key::Key, monotonic_time::MonotonicTime, pace::Pace},
};

/// Up to this many Leases are read one by one, several at once, whatever the size of their registration.
const ONE_BY_ONE: usize = 24;
/// For more Leases, one list of all Leases of the registration is cheaper if it has at most this many Leases
/// for each suspect: a GET takes about 1 ms, a list of a thousand Leases about 20 ms.
const LISTED_FOR_ONE: usize = 50;
/// More Leases than this are always listed. Single reads of them would not end within the timeout of one call.
const ONE_BY_ONE_MAX: usize = 256;
/// How many reads run at once. Each needs a connection of its own (HTTP/1.1).
const SIDE_BY_SIDE: usize = 16;

/// What was verified about the suspects of a registration, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// When the live reads were sent, by the name of the Lease.
    pub(crate) reads: HashMap<Arc<str>, MonotonicTime>,
    /// When the renewal of the probe was sent that proves the time up to the latest deadline.
    pub(crate) proof: Option<MonotonicTime>,
    /// The Leases that could not be read, and why. Their instances are held.
    pub(crate) unreadable: HashMap<Arc<str>, Failure>,
    /// Why no proof has come, if none has. Then all suspects are held.
    pub(crate) unproven: Option<Unproven>,
    /// Whether gateways, or the election's Lease, have not said in time what suspects need of them. Those suspects are
    /// held.
    pub(crate) unanswered: bool,
}

/// Why a Lease could not be read live.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// No answer arrived in the time for all reads.
    #[error("no answer in time")]
    Late,
    /// The call failed.
    #[error(transparent)]
    Failed(#[from] ApiError),
}

impl Verified {
    /// Whether every suspect was read, and the proof has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.unreadable.is_empty() && self.unproven.is_none() && !self.unanswered
    }
}

/// Verifies suspects.
pub(crate) struct Verifier {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) gateways: GatewayProofs,
    pub(crate) queue: Arc<WorkQueue>,
}

impl Verifier {
    /// Reads the Leases of these suspects, and waits for a proof of the path and for those of gateways at the same time.
    /// `pace` is that of the registration. Client required.
    pub(crate) async fn verify(
        &self,
        registration: &Key,
        pace: Option<Pace>,
        suspects: &[Suspect],
        trace: &Trace,
    ) -> Verified {
        let latest = suspects.iter().filter_map(|suspect| suspect.deadline).max();
        let proof = async {
            match latest {
                Some(deadline) => self.prove(deadline, trace).await.map(Some),
                None => Ok(None),
            }
        };
        let answers = async {
            match pace {
                Some(pace) => self.gateways.prove(registration, pace, suspects).await,
                None => true,
            }
        };
        let reads = self.read_live(registration, suspects, trace);
        let (proof, answered, mut verified) = future::join3(proof, answers, reads).await;
        verified.unanswered = !answered;
        match proof {
            Ok(sent) => verified.proof = sent,
            Err(unproven) => verified.unproven = Some(unproven),
        }
        tracing::trace!("verified");
        verified
    }

    /// Waits for a proof of the time up to this deadline.
    async fn prove(
        &self,
        deadline: MonotonicTime,
        trace: &Trace,
    ) -> Result<MonotonicTime, Unproven> {
        let late = || self.clock.now().since(deadline).as_secs_f64();
        let about = || KeyValue::new("beatkeeper.deadline_passed", late());
        let span = trace.read("await proof", about);
        let proof = self.proofs.prove_up_to(deadline).await;
        span.end(&proof);
        proof
    }

    /// Reads the Leases of these suspects and notes the results in the index. All reads together end within the
    /// timeout of one call, so that a server that lets calls hang does not delay the other instances for longer.
    async fn read_live(&self, registration: &Key, suspects: &[Suspect], trace: &Trace) -> Verified {
        let earliest = suspects.iter().filter_map(|suspect| suspect.deadline).min();
        let past = earliest.map(|deadline| self.clock.now().since(deadline));
        tracing::debug!(suspects = suspects.len(), ?past, "reading Leases live");
        let late = Failure::of(ReadError::Late);
        let unreadable =
            suspects.iter().map(|suspect| (suspect.lease.clone(), late.clone())).collect();
        let mut verified = Verified { unreadable, ..Verified::default() };
        // Leases that are not read in time keep the error from above.
        let reads = self.read_all(registration, &mut verified, trace);
        let _ = kube_client::within(CALL_TIMEOUT, reads).await;
        verified
    }

    async fn read_all(&self, registration: &Key, verified: &mut Verified, trace: &Trace) {
        let Verified { unreadable, reads, .. } = verified;
        if a_list_is_cheaper(unreadable.len(), self.liveness.index().count_of(registration)) {
            let mut found = HashSet::new();
            let sent = self.clock.now();
            let about = || KeyValue::new("beatkeeper.suspects", count(unreadable.len()));
            let span = trace.read("list Leases", about);
            let listed = self.list(registration, &mut found).await;
            span.end(&listed);
            for lease in &found {
                if unreadable.remove(lease).is_some() {
                    reads.insert(lease.clone(), sent);
                }
            }
            if let Err(error) = listed {
                let error = Failure::of(ReadError::Failed(error));
                return unreadable.values_mut().for_each(|why| why.clone_from(&error));
            }
        }
        // After a list, these are the Leases that it did not contain. They may have lost their label.
        let mut left: Vec<Arc<str>> = unreadable.keys().cloned().collect();
        left.sort_unstable();
        let mut answers = stream::iter(left)
            .map(|lease| async move {
                let about = || KeyValue::new("beatkeeper.lease", lease.clone());
                let span = trace.read("read Lease", about);
                let read = self.read(registration, &lease).await;
                span.end(&read);
                (lease, read)
            })
            .buffer_unordered(SIDE_BY_SIDE);
        while let Some((lease, read)) = answers.next().await {
            match read {
                Ok(sent) => {
                    unreadable.remove(&lease);
                    reads.insert(lease, sent);
                }
                Err(error) => {
                    unreadable.insert(lease, Failure::of(ReadError::Failed(error)));
                }
            }
        }
    }

    /// Reads one Lease. resourceVersion stays unset, so that the answer is the newest state and not that of a
    /// cache. Returns when the read was sent.
    async fn read(&self, registration: &Key, lease: &str) -> Result<MonotonicTime, ApiError> {
        let leases =
            Api::<HeartbeatLease>::namespaced(self.api.client.clone(), &registration.namespace);
        let key = Key::new(&registration.namespace, lease);
        let sent = self.clock.now();
        let read = match self.api.read(|| format!("read Lease {key}"), leases.get(lease)).await {
            Ok(lease) => LiveRead::Found(Heartbeat::read(&lease)),
            Err(error) if error.is_absent() => LiveRead::Absent,
            Err(error) => return Err(error),
        };
        let now = self.clock.now();
        tracing::trace!(%key, took = ?now.since(sent), "read live");
        let observed = self.liveness.index().confirm(&key, read, sent, now);
        // This registration decides next in any case. Other registrations are woken if the Lease has moved to or
        // from them.
        self.queue.wake(observed.wake.into_iter().filter(|key| key != registration));
        Ok(sent)
    }

    /// Reads all Leases of a registration, page by page. Only the entries in the index and the names of the found
    /// Leases stay in memory. All pages show the state at the time of the first page.
    async fn list(
        &self,
        registration: &Key,
        found: &mut HashSet<Arc<str>>,
    ) -> Result<(), ApiError> {
        let namespace = &registration.namespace;
        let ours = Collection::of::<HeartbeatLease>(&self.api.client, Some(namespace))
            .labelled(&format!("{REGISTRATION_LABEL}={}", registration.name));
        let sent = self.clock.now();
        let mut moved = Vec::new();
        let read = ours.each::<HeartbeatLease>(|lease| {
            // An unreadable Lease is read again by a single read, which returns the reason.
            let Ok(beat) = lease.as_ref().map(Heartbeat::read) else { return };
            let name: Arc<str> = beat.lease.as_str().into();
            let key = Key::new(namespace, &*name);
            let now = self.clock.now();
            moved
                .extend(self.liveness.index().confirm(&key, LiveRead::Found(beat), sent, now).wake);
            found.insert(name);
        });
        let doing = || format!("list the Leases of {registration}");
        let read = self.api.read(doing, read).await;
        self.queue.wake(moved.into_iter().filter(|key| key != registration));
        read
    }
}

/// Whether one list of all Leases of a registration is cheaper than this many single reads.
fn a_list_is_cheaper(suspects: usize, known: usize) -> bool {
    suspects > ONE_BY_ONE && (suspects > ONE_BY_ONE_MAX || suspects * LISTED_FOR_ONE >= known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_suspects_are_read_by_one_list_and_a_few_of_thousands_are_not() {
        assert!(!a_list_is_cheaper(24, 24));
        assert!(a_list_is_cheaper(25, 100));
        assert!(a_list_is_cheaper(25, 1_250) && !a_list_is_cheaper(25, 1_251));
        assert!(!a_list_is_cheaper(100, 10_000) && a_list_is_cheaper(200, 10_000));
        assert!(!a_list_is_cheaper(256, 100_000) && a_list_is_cheaper(257, 100_000));
    }
}
