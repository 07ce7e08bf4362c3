//! Cordons: instances that a person has removed from what is published.
//!
//! The annotation on a Lease sets a cordon. But a Lease belongs to its workload: it may be deleted when the workload
//! restarts, collected as garbage, or created again; or another instance takes the address under another name. So a
//! cordon is stored in the status of its registration. It applies by name and by address until the annotation is
//! removed from a Lease that had it.

use std::{collections::BTreeMap, net::IpAddr};

use beatkeeper_api::{CordonedInstance, heartbeat, status::CORDONED_INSTANCES_MAX};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    liveness::index::{
        Index, Record,
        cordon_notes::{Unmarked, add, parsed},
    },
    objects::registration::{PortTemplate, Registration, TargetPort},
    vocabulary::{key::Key, placement::Placement},
};

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
pub(crate) fn covering(
    cordons: &[Cordon],
    instance: &str,
    pod: Option<&str>,
    placement: &Placement,
) -> Option<String> {
    cordons.iter().find_map(|cordon| cordon.covers(instance, pod, placement))
}

/// The stored cordon of an instance with this name, if there is one.
pub(crate) fn named<'a>(cordons: &'a [Cordon], instance: &str) -> Option<&'a CordonedInstance> {
    cordons.iter().map(|cordon| &cordon.entry).find(|entry| entry.name == instance)
}

/// The message for a cordon.
pub(crate) fn told(reason: &str) -> String {
    match reason {
        "" => "taken out by an operator".to_owned(),
        reason => format!("taken out by an operator: {reason}"),
    }
}
