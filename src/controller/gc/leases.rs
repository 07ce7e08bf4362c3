//! The sweep: deletes heartbeat Leases that nothing else would delete.
//!
//! A Pod's Lease goes with its Pod. The Lease of an outside instance stays when its process dies, and also when its
//! registration is deleted. A Lease is deleted ten ttls after its instance has expired, or after its last beat if no
//! decision notes the expiry. The deletion is conditional: a Lease that beats in the meantime stays.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{duration, registration::DEFAULT_TTL};
use kube::api::{DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::controller::{
    context::{Context, call_write},
    probe::prover,
};
use crate::kube_client::list::Collection;
use beatkeeper_core::{
    liveness::index::{Presence, Record},
    objects::heartbeat::{HeartbeatLease, Origin},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// How many ttls the Lease of a dead instance is kept, so that people can look at it.
const KEPT_FOR: u32 = 10;

/// Sweeps at the set interval until `over` is cancelled, and then waits for the running work.
pub(crate) async fn run(context: Arc<Context>, over: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(context.settings.sweep_interval);
        if over.run_until_cancelled(pause).await.is_none() {
            return;
        }
        if context.read_access.is_wanting() {
            continue;
        }
        if let Err(error) = prover::sweep(&context).await {
            tracing::warn!(%error, "cannot sweep; the next sweep tries again");
        }
        for stale in find(&context) {
            if over.is_cancelled() {
                return;
            }
            match delete(&stale, &context).await {
                Ok(()) => {
                    context.metrics.swept();
                    tracing::info!(lease = %stale.key, why = stale.why, "swept");
                }
                Err(_) if !context.leadership.holds() => return,
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

struct Stale {
    key: Key,
    uid: Arc<str>,
    version: Version,
    why: &'static str,
}

fn find(context: &Context) -> Vec<Stale> {
    if context.settings.dry_run {
        return Vec::new();
    }
    let now = context.clock.now();
    let index = context.index();
    let world = context.world();
    let mut stale = Vec::new();
    for (registration, records) in index.registrations() {
        if world.is_dry_run(registration) {
            continue;
        }
        let ttl = world.pace_of(registration).map(|pace| pace.ttl);
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

async fn delete(
    stale: &Stale,
    context: &Context,
) -> Result<(), crate::controller::error::ApiError> {
    let namespace = Some(stale.key.namespace.as_str());
    let leases = Collection::of::<HeartbeatLease>(&context.client, namespace);
    let only_this = DeleteParams::default().preconditions(Preconditions {
        uid: Some(stale.uid.to_string()),
        resource_version: Some(stale.version.0.to_string()),
    });
    call_write(
        context,
        || format!("delete Lease {}", stale.key),
        leases.delete(&stale.key.name, &only_this),
    )
    .await
}
