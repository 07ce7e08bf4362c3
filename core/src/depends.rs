//! Which registrations are affected by a change elsewhere in the cluster.
//!
//! A decision asks which object has an address, and in which zone a Node is. Neither object names the registration
//! that asked. So each registration records its questions before it asks them, and a change wakes exactly the
//! registrations that asked. Otherwise an instance with a refused address would wait until something else causes the
//! next decision. That may take minutes if it is the only instance.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    address::{Named, OutsideRanges},
    heartbeat::Origin,
    index::{Key, Record},
    inputs::Inputs,
    registration::Registration,
};

/// What a decision asks of the cluster, apart from objects that name the registration themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The addresses of outside instances.
    addresses: Box<[IpAddr]>,
    /// The Nodes of its Pods.
    nodes: BTreeSet<String>,
}

impl Asked {
    /// What the next decision about these objects will ask. Only addresses in an allowed range are recorded. For other
    /// addresses, their owner makes no difference, and a Lease may name many of them.
    pub fn of(
        registration: &Registration,
        records: &[Record],
        inputs: &Inputs,
        ranges: &OutsideRanges,
        nodes: BTreeSet<String>,
    ) -> Self {
        let ranges = ranges.of(&registration.key.namespace);
        if ranges.is_empty() {
            return Self { addresses: Box::default(), nodes };
        }
        let declared = registration.declared.values().flat_map(|instance| &instance.addresses);
        let adopted = inputs.adoption.instances.iter().map(|adopted| adopted.address);
        let outside = records.iter().filter(|record| record.content.origin == Origin::Outside);
        let named = outside.flat_map(|record| &record.content.addresses);
        let earlier = inputs.frozen().into_iter().flat_map(|earlier| earlier.all());
        let named = named.chain(earlier).filter_map(|named| match named {
            Named::Address(address) => Some(*address),
            Named::Other(_) => None,
        });
        let addresses = named
            .chain(declared.filter_map(|text| text.parse().ok()))
            .chain(adopted)
            .filter(|address| ranges.iter().any(|range| range.contains(address)));
        Self { addresses: addresses.collect(), nodes }
    }
}

/// What all registrations have asked.
#[derive(Debug, Default)]
pub struct Dependents {
    asked: HashMap<Key, Asked>,
    /// Registrations to wake that the caller has not taken yet.
    affected: BTreeSet<Key>,
}

impl Dependents {
    /// Records what a registration asks, and replaces what it asked before. Must be called before the questions are
    /// asked, so that no change is missed in between.
    pub fn note(&mut self, registration: &Key, asked: Asked) {
        if asked == Asked::default() {
            self.asked.remove(registration);
        } else if self.asked.get(registration) != Some(&asked) {
            self.asked.insert(registration.clone(), asked);
        }
    }

    /// Forgets a registration.
    pub fn forget(&mut self, registration: &Key) {
        self.asked.remove(registration);
        self.affected.remove(registration);
    }

    /// An address has another owner, or none.
    pub fn address_changed(&mut self, address: IpAddr) {
        self.affect(|asked| asked.addresses.contains(&address));
    }

    /// The known zone of a Node has changed.
    pub fn node_changed(&mut self, node: &str) {
        self.affect(|asked| asked.nodes.contains(node));
    }

    fn affect(&mut self, depends: impl Fn(&Asked) -> bool) {
        let affected = self.asked.iter().filter(|(_, asked)| depends(asked));
        self.affected.extend(affected.map(|(key, _)| key.clone()));
    }

    /// The registrations that are affected by changes since the last call.
    pub fn take_affected(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.affected)
    }
}
