//! Restarts from the current state of the store when the store was rolled back to an earlier state.
//!
//! The parts of this process that see a sign of a rollback in a watch or a write report it here. They are the
//! probe ([`beatkeeper_core::liveness::rollback`]), a list ([`beatkeeper_core::cluster_cache`], [`beatkeeper_core::liveness::index`]), and a
//! read after a conflict. The check of the watches (`watch/check.rs`) asks the API server for rollbacks that none
//! of them can see.

use std::sync::Arc;

use crate::controller::{
    clock::Clock,
    cluster::Cluster,
    liveness::Liveness,
    metrics::process::Metrics,
    observer::Observer,
    probe::{others::OtherProbes, proofs::Proofs},
    report::pending::PendingReports,
    states::States,
    watch::relist::Relists,
};
use beatkeeper_core::{
    cluster_cache::watched::Watched, liveness::rollback::RollbackSign, vocabulary::version::Version,
};

/// Every owner of something that is compared by resourceVersion.
pub(crate) struct Rollback {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) other_probes: Arc<OtherProbes>,
    pub(crate) states: Arc<States>,
    pub(crate) reports: Arc<PendingReports>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) relists: Arc<Relists>,
}

impl Rollback {
    /// Handles a rollback of the store: forgets everything that is compared by resourceVersion, and reads it
    /// again. Nothing is proven until this process has renewed its probe. Each instance that is not known to be
    /// dead gets a full ttl from that moment on.
    pub(crate) fn begin(&self, sign: RollbackSign) {
        if !self.observer.notices_rollbacks() {
            return;
        }
        tracing::warn!(
            why = %sign,
            "the store has gone back to an earlier state, as after a backup was restored: everything is read again, \
             and no instance is pruned for a ttl"
        );
        self.metrics.store_went_back();
        self.liveness.path().reset_after_rollback(sign);
        self.liveness.index().reset_after_rollback(self.clock.now());
        self.cluster.lock().begin_anew();
        self.other_probes.forget_all();
        self.states.forget_versions();
        self.reports.forget_written();
        self.proofs.discard();
        self.relists.request(|_| true);
    }

    /// Takes in an object that was read after a refused write. `from` is the version that was known before.
    pub(crate) fn put_read<K: Watched>(&self, object: K, from: Version) {
        let mut cluster = self.cluster.lock();
        cluster.put_read(object, from);
        let went_back = cluster.went_back::<K>();
        drop(cluster);
        if went_back {
            self.begin(RollbackSign::ReadObject);
        }
    }
}
