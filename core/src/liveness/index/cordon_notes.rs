//! What the watch has shown of cordons.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use beatkeeper_api::{
    CordonedInstance,
    status::{CORDONED_ADDRESSES_MAX, CORDONED_INSTANCES_MAX},
};

use crate::{
    objects::heartbeat::{LeaseContent, Origin},
    vocabulary::{address::Named, key::Key, version::Token},
};

/// The largest number of cordons that are recorded for a registration. It is more than a status stores, because some
/// may have been lifted.
const NOTED_MAX: usize = 2 * CORDONED_INSTANCES_MAX;

/// What the watch has shown of cordons, even if the Leases have changed or disappeared since.
#[derive(Debug, Default)]
pub struct Notes(pub(crate) HashMap<Key, Noted>);

#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// The cordons by the name of the Lease.
    pub(crate) held: BTreeMap<String, Note>,
    /// The Leases with a cordon that was lifted after this process started and not set again. Entries for them in a
    /// status are old.
    pub(crate) lifted: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Note {
    uid: Arc<str>,
    reason: String,
    pod: Option<String>,
    addresses: Vec<IpAddr>,
}

impl Notes {
    /// A Lease of a registration has changed, or is a new Lease with the same name.
    pub(crate) fn observe(
        &mut self,
        registration: &Key,
        lease: &str,
        token: &Token,
        content: &LeaseContent,
    ) {
        let Some(reason) = &content.cordoned else {
            // A Lease that was created again without the annotation does not lift the cordon.
            if let Some(noted) = self.0.get_mut(registration)
                && noted.held.get(lease).is_some_and(|note| note.uid == token.uid)
            {
                noted.lift(lease);
            }
            return;
        };
        let noted = self.0.entry(registration.clone()).or_default();
        if noted.held.len() >= NOTED_MAX && !noted.held.contains_key(lease) {
            return;
        }
        let (pod, named): (_, &[Named]) = match &content.origin {
            Origin::Pod { name, .. } => (Some(name.clone()), &[]),
            Origin::Outside => (None, &content.addresses),
        };
        let mut addresses: Vec<IpAddr> =
            noted.held.get(lease).map(|note| note.addresses.clone()).unwrap_or_default();
        add(&mut addresses, named.iter().filter_map(Named::address));
        let note = Note { uid: token.uid.clone(), reason: reason.clone(), pod, addresses };
        noted.lifted.remove(lease);
        noted.held.insert(lease.to_owned(), note);
    }

    /// A registration is gone. Only cordons that a Lease still has are kept.
    pub(crate) fn forget(&mut self, registration: &Key, carries: impl Fn(&str) -> bool) {
        if let Some(noted) = self.0.get_mut(registration) {
            noted.held.retain(|lease, _| carries(lease));
            noted.lifted.clear();
            if noted.held.is_empty() {
                self.0.remove(registration);
            }
        }
    }

    /// The registrations for which cordons are recorded.
    pub(crate) fn registrations(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    pub(crate) fn lift(&mut self, registration: &Key, lease: &str) {
        self.0.entry(registration.clone()).or_default().lift(lease);
    }
}

impl Noted {
    pub(crate) fn lift(&mut self, lease: &str) {
        self.held.remove(lease);
        if self.lifted.len() < NOTED_MAX {
            self.lifted.insert(lease.to_owned());
        }
    }
}

/// A Lease of a cordoned instance that was created again without the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmarked {
    /// Name of the Lease.
    pub lease: Arc<str>,
    /// Its token.
    pub token: Token,
    /// Its other content.
    pub content: Arc<LeaseContent>,
    /// Why the instance is cordoned.
    pub reason: String,
}

impl Note {
    pub(crate) fn write_to(&self, entry: &mut CordonedInstance, name: &str) {
        let Self { uid, reason, pod, addresses } = self;
        let mut known: Vec<IpAddr> = parsed(&entry.addresses);
        add(&mut known, addresses.iter().copied());
        entry.name = name.to_owned();
        entry.reason.clone_from(reason);
        entry.lease_uid = uid.to_string();
        entry.addresses = known.iter().map(IpAddr::to_string).collect();
        if pod.is_some() {
            entry.pod.clone_from(pod);
        }
    }
}

pub(crate) fn parsed(addresses: &[String]) -> Vec<IpAddr> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

pub(crate) fn add(known: &mut Vec<IpAddr>, more: impl Iterator<Item = IpAddr>) {
    for address in more {
        if known.len() < CORDONED_ADDRESSES_MAX && !known.contains(&address) {
            known.push(address);
        }
    }
}
