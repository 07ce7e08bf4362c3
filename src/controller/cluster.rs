//! The cache of the cluster's objects, except heartbeat Leases.

use std::sync::{Mutex, MutexGuard, PoisonError};

use beatkeeper_core::cluster_cache::ClusterCache;

/// What the watches have shown of one scope.
#[derive(Debug, Default)]
pub(crate) struct Cluster(Mutex<ClusterCache>);

impl Cluster {
    /// Locks the cache. The guard is never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ClusterCache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
