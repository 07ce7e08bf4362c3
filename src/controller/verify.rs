//! The verify step: nothing is pruned before its Lease has been read live, by a read that was sent
//! after its deadline (L2); and a Lease that the watch has lost is gone only when a read says so (L4).

use std::{collections::HashMap, sync::Arc};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::{StreamExt, stream};
use kube::{Api, api::ListParams};

use super::context::{Context, call};
use crate::core::{
    heartbeat::{Heartbeat, HeartbeatLease},
    index::{Key, LiveRead},
    verdict::Suspect,
};

/// Up to this many Leases are read one by one, side by side; beyond that one list of all is cheaper:
/// a GET takes about 1 ms, a list of a thousand about 20.
const ONE_BY_ONE: usize = 24;
/// How many reads are under way at once: each needs a connection of its own (HTTP/1.1).
const SIDE_BY_SIDE: usize = 8;

/// Reads the Leases of these suspects and tells the index. Returns those that could not be read, with
/// the error: they are held. Client required.
pub(super) async fn suspects(
    registration: &Key,
    suspects: Vec<Suspect>,
    context: &Context,
) -> HashMap<Arc<str>, String> {
    let mut left = suspects;
    let latest = left.iter().filter_map(|suspect| suspect.deadline).min();
    let past = latest.map(|deadline| context.clock.now().since(deadline));
    tracing::debug!(%registration, suspects = left.len(), ?past, "reading Leases live");
    if left.len() > ONE_BY_ONE {
        match list(registration, context).await {
            Ok(found) => left.retain(|suspect| !found.contains(&suspect.lease)),
            Err(error) => {
                return left.into_iter().map(|suspect| (suspect.lease, error.clone())).collect();
            }
        }
    }
    // After a list this is for those that it did not show, which may have lost their label.
    stream::iter(left)
        .map(|suspect| async move {
            let error = read(registration, &suspect, context).await.err()?;
            Some((suspect.lease, error))
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// Reads one Lease. resourceVersion stays unset: the answer is the newest there is, not a cache's.
async fn read(registration: &Key, suspect: &Suspect, context: &Context) -> Result<(), String> {
    let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), &registration.namespace);
    let key = Key::new(&registration.namespace, &*suspect.lease);
    let sent = context.clock.now();
    let read = match call(|| format!("read Lease {key}"), api.get(&suspect.lease)).await {
        Ok(lease) => LiveRead::Found(Heartbeat::read(&lease)),
        Err(error) if error.is_absent() => LiveRead::Absent,
        Err(error) => return Err(error.to_string()),
    };
    let now = context.clock.now();
    let observed = context.index().confirm(&key, read, sent, now);
    // The one that reads decides next anyway; a Lease that moved concerns others too.
    context.wake(observed.wake.into_iter().filter(|key| key != registration));
    Ok(())
}

/// Reads all Leases of a registration; returns the names of those that were there.
async fn list(
    registration: &Key,
    context: &Context,
) -> Result<std::collections::HashSet<Arc<str>>, String> {
    let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), &registration.namespace);
    let ours = ListParams::default().labels(&format!("{REGISTRATION_LABEL}={}", registration.name));
    let sent = context.clock.now();
    let leases = call(|| format!("list the Leases of {registration}"), api.list(&ours))
        .await
        .map_err(|error| error.to_string())?;
    let now = context.clock.now();
    let mut index = context.index();
    Ok(leases
        .items
        .iter()
        .map(|lease| {
            let beat = Heartbeat::read(lease);
            let name: Arc<str> = beat.lease.as_str().into();
            let key = Key::new(&registration.namespace, &*name);
            let observed = index.confirm(&key, LiveRead::Found(beat), sent, now);
            // The one that reads decides next anyway; a Lease that moved concerns others too.
            context.wake(observed.wake.into_iter().filter(|key| key != registration));
            name
        })
        .collect())
}
