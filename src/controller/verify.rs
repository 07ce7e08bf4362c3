//! The verify step: nothing is pruned before its Lease has been read live, by a read that was sent
//! after its deadline (L2); and a Lease that the watch has lost is gone only when a read says so (L4).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::{StreamExt, stream};
use kube::{Api, api::ListParams};

use super::{
    context::{CALL_TIMEOUT, Context, call},
    outage::Sent,
};
use crate::{
    core::{
        heartbeat::{Heartbeat, HeartbeatLease},
        index::{Key, LiveRead},
        moment::Moment,
        verdict::Suspect,
    },
    kube_client,
};

/// Up to this many Leases are read one by one, side by side; beyond that one list of all is cheaper:
/// a GET takes about 1 ms, a list of a thousand about 20.
const ONE_BY_ONE: usize = 24;
/// How many reads are under way at once: each needs a connection of its own (HTTP/1.1).
const SIDE_BY_SIDE: usize = 8;

/// Reads the Leases of these suspects and tells the index. Returns those that could not be read, with
/// the error: they are held. All of it is over after the time of one call, so that a server which
/// lets calls hang does not keep the others waiting for longer. Client required.
pub(super) async fn suspects(
    registration: &Key,
    suspects: Vec<Suspect>,
    context: &Context,
) -> HashMap<Arc<str>, String> {
    let earliest = suspects.iter().filter_map(|suspect| suspect.deadline).min();
    let past = earliest.map(|deadline| context.clock.now().since(deadline));
    tracing::debug!(%registration, suspects = suspects.len(), ?past, "reading Leases live");
    let late = "no answer in time".to_owned();
    let mut unread: HashMap<Arc<str>, String> =
        suspects.iter().map(|suspect| (suspect.lease.clone(), late.clone())).collect();
    let read = async {
        if suspects.len() > ONE_BY_ONE {
            match list(registration, context).await {
                Ok(found) => unread.retain(|lease, _| !found.contains(lease)),
                Err(error) => return unread.values_mut().for_each(|told| told.clone_from(&error)),
            }
        }
        // After a list this is for those that it did not show, which may have lost their label.
        let left: Vec<Arc<str>> = unread.keys().cloned().collect();
        let mut reads = stream::iter(left)
            .map(|lease| async move {
                let result = read(registration, &lease, context).await;
                (lease, result)
            })
            .buffer_unordered(SIDE_BY_SIDE);
        while let Some((lease, result)) = reads.next().await {
            match result {
                Ok(()) => drop(unread.remove(&lease)),
                Err(error) => drop(unread.insert(lease, error)),
            }
        }
    };
    let sent = context.outages().send(context.clock.now());
    if kube_client::within(CALL_TIMEOUT, read).await.is_err() {
        // What was not read by then still says so.
        context.outages().failed(sent);
    }
    unread
}

/// Reads one Lease. resourceVersion stays unset: the answer is the newest there is, not a cache's.
async fn read(registration: &Key, lease: &str, context: &Context) -> Result<(), String> {
    let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), &registration.namespace);
    let key = Key::new(&registration.namespace, lease);
    let sent = context.outages().send(context.clock.now());
    let read = match call(|| format!("read Lease {key}"), api.get(lease)).await {
        Ok(lease) => LiveRead::Found(Heartbeat::read(&lease)),
        Err(error) if error.is_absent() => LiveRead::Absent,
        Err(error) => {
            context.outages().failed(sent);
            return Err(error.to_string());
        }
    };
    let now = context.clock.now();
    answered(sent, now, context);
    let observed = context.index().confirm(&key, read, sent.at, now);
    // The one that reads decides next anyway; a Lease that moved concerns others too.
    context.wake(observed.wake.into_iter().filter(|key| key != registration));
    Ok(())
}

/// Notes that the way works, and how well.
fn answered(sent: Sent, now: Moment, context: &Context) {
    if context.outages().answered(sent, now) {
        context.metrics.path_gap();
    }
    context.metrics.path_proven(now);
}

/// Reads all Leases of a registration; returns the names of those that were there.
async fn list(registration: &Key, context: &Context) -> Result<HashSet<Arc<str>>, String> {
    let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), &registration.namespace);
    let ours = ListParams::default().labels(&format!("{REGISTRATION_LABEL}={}", registration.name));
    let sent = context.outages().send(context.clock.now());
    let leases = call(|| format!("list the Leases of {registration}"), api.list(&ours))
        .await
        .map_err(|error| {
            context.outages().failed(sent);
            error.to_string()
        })?;
    let now = context.clock.now();
    answered(sent, now, context);
    let beats: Vec<Heartbeat> = leases.items.iter().map(Heartbeat::read).collect();
    let mut found = HashSet::new();
    let mut moved = Vec::new();
    {
        let mut index = context.index();
        for beat in beats {
            let name: Arc<str> = beat.lease.as_str().into();
            let key = Key::new(&registration.namespace, &*name);
            moved.extend(index.confirm(&key, LiveRead::Found(beat), sent.at, now).wake);
            found.insert(name);
        }
    }
    context.wake(moved.into_iter().filter(|key| key != registration));
    Ok(found)
}
