//! Forgets instances that are gone, where no reconciliation does so.
//!
//! If the watch of the leader has lost a Lease, the leader reads it at once (L4) and forgets it if it does not
//! exist. Three cases remain: a standby replica does not reconcile; a registration that is gone is not
//! reconciled; and no decision mentions a Pod that is gone with a Lease that has lost its label. On the leader
//! this task has almost nothing to do, since the leader has already read the Leases that its watch has lost.

use std::{sync::Arc, time::Duration};

use crate::controller::{
    clock::Clock, cluster::Cluster, liveness::Liveness, queue::WorkQueue,
    reconcile::verify::Verifier, trace::recording::Trace,
};
use beatkeeper_core::{
    decide::verdict::Suspect,
    liveness::index::{Index, Presence},
    vocabulary::key::Key,
};

/// Reads the Leases that no watch shows and no reconciliation reads, and forgets those that are gone.
pub(crate) struct MissingLeases {
    pub(crate) interval: Duration,
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) verifier: Arc<Verifier>,
}

impl MissingLeases {
    /// Runs for as long as the process, once per sweep interval.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(self.interval).await;
            for (registration, unwatched) in self.sort_out() {
                // A Lease that cannot be read now is read in the next round, or by the next leader.
                self.verifier.verify(&registration, None, &unwatched, &Trace::default()).await;
                // A live read is normally followed by a decision. This task does not decide, so it wakes the
                // registration.
                self.queue.wake([registration]);
            }
        }
    }

    /// Forgets the Leases that the watch does not show and that have no registration. Nothing is published for
    /// them, so this needs no read. Returns the other Leases that the watch does not show.
    fn sort_out(&self) -> Vec<(Key, Vec<Suspect>)> {
        let mut index = self.liveness.index();
        self.forget_the_lost(&mut index);
        let unwatched: Vec<(Key, Vec<Suspect>)> = index
            .registrations()
            .map(|(registration, records)| {
                let unwatched = records.filter(|record| record.presence != Presence::Watched);
                let suspect = |lease| Suspect { lease, deadline: None };
                (
                    registration.clone(),
                    unwatched.map(|record| suspect(record.lease.clone())).collect(),
                )
            })
            .filter(|(_, unwatched): &(_, Vec<_>)| !unwatched.is_empty())
            .collect();
        let cluster = self.cluster.lock();
        let (known, orphans): (Vec<_>, Vec<_>) = unwatched
            .into_iter()
            .partition(|(registration, _)| cluster.has_registration(registration));
        for (registration, leases) in &orphans {
            leases.iter().for_each(|orphan| index.drop_orphan(registration, &orphan.lease));
        }
        index.forget_cordons_but(|registration| cluster.has_registration(registration));
        known
    }

    /// Forgets instances with Leases that were lost in a rollback of the store and that have not been seen again
    /// for two ttls. A standby replica needs this, since it does not decide about them.
    fn forget_the_lost(&self, index: &mut Index) {
        let all: Vec<Key> = index.registrations().map(|(key, _)| key.clone()).collect();
        let (cluster, now) = (self.cluster.lock(), self.clock.now());
        for registration in all {
            if let Some(pace) = cluster.pace_of(&registration) {
                index.forget_unshown(&registration, pace.ttl * 2, now);
            }
        }
    }
}
