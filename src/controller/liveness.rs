//! What this replica has observed of the heartbeats, and of the path on which they arrive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::controller::clock::Clock;
use beatkeeper_core::liveness::{
    index::Index, outage_guard::OutageGuard, probe_tracker::ProbeTracker,
};

/// The evidence for and against the life of the instances of one scope.
pub(crate) struct Liveness {
    index: Arc<Mutex<Index>>,
    path: Mutex<ProbeTracker>,
    guard: Mutex<OutageGuard>,
}

impl Liveness {
    pub(crate) fn new(clock: Clock) -> Self {
        let path = Mutex::new(ProbeTracker::new(clock.now()));
        Self { index: Arc::default(), path, guard: Mutex::default() }
    }

    /// The liveness index, to be counted.
    pub(crate) fn shared_index(&self) -> Arc<Mutex<Index>> {
        self.index.clone()
    }

    /// The liveness index. The guard is never held across an await.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of the beats. The guard is never held across an await.
    pub(crate) fn path(&self) -> MutexGuard<'_, ProbeTracker> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outage guard (L6). The mutex guard is never held across an await.
    pub(crate) fn guard(&self) -> MutexGuard<'_, OutageGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
