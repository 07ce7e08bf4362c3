//! What happens when a registration appears, changes or goes.

use std::{collections::BTreeSet, sync::Arc};

use beatkeeper_api::{ServiceRegistration, duration};

use crate::controller::{
    cluster::Cluster,
    liveness::Liveness,
    metrics::process::Metrics,
    probe::proofs::Proofs,
    queue::WorkQueue,
    report::{gates::ReadinessGates, pending::PendingReports},
    states::States,
};
use beatkeeper_core::vocabulary::{key::Key, pace::Pace};

/// Tells every owner of a part of a registration's state that it has changed or gone.
pub(crate) struct Registrations {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) states: Arc<States>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) reports: Arc<PendingReports>,
    pub(crate) gates: Arc<ReadinessGates>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Registrations {
    /// Takes in a changed registration. Wakes it and those that share a Service with it.
    pub(crate) fn put(&self, object: &ServiceRegistration) {
        let concerned = self.take_in(object);
        self.update_probe_pace();
        if !concerned.is_empty() {
            self.check_gates(&Key::of(&object.metadata));
        }
        self.queue.wake(concerned);
    }

    /// Takes in a complete list of the registrations. Wakes all of them.
    pub(crate) fn put_all(&self, listed: &[Arc<ServiceRegistration>]) {
        for object in listed {
            let concerned = self.take_in(object);
            self.queue.wake(concerned);
        }
        let listed: BTreeSet<Key> = listed.iter().map(|object| Key::of(&object.metadata)).collect();
        let gone = self.cluster.lock().registrations_beyond(&listed);
        gone.iter().for_each(|key| self.remove(key));
        self.update_probe_pace();
        self.queue.wake(listed);
    }

    /// Takes in the deletion of a registration. Wakes those that shared its Service.
    pub(crate) fn remove(&self, key: &Key) {
        let concerned = self.cluster.lock().remove_registration(key);
        self.forget(key);
        self.check_gates(key);
        self.update_probe_pace();
        self.queue.wake(concerned);
    }

    /// Whether a registration is known.
    pub(crate) fn is_known(&self, key: &Key) -> bool {
        self.cluster.lock().has_registration(key)
    }

    /// Forgets a registration if it was deleted while a task worked on it. No other code would remove what the
    /// task has added to its state.
    pub(crate) fn forget_if_gone(&self, key: &Key) {
        if !self.is_known(key) {
            self.forget(key);
        }
    }

    fn forget(&self, key: &Key) {
        self.states.forget(key);
        self.reports.forget(key);
        self.gates.forget(key);
        self.liveness.path().await_deadline(key, None);
        self.liveness.guard().forget(key);
        self.liveness.index().forget_cordons(key);
        self.liveness.index().unfollow(key);
        self.states.remove_unused_limits();
        self.metrics.forget(key);
    }

    /// Validates a registration and takes it in. Notes its ttl, also on a standby replica, so that each new leader
    /// knows the former ttls. Returns the registrations that the change concerns.
    fn take_in(&self, object: &ServiceRegistration) -> Vec<Key> {
        let key = Key::of(&object.metadata);
        let (concerned, pace) = {
            let mut cluster = self.cluster.lock();
            let concerned = cluster.put_registration(object);
            (concerned, cluster.pace_of(&key))
        };
        if let Some(Pace { ttl, .. }) = pace {
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            let former = object.status.as_ref().and_then(|status| status.former_ttl.as_deref());
            let former = former.and_then(|former| duration::parse(former).ok());
            self.states.note_ttl(&key, uid, ttl, former);
        }
        concerned
    }

    /// Makes the probe renew at the pace that the registrations require now.
    fn update_probe_pace(&self) {
        let tightest = self.cluster.lock().tightest_pace();
        self.proofs.set_pace(tightest);
    }

    /// Queues all Pods with the readiness gate in the namespace: a change of its registrations changes which of
    /// them have to publish a Pod.
    fn check_gates(&self, registration: &Key) {
        let gated = self.cluster.lock().gated(&registration.namespace);
        self.gates.check(gated);
    }
}
