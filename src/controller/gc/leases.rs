//! The sweep: deletes heartbeat Leases that nothing else would delete.
//!
//! A Pod's Lease goes with its Pod. The Lease of an outside instance stays when its process dies, and also when its
//! registration is deleted. A Lease is deleted ten ttls after its instance has expired, or after its last beat if no
//! decision notes the expiry. The deletion is conditional: a Lease that beats in the meantime stays.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{duration, registration::DEFAULT_TTL};
use kube::api::{DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{
        api::ApiServer, clock::Clock, cluster::Cluster, liveness::Liveness,
        metrics::process::Metrics, probe::others::Probes, watch::access::ReadAccess,
    },
    kube_client::list::Collection,
};
use beatkeeper_core::{
    liveness::index::{Presence, Record},
    objects::heartbeat::{HeartbeatLease, Origin},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// How many ttls the Lease of a dead instance is kept, so that people can look at it.
const KEPT_FOR: u32 = 10;

/// Deletes heartbeat Leases that nothing else would delete.
#[derive(Clone)]
pub(crate) struct LeaseGc {
    pub(crate) interval: Duration,
    pub(crate) dry_run: bool,
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) probes: Arc<Probes>,
    pub(crate) read_access: Arc<ReadAccess>,
    pub(crate) metrics: Arc<Metrics>,
}

impl LeaseGc {
    /// Sweeps at the set interval until `over` is cancelled, and then waits for the running work.
    pub(crate) async fn run(self, over: CancellationToken) {
        loop {
            let pause = tokio::time::sleep(self.interval);
            if over.run_until_cancelled(pause).await.is_none() {
                return;
            }
            if self.read_access.is_wanting() {
                continue;
            }
            if let Err(error) = self.probes.delete_abandoned(&self.api).await {
                tracing::warn!(%error, "cannot sweep; the next sweep tries again");
            }
            for stale in self.find() {
                if over.is_cancelled() {
                    return;
                }
                match self.delete(&stale).await {
                    Ok(()) => {
                        self.metrics.swept();
                        tracing::info!(lease = %stale.key, why = stale.why, "swept");
                    }
                    Err(_) if !self.api.may_write() => return,
                    Err(error) if error.is_conflict() => {}
                    Err(error) => {
                        // The other deletions would fail as well, each after its timeout.
                        tracing::warn!(%error, "cannot sweep; the next sweep tries again");
                        break;
                    }
                }
            }
        }
    }

    fn find(&self) -> Vec<Stale> {
        if self.dry_run {
            return Vec::new();
        }
        let now = self.clock.now();
        let index = self.liveness.index();
        let cluster = self.cluster.lock();
        let mut stale = Vec::new();
        for (registration, records) in index.registrations() {
            if cluster.is_dry_run(registration) {
                continue;
            }
            let ttl = cluster.pace_of(registration).map(|pace| pace.ttl);
            for record in records {
                if let Some(why) = why(record, ttl, now) {
                    stale.push(Stale {
                        key: Key::new(&registration.namespace, &*record.lease),
                        uid: record.token.uid.clone(),
                        version: record.version,
                        why,
                    });
                }
            }
        }
        stale
    }

    async fn delete(&self, stale: &Stale) -> Result<(), crate::controller::error::ApiError> {
        let namespace = Some(stale.key.namespace.as_str());
        let leases = Collection::of::<HeartbeatLease>(&self.api.client, namespace);
        let only_this = DeleteParams::default().preconditions(Preconditions {
            uid: Some(stale.uid.to_string()),
            resource_version: Some(stale.version.0.to_string()),
        });
        self.api
            .write(
                || format!("delete Lease {}", stale.key),
                leases.delete(&stale.key.name, &only_this),
            )
            .await
    }
}

struct Stale {
    key: Key,
    uid: Arc<str>,
    version: Version,
    why: &'static str,
}

/// Why a Lease is to be deleted, if it is. `ttl` is the ttl of its registration, or None for an orphan, which
/// has no registration. For an orphan the duration in the Lease counts.
fn why(record: &Record, ttl: Option<Duration>, now: MonotonicTime) -> Option<&'static str> {
    let orphaned = ttl.is_none();
    // A Pod's Lease goes with its Pod, unless a restore has removed its owner reference.
    let swept = record.content.origin == Origin::Outside || !record.content.owned;
    let watched = record.presence == Presence::Watched;
    // A person has set a cordon, so the Lease stays until a person lifts it.
    if !swept || !watched || record.content.deleting || record.content.cordoned.is_some() {
        return None;
    }
    let ttl = ttl.or(record.content.duration).unwrap_or_else(default_ttl);
    let since = match record.expired_at {
        Some(expired_at) => expired_at,
        // No decision notes a silence of a rejected instance, since it would not be published even if it beat.
        None if orphaned || (!record.published && record.token.renewed.is_some()) => record.seen,
        None => return None,
    };
    (now >= since + ttl * KEPT_FOR).then_some(if orphaned {
        "its registration is gone and it has long been silent"
    } else {
        "it has long been silent"
    })
}

/// The ttl of an orphan with a Lease that contains no duration.
fn default_ttl() -> Duration {
    duration::parse(DEFAULT_TTL).unwrap_or(Duration::from_secs(90))
}
