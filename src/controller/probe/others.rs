//! The probes of other replicas and of earlier processes, and the silence logs in them (L5).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beatkeeper_api::gateway::CARRIERS_ANNOTATION;
use kube::api::{DeleteParams, Preconditions};

use super::{
    lease::{PROBE_LABEL, SILENCE_LOG_ANNOTATION, our_lease},
    proofs::Proofs,
};
use crate::{
    controller::{api::ApiServer, clock::Clock, error::ApiError, liveness::Liveness},
    kube_client::list::Collection,
};
use beatkeeper_core::{
    liveness::silence_log::SilenceLog,
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// The probe of a replica that is gone is deleted after this time.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// A replica that has not renewed its probe for this time does not lead soon. One that does not know carriers then no
/// longer keeps the leader from acknowledging beats (G12). After an upgrade, gateways accept the first beats this late.
const REPLACED_AFTER: Duration = Duration::from_secs(60);

/// The probes that the heartbeat watch shows.
pub(crate) struct Probes {
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) others: Arc<OtherProbes>,
}

/// The probes of other replicas, including those of ended processes.
#[derive(Debug, Default)]
pub(crate) struct OtherProbes(Mutex<HashMap<String, Other>>);

#[derive(Debug)]
struct Other {
    uid: Arc<str>,
    version: Version,
    seen: MonotonicTime,
    log: Option<SilenceLog>,
    /// Whether the replica knows carriers.
    knows_carriers: bool,
}

impl OtherProbes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Other>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all of them. The watch shows the existing ones again.
    pub(crate) fn forget_all(&self) {
        self.lock().clear();
    }

    /// Whether each other replica that may run knows carriers (G12).
    pub(crate) fn all_know_carriers(&self, now: MonotonicTime) -> bool {
        let may_run = |other: &&Other| now.since(other.seen) < REPLACED_AFTER;
        self.lock().values().filter(may_run).all(|other| other.knows_carriers)
    }

    /// Forgets a probe if it still has this version. Needed since a watch that starts again shows no deletion.
    fn forget(&self, name: &str, version: Version) {
        let mut others = self.lock();
        if others.get(name).is_some_and(|other| other.version == version) {
            others.remove(name);
        }
    }
}

impl Probes {
    /// Takes in a Lease from the heartbeat watch if it is a probe. Returns whether it is one. No other code
    /// processes probes.
    pub(crate) fn put(&self, lease: &HeartbeatLease, beat: &Heartbeat, now: MonotonicTime) -> bool {
        if beat.registration.as_deref() != Some(PROBE_LABEL) {
            return false;
        }
        let (key, own) = (Key::of(&lease.metadata), &self.proofs.key);
        if key == *own {
            self.proofs.shown(our_lease(beat), now);
        // Other namespaces are ignored: in the namespace of a registration, any workload might write a probe.
        } else if key.namespace == own.namespace {
            let annotations = lease.metadata.annotations.as_ref();
            let Heartbeat { token, version, .. } = beat;
            let log = annotations.and_then(|all| {
                SilenceLog::read_from(&token.uid, *version, all.get(SILENCE_LOG_ANNOTATION)?).ok()
            });
            let knows_carriers =
                annotations.is_some_and(|all| all.contains_key(CARRIERS_ANNOTATION));
            let (uid, version) = (token.uid.clone(), *version);
            let other = Other { uid, version, seen: now, log, knows_carriers };
            self.others.lock().insert(key.name, other);
        }
        true
    }

    /// Takes in the deletion of a probe.
    pub(crate) fn remove(&self, lease: &Key) {
        let own = &self.proofs.key;
        if lease == own {
            self.liveness.path().rollback_detector().deleted();
        } else if lease.namespace == own.namespace {
            self.others.lock().remove(&lease.name);
        }
    }

    /// Restores the silence log of the last process that ran before this one. Must be called after the first list is
    /// complete and before the first renewal.
    pub(crate) fn resume(&self) {
        let newest = {
            let others = self.others.lock();
            let newest = others.values().max_by_key(|other| other.version);
            newest.and_then(|other| other.log.clone())
        };
        if let Some(log) = newest {
            self.liveness.index().resume_silence(&log);
            self.liveness.path().resume(log);
        }
    }

    /// Deletes the probes of replicas that are gone, each on the condition that it is unchanged since it was
    /// seen.
    ///
    /// # Errors
    /// [`ApiError`] of a deletion that failed.
    pub(crate) async fn delete_abandoned(&self, api: &ApiServer) -> Result<(), ApiError> {
        let now = self.clock.now();
        let abandoned: Vec<(String, Arc<str>, Version)> = {
            let others = self.others.lock();
            let old = others.iter().filter(|(_, other)| now.since(other.seen) >= ABANDONED_AFTER);
            old.map(|(name, other)| (name.clone(), other.uid.clone(), other.version)).collect()
        };
        let namespace = &self.proofs.key.namespace;
        let leases = Collection::of::<HeartbeatLease>(&api.client, Some(namespace));
        for (name, uid, version) in abandoned {
            let only_this = DeleteParams::default().preconditions(Preconditions {
                uid: Some(uid.to_string()),
                resource_version: Some(version.0.to_string()),
            });
            let doing = || format!("delete the abandoned probe Lease {namespace}/{name}");
            match api.write(doing, leases.delete(&name, &only_this)).await {
                Err(error) if !error.is_conflict() => return Err(error),
                // If the Lease has changed or was created again, the watch shows it.
                _ => self.others.forget(&name, version),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    #[test]
    fn a_replica_that_does_not_know_carriers_counts_until_it_has_been_silent_for_a_minute() {
        let others = OtherProbes::default();
        assert!(others.all_know_carriers(at(0)), "there is no other one");
        let put = |name: &str, knows_carriers| {
            let (uid, version, log) = ("uid".into(), Version(1), None);
            let other = Other { uid, version, seen: at(100), log, knows_carriers };
            others.lock().insert(name.to_owned(), other);
        };
        put("new", true);
        assert!(others.all_know_carriers(at(100)));
        put("old", false);
        assert!(!others.all_know_carriers(at(159)));
        assert!(others.all_know_carriers(at(160)));
    }
}
