//! The probes of other replicas and of earlier processes, and the silence logs in them (L5).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
}

impl OtherProbes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Other>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all of them. The watch shows the existing ones again.
    pub(crate) fn forget_all(&self) {
        self.lock().clear();
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
            let other = Other { uid: token.uid.clone(), version: *version, seen: now, log };
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
