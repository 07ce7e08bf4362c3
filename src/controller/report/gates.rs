//! The Pods with the operator's readiness gate.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::controller::clock::Clock;
use beatkeeper_core::{
    report::readiness_gates::Gates,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// The Pods with the readiness gate, and which of them are to be checked.
pub(crate) struct ReadinessGates {
    clock: Clock,
    gates: Mutex<Gates>,
    changed: Notify,
}

impl ReadinessGates {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, gates: Mutex::default(), changed: Notify::new() }
    }

    /// The guard is never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task that writes the Pods' conditions.
    pub(crate) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for a change.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Queues these Pods, all of which have the operator's readiness gate, to be checked.
    pub(crate) fn check(&self, pods: impl IntoIterator<Item = Key>) {
        let now = self.clock.now();
        let mut any = false;
        for pod in pods {
            self.lock().look_at(&pod, now);
            any = true;
        }
        if any {
            self.notify();
        }
    }

    /// Queues this Pod to be checked at this moment.
    pub(crate) fn check_at(&self, pod: &Key, at: MonotonicTime) {
        self.lock().look_at(pod, at);
        self.notify();
    }

    /// Forgets what a registration says about Pods.
    pub(crate) fn forget(&self, registration: &Key) {
        let now = self.clock.now();
        self.lock().forget(registration, now);
    }
}
