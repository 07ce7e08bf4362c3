//! Cordons: instances that a person has removed from what is published.
//!
//! The annotation on a Lease sets a cordon. But a Lease belongs to its workload: it may be deleted when the workload
//! restarts, collected as garbage, or created again; or another instance takes the address under another name. So a
//! cordon is stored in the status of its registration. It applies by name and by address until the annotation is
//! removed from a Lease that had it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use beatkeeper_api::{
    CordonedInstance, heartbeat,
    status::{CORDONED_ADDRESSES_MAX, CORDONED_INSTANCES_MAX},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    address::Named,
    heartbeat::{LeaseContent, Origin, Token},
    index::{Index, Key, Record},
    registration::{PortTemplate, Registration, TargetPort},
    verdict::Placement,
};

/// The largest number of cordons that are recorded for a registration. It is more than a status stores, because some
/// may have been lifted.
const NOTED_MAX: usize = 2 * CORDONED_INSTANCES_MAX;

/// What the watch has shown of cordons, even if the Leases have changed or disappeared since.
#[derive(Debug, Default)]
pub struct Notes(HashMap<Key, Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// The cordons by the name of the Lease.
    held: BTreeMap<String, Note>,
    /// The Leases with a cordon that was lifted after this process started and not set again. Entries for them in a
    /// status are old.
    lifted: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Note {
    uid: Arc<str>,
    reason: String,
    pod: Option<String>,
    addresses: Vec<IpAddr>,
}

impl Notes {
    /// A Lease of a registration has changed, or is a new Lease with the same name.
    pub(super) fn observe(
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
    pub(super) fn forget(&mut self, registration: &Key, carries: impl Fn(&str) -> bool) {
        if let Some(noted) = self.0.get_mut(registration) {
            noted.held.retain(|lease, _| carries(lease));
            noted.lifted.clear();
            if noted.held.is_empty() {
                self.0.remove(registration);
            }
        }
    }

    /// The registrations for which cordons are recorded.
    pub(super) fn registrations(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    fn lift(&mut self, registration: &Key, lease: &str) {
        self.0.entry(registration.clone()).or_default().lift(lease);
    }
}

impl Noted {
    fn lift(&mut self, lease: &str) {
        self.held.remove(lease);
        if self.lifted.len() < NOTED_MAX {
            self.lifted.insert(lease.to_owned());
        }
    }
}

/// A cordon that is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cordon {
    /// Its entry in the status.
    pub entry: CordonedInstance,
    addresses: Vec<IpAddr>,
    /// The ports on which the instance listens, as far as they are known without its Pod.
    ports: Vec<u16>,
}

/// The current cordons of a registration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cordons {
    /// The cordons that are in effect.
    pub held: Vec<Cordon>,
    /// The names of those in the status that were lifted.
    pub lifted: Vec<String>,
    /// Leases that were created again and need the annotation again.
    pub unmarked: Vec<Unmarked>,
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

impl Cordons {
    /// Combines the cordons in the status with those that the watch has shown.
    pub fn stand(registration: &Registration, index: &mut Index) -> Self {
        let Registration { key, cordoned, uncordon, .. } = registration;
        let mut cordons = Self::default();
        let mut entries: BTreeMap<&str, CordonedInstance> = BTreeMap::new();
        for entry in cordoned {
            let lease = heartbeat::lease_name(&key.name, &entry.name);
            let noted = index.cordons().0.get(key);
            let was_lifted = noted.is_some_and(|noted| noted.lifted.contains(&lease));
            // The Lease has no annotation because it was removed while this process was not watching. The exception is
            // a cordon that is recorded here: the annotation was written back, and the watch has not shown it yet.
            let is_held = noted.is_some_and(|noted| noted.held.contains_key(&lease));
            let is_bare = !is_held
                && index.record(key, &lease).is_some_and(|record| {
                    *record.token.uid == *entry.lease_uid && record.content.cordoned.is_none()
                });
            if was_lifted || is_bare {
                index.cordons_mut().lift(key, &lease);
                cordons.lifted.push(entry.name.clone());
            } else {
                entries.insert(&entry.name, entry.clone());
            }
        }
        let noted = index.cordons().0.get(key).map(|noted| noted.held.clone()).unwrap_or_default();
        for (lease, note) in &noted {
            if let Some(name) = heartbeat::instance_of(lease, &key.name) {
                let entry = entries.entry(name).or_default();
                note.write_to(entry, name);
            }
        }
        for (name, entry) in entries {
            let lease = heartbeat::lease_name(&key.name, name);
            let record = index.record(key, &lease);
            let is_marked = record.is_some_and(|record| record.content.cordoned.is_some());
            if !is_marked && uncordon.iter().any(|named| named == name || named == "*") {
                cordons.lifted.push(entry.name);
                index.cordons_mut().lift(key, &lease);
                continue;
            }
            if let Some(record) = record.filter(|record| !is_marked && !record.content.deleting) {
                cordons.unmarked.push(Unmarked::of(record, &entry.reason));
            }
            cordons.held.push(Cordon::of(entry, registration));
        }
        cordons.make_room(key, index);
        cordons
    }

    /// If there are too many cordons, drops those of Pods without a Lease, because these Pods will probably not
    /// return.
    fn make_room(&mut self, key: &Key, index: &Index) {
        let mut surplus = self.held.len().saturating_sub(CORDONED_INSTANCES_MAX);
        let lifted = &mut self.lifted;
        self.held.retain(|Cordon { entry, .. }| {
            let lease = heartbeat::lease_name(&key.name, &entry.name);
            let is_spare = entry.pod.is_some() && index.record(key, &lease).is_none();
            if surplus == 0 || !is_spare {
                return true;
            }
            surplus -= 1;
            lifted.push(entry.name.clone());
            false
        });
        self.held.truncate(CORDONED_INSTANCES_MAX);
    }

    /// The cordons to store in the next status.
    pub fn remember(&self, prior: &[CordonedInstance], wall: Timestamp) -> Vec<CordonedInstance> {
        let is_lifted = |entry: &CordonedInstance| self.lifted.contains(&entry.name);
        let mut next: BTreeMap<&str, CordonedInstance> = prior
            .iter()
            .filter(|entry| !is_lifted(entry))
            .map(|entry| (entry.name.as_str(), entry.clone()))
            .collect();
        for Cordon { entry, .. } in &self.held {
            let known = next.get(entry.name.as_str()).and_then(|known| known.since.clone());
            let since = known.or_else(|| entry.since.clone()).unwrap_or(Time(wall));
            next.insert(&entry.name, CordonedInstance { since: Some(since), ..entry.clone() });
        }
        next.into_values().take(CORDONED_INSTANCES_MAX).collect()
    }
}

impl Note {
    fn write_to(&self, entry: &mut CordonedInstance, name: &str) {
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

impl Unmarked {
    fn of(record: &Record, reason: &str) -> Self {
        let Record { lease, token, content, .. } = record;
        let (lease, token, content) = (lease.clone(), token.clone(), content.clone());
        Self { lease, token, content, reason: reason.to_owned() }
    }
}

impl Cordon {
    fn of(mut entry: CordonedInstance, registration: &Registration) -> Self {
        let declared = registration.declared.get(&entry.name);
        let mut addresses = parsed(&entry.addresses);
        if entry.pod.is_none() {
            let named = declared.iter().flat_map(|declared| &declared.addresses);
            add(&mut addresses, named.filter_map(|address| address.parse().ok()));
        }
        entry.addresses = addresses.iter().map(IpAddr::to_string).collect();
        let own = |port: &PortTemplate| {
            let mut own = declared.iter().flat_map(|declared| &declared.ports);
            own.find(|own| own.name == port.name).and_then(|own| u16::try_from(own.port).ok())
        };
        let number = |port: &PortTemplate| match (own(port), &port.target) {
            (Some(own), _) => Some(own),
            (None, TargetPort::Number(number)) => Some(*number),
            (None, TargetPort::Name(_)) => None,
        };
        let ports = registration.ports.iter().filter_map(number).collect();
        Self { entry, addresses, ports }
    }

    /// Why this cordon applies to an instance; `None` if it does not.
    fn covers(&self, instance: &str, pod: Option<&str>, placement: &Placement) -> Option<String> {
        let Self { entry, .. } = self;
        let CordonedInstance { name, reason, .. } = entry;
        if *instance == **name {
            return Some(told(reason));
        }
        if pod.is_some() && pod == entry.pod.as_deref() {
            return Some(format!("its Pod is that of {name}, {}", told(reason)));
        }
        let address = placement.addresses.iter().find(|address| self.is_at(**address))?;
        let mut ports = placement.ports.ports().iter();
        let shares_a_port =
            self.ports.is_empty() || ports.any(|port| self.ports.contains(&port.port));
        (pod.is_none() && shares_a_port)
            .then(|| format!("its address {address} is that of {name}, {}", told(reason)))
    }

    fn is_at(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}

/// Why an instance is cordoned, if a stored cordon applies to it.
pub(super) fn covering(
    cordons: &[Cordon],
    instance: &str,
    pod: Option<&str>,
    placement: &Placement,
) -> Option<String> {
    cordons.iter().find_map(|cordon| cordon.covers(instance, pod, placement))
}

/// The stored cordon of an instance with this name, if there is one.
pub(super) fn named<'a>(cordons: &'a [Cordon], instance: &str) -> Option<&'a CordonedInstance> {
    cordons.iter().map(|cordon| &cordon.entry).find(|entry| entry.name == instance)
}

/// The message for a cordon.
pub(super) fn told(reason: &str) -> String {
    match reason {
        "" => "taken out by an operator".to_owned(),
        reason => format!("taken out by an operator: {reason}"),
    }
}

fn parsed(addresses: &[String]) -> Vec<IpAddr> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

fn add(known: &mut Vec<IpAddr>, more: impl Iterator<Item = IpAddr>) {
    for address in more {
        if known.len() < CORDONED_ADDRESSES_MAX && !known.contains(&address) {
            known.push(address);
        }
    }
}
