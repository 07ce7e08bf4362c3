//! What this replica has observed of the heartbeats, and of the path on which they arrive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::controller::{carriers::state::CarrierState, clock::Clock};
use beatkeeper_core::liveness::{
    index::Index, outage_guard::OutageGuard, probe_tracker::ProbeTracker,
};

/// The evidence for and against the life of the instances of one scope.
///
/// The locks have an order: the gateways first, then the index. Both are held while beats of gateways are taken in, so
/// no decision sees an answer of a gateway without the beats that it covers. [`Self::carried`] is the only way to the
/// gateways, so no other order can occur.
pub(crate) struct Liveness {
    index: Arc<Mutex<Index>>,
    path: Mutex<ProbeTracker>,
    guard: Mutex<OutageGuard>,
    gateways: Option<Mutex<CarrierState>>,
}

impl Liveness {
    /// Nothing has been observed yet. `gateways` is None if there are none.
    pub(crate) fn new(clock: Clock, gateways: Option<CarrierState>) -> Self {
        let path = Mutex::new(ProbeTracker::new(clock.now()));
        Self {
            index: Arc::default(),
            path,
            guard: Mutex::default(),
            gateways: gateways.map(Mutex::new),
        }
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

    /// Whether beats may come through gateways.
    pub(crate) fn has_gateways(&self) -> bool {
        self.gateways.is_some()
    }

    /// Looks at the index, and asks what gateways say of that at the same moment, if there are any.
    pub(crate) fn look<T, S>(
        &self,
        look: impl FnOnce(&mut Index) -> T,
        say: impl FnOnce(&CarrierState, &T) -> S,
    ) -> (T, Option<S>) {
        let Some(gateways) = &self.gateways else { return (look(&mut self.index()), None) };
        let gateways = gateways.lock().unwrap_or_else(PoisonError::into_inner);
        let found = look(&mut self.index());
        let said = say(&gateways, &found);
        (found, Some(said))
    }

    /// Runs this with the gateways and the index, both locked; returns None if there are no gateways. It must take no
    /// other lock of this type.
    pub(crate) fn carried<T>(
        &self,
        run: impl FnOnce(&mut CarrierState, &mut Index) -> T,
    ) -> Option<T> {
        let mut gateways = self.gateways.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(run(&mut gateways, &mut self.index()))
    }
}
