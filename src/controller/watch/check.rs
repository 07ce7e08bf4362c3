//! Checks the watches: whether they show what is known to have been written, and whether the store was rolled back.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Resource;

use super::{access::ReadAccess, relist::Relists};
use crate::{
    controller::{
        api::ApiServer, cluster::Cluster, liveness::Liveness, observer::Observer,
        rollback::Rollback, telemetry::Telemetry,
    },
    kube_client::list::Collection,
};
use beatkeeper_core::{
    cluster_cache::{deliveries::PendingDelivery, watched::Watched},
    liveness::rollback::RollbackSign,
    replica::{
        health::{Ailment, Concern},
        watch_stall::DeliveryCheck,
    },
    vocabulary::version::Version,
};

/// How often the watches are checked for objects that they have not shown yet.
const TICK: Duration = Duration::from_secs(1);
/// One kind is asked for its current version every this many ticks. So each kind is asked for about twice a minute.
const ASK_EVERY: u32 = 8;

/// Checks the watches of one scope.
pub(crate) struct WatchCheck {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) namespace: Option<String>,
    pub(crate) api: ApiServer,
    pub(crate) telemetry: Telemetry,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) read_access: Arc<ReadAccess>,
    pub(crate) relists: Arc<Relists>,
    pub(crate) rollback: Arc<Rollback>,
}

impl WatchCheck {
    /// Checks the watches for ever. A watch that does not show known writes is restarted.
    pub(crate) async fn run(self) {
        let mut ears: HashMap<&'static str, DeliveryCheck> = HashMap::new();
        let mut last = self.telemetry.clock.now();
        let mut noted = false;
        for tick in 1_u32.. {
            tokio::time::sleep(TICK).await;
            let now = self.telemetry.clock.now();
            // A process that was suspended received no events in that time.
            let passed = now.since(std::mem::replace(&mut last, now)).min(2 * TICK);
            let mut health = Ok(());
            for (kind, owed) in self.owed() {
                if self.read_access.is_refused(kind) {
                    // The refusal is reported already, and a restarted process would lack the right, too.
                    ears.remove(kind);
                    continue;
                }
                let ear = ears.entry(kind).or_default();
                if ear.check(owed, passed) && self.observer.notices_rollbacks() {
                    tracing::warn!(
                        kind,
                        "the watch does not bring what was written: it is started again"
                    );
                    self.telemetry.metrics.watch_broke(kind);
                    self.relists.request(|known| known == kind);
                }
                if let Some(silent) = ear.stalled_for() {
                    health = Err(Ailment::WatchSilent { kind, silent });
                }
            }
            // The health check appears with the first problem.
            noted |= health.is_err();
            if noted {
                self.telemetry.health.lock().note("watches", Concern::Life, health);
            }
            let namespace = self.namespace.as_deref();
            match (tick % (4 * ASK_EVERY)) / ASK_EVERY {
                _ if tick % ASK_EVERY != 0 => {}
                0 => self.ask::<EndpointSlice>(namespace).await,
                1 => self.ask::<Service>(namespace).await,
                2 => self.ask::<Endpoints>(namespace).await,
                _ => self.ask::<Pod>(namespace).await,
            }
        }
    }

    /// What each watch is known to lack, as a number that changes once the watch has shown any of it.
    fn owed(&self) -> [(&'static str, Option<u64>); 4] {
        let probe = self.liveness.path().rollback_detector().unshown();
        let mut cluster = self.cluster.lock();
        let number = |debt: Option<PendingDelivery>| debt.map(PendingDelivery::number);
        [
            ("Leases", probe.map(i64::cast_unsigned)),
            ("Services", number(cluster.debt::<Service>())),
            ("EndpointSlices", number(cluster.debt::<EndpointSlice>())),
            ("Endpoints", number(cluster.debt::<Endpoints>())),
        ]
    }

    /// Asks for the current version of a kind by the shortest possible list. A kind may have a store of its own
    /// (`--etcd-servers-overrides`), which can be rolled back without the store of the Leases. If the operator has
    /// nothing to write, no write of its own shows that a watch misses events.
    async fn ask<K>(&self, namespace: Option<&str>)
    where
        K: Resource<DynamicType = ()> + Watched,
    {
        let seen = self.cluster.lock().shown::<K>();
        let all = Collection::of::<K>(&self.api.client, namespace);
        let kind = K::plural(&());
        let asked = self.api.read(|| format!("ask for the version of {kind}"), all.version()).await;
        // If the call fails, a later round asks again.
        let Ok(reached) = asked else { return };
        let reached = Version::of(reached.as_deref());
        if reached < seen && self.cluster.lock().shown::<K>() == seen {
            self.rollback.begin(RollbackSign::KindWentBack { kind, reached, seen });
        }
    }
}
