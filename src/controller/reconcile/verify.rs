//! The verify step. An instance is pruned only after a live read of its Lease that was sent after the
//! instance's deadline (L2). A Lease that the watch has lost counts as gone only when a live read says so (L4).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::{StreamExt, future, stream};
use kube::Api;

use crate::controller::context::{CALL_TIMEOUT, Context, call};
use crate::kube_client::{self, list::Collection};
use beatkeeper_core::{
    decide::verdict::Suspect,
    liveness::index::LiveRead,
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::key::Key,
};

/// Up to this many Leases are read one by one, several at once, whatever the size of their registration.
const ONE_BY_ONE: usize = 24;
/// For more Leases, one list of all Leases of the registration is cheaper if it has at most this many Leases
/// for each suspect: a GET takes about 1 ms, a list of a thousand Leases about 20 ms.
const LISTED_FOR_ONE: usize = 50;
/// More Leases than this are always listed. Single reads of them would not end within the timeout of one call.
const ONE_BY_ONE_MAX: usize = 256;
/// How many reads run at once. Each needs a connection of its own (HTTP/1.1).
const SIDE_BY_SIDE: usize = 16;

/// The verifications that failed.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// The Leases that could not be read, with the errors. Their instances are held.
    pub(crate) unreadable: HashMap<Arc<str>, String>,
    /// Why no proof has come, if none has. Then all suspects are held.
    pub(crate) unproven: Option<String>,
}

impl Missing {
    pub(crate) fn nothing(&self) -> bool {
        self.unreadable.is_empty() && self.unproven.is_none()
    }
}

/// Reads the Leases of these suspects, and waits for a proof of the path at the same time. Client required.
pub(crate) async fn suspects(
    registration: &Key,
    suspects: Vec<Suspect>,
    context: &Context,
) -> Missing {
    let latest = suspects.iter().filter_map(|suspect| suspect.deadline).max();
    let proof = async {
        match latest {
            Some(deadline) => context.probe.prove_up_to(deadline, context).await.err(),
            None => None,
        }
    };
    let (unproven, unreadable) =
        future::join(proof, read_live(registration, suspects, context)).await;
    tracing::trace!(%registration, "verified");
    Missing { unreadable, unproven }
}

/// Reads the Leases of these suspects and notes the results in the index. Returns the Leases that could not be
/// read, with the errors. All reads together end within the timeout of one call, so that a server that lets
/// calls hang does not delay the other instances for longer.
async fn read_live(
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
        if a_list_is_cheaper(suspects.len(), context.index().count_of(registration)) {
            let mut found = HashSet::new();
            let listed = list(registration, &mut found, context).await;
            unread.retain(|lease, _| !found.contains(lease));
            if let Err(error) = listed {
                return unread.values_mut().for_each(|told| told.clone_from(&error));
            }
        }
        // After a list, these are the Leases that it did not contain. They may have lost their label.
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
    // Leases that were not read in time keep the error text from above.
    let _ = kube_client::within(CALL_TIMEOUT, read).await;
    unread
}

/// Whether one list of all Leases of a registration is cheaper than this many single reads.
fn a_list_is_cheaper(suspects: usize, known: usize) -> bool {
    suspects > ONE_BY_ONE && (suspects > ONE_BY_ONE_MAX || suspects * LISTED_FOR_ONE >= known)
}

/// Reads one Lease. resourceVersion stays unset, so that the answer is the newest state and not that of a
/// cache.
async fn read(registration: &Key, lease: &str, context: &Context) -> Result<(), String> {
    let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), &registration.namespace);
    let key = Key::new(&registration.namespace, lease);
    let sent = context.clock.now();
    let read = match call(|| format!("read Lease {key}"), api.get(lease)).await {
        Ok(lease) => LiveRead::Found(Heartbeat::read(&lease)),
        Err(error) if error.is_absent() => LiveRead::Absent,
        Err(error) => return Err(error.to_string()),
    };
    let now = context.clock.now();
    tracing::trace!(%key, took = ?now.since(sent), "read live");
    let observed = context.index().confirm(&key, read, sent, now);
    // This registration decides next in any case. Other registrations are woken if the Lease has moved to or
    // from them.
    context.wake(observed.wake.into_iter().filter(|key| key != registration));
    Ok(())
}

/// Reads all Leases of a registration, page by page. Only the entries in the index and the names of the found
/// Leases stay in memory. All pages show the state at the time of the first page.
async fn list(
    registration: &Key,
    found: &mut HashSet<Arc<str>>,
    context: &Context,
) -> Result<(), String> {
    let namespace = &registration.namespace;
    let ours = Collection::of::<HeartbeatLease>(&context.client, Some(namespace))
        .labelled(&format!("{REGISTRATION_LABEL}={}", registration.name));
    let sent = context.clock.now();
    let mut moved = Vec::new();
    let read = ours.each::<HeartbeatLease>(|lease| {
        // An unreadable Lease is read again by a single read, which returns the reason.
        let Ok(beat) = lease.as_ref().map(Heartbeat::read) else { return };
        let name: Arc<str> = beat.lease.as_str().into();
        let key = Key::new(namespace, &*name);
        let now = context.clock.now();
        moved.extend(context.index().confirm(&key, LiveRead::Found(beat), sent, now).wake);
        found.insert(name);
    });
    let read = call(|| format!("list the Leases of {registration}"), read).await;
    context.wake(moved.into_iter().filter(|key| key != registration));
    read.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_suspects_are_read_by_one_list_and_a_few_of_thousands_are_not() {
        assert!(!a_list_is_cheaper(24, 24));
        assert!(a_list_is_cheaper(25, 100));
        assert!(a_list_is_cheaper(25, 1_250) && !a_list_is_cheaper(25, 1_251));
        assert!(!a_list_is_cheaper(100, 10_000) && a_list_is_cheaper(200, 10_000));
        assert!(!a_list_is_cheaper(256, 100_000) && a_list_is_cheaper(257, 100_000));
    }
}
