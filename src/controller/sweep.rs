//! The sweep: heartbeat Leases that nothing else would ever remove.
//!
//! A Pod's Lease goes with its Pod. An outside instance's Lease stays when its process dies, and all
//! of them stay when their registration is deleted. They are deleted ten times their ttl after the
//! last sign of life, each on the condition that it is still as it was read: a beat saves it.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{duration, registration::DEFAULT_TTL};
use kube::api::{DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::{
    context::{Context, call_write},
    probe,
};
use crate::kube_client::list::Collection;
use beatkeeper_core::{
    heartbeat::{HeartbeatLease, Origin, Version},
    index::{Key, Presence, Record},
    moment::Moment,
};

/// So many times its ttl a dead instance's Lease is kept, for people to look at.
const KEPT_FOR: u32 = 10;

/// Sweeps again and again until `over` is cancelled, and then ends what is under way.
pub(super) async fn run(context: Arc<Context>, over: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(context.settings.sweep_interval);
        if over.run_until_cancelled(pause).await.is_none() {
            return;
        }
        if context.accesses.is_wanting() {
            continue;
        }
        if let Err(error) = probe::sweep(&context).await {
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
                Err(_) if !context.claim.holds() => return,
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    // The others would fail as well, each after its time.
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

/// Why a Lease is to be deleted, if it is. `ttl` is that of its registration, none of an orphan:
/// only then the Lease's own word counts.
fn why(record: &Record, ttl: Option<Duration>, now: Moment) -> Option<&'static str> {
    let orphaned = ttl.is_none();
    // A Pod's goes with its Pod, unless a restore has taken its owner away.
    let swept = record.claim.origin == Origin::Outside || !record.claim.owned;
    let watched = record.presence == Presence::Watched;
    // A cordon is an operator's word, and waits for the operator.
    if !swept || !watched || record.claim.deleting || record.claim.cordoned.is_some() {
        return None;
    }
    let ttl = ttl.or(record.claim.duration).unwrap_or_else(default_ttl);
    let since = match record.expired_at {
        Some(expired_at) => expired_at,
        // Nobody decides about its silence: it is rejected, so that it would not be published if it beat, either.
        None if orphaned || (!record.published && record.token.renewed.is_some()) => record.seen,
        None => return None,
    };
    (now >= since + ttl * KEPT_FOR).then_some(if orphaned {
        "its registration is gone and it has long been silent"
    } else {
        "it has long been silent"
    })
}

/// Of an orphan whose Lease does not say how long it lasts nobody knows the ttl.
fn default_ttl() -> Duration {
    duration::parse(DEFAULT_TTL).unwrap_or(Duration::from_secs(90))
}

async fn delete(stale: &Stale, context: &Context) -> Result<(), super::error::ApiError> {
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
