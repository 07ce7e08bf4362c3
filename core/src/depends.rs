//! Which registrations a change elsewhere in the cluster concerns.
//!
//! A decision asks whose an address is, and in which zone a Node lies. Neither names the registration
//! that asked. So each registration notes what it asks for before it asks, and a change wakes exactly
//! those that did. Without that, an instance that was refused an address would wait for the next
//! decision that something else brings about, which may be minutes away where it is the only one.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    address::{Named, OutsideRanges},
    heartbeat::Origin,
    index::{Key, Record},
    registration::Registration,
    stage::Stage,
};

/// What a decision asks of the cluster, besides what names the registration itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The addresses of outside instances.
    addresses: Box<[IpAddr]>,
    /// The Nodes of its Pods.
    nodes: BTreeSet<String>,
}

impl Asked {
    /// What the next decision about these will ask. Of addresses only those that lie in an allowed
    /// range: for others it makes no difference whose they are, and a Lease may name many.
    pub fn of(
        registration: &Registration,
        records: &[Record],
        stage: &Stage,
        ranges: &OutsideRanges,
        nodes: BTreeSet<String>,
    ) -> Self {
        let ranges = ranges.of(&registration.key.namespace);
        if ranges.is_empty() {
            return Self { addresses: Box::default(), nodes };
        }
        let declared = registration.declared.values().flat_map(|instance| &instance.addresses);
        let adopted = stage.adoption.instances.iter().map(|adopted| adopted.address);
        let outside = records.iter().filter(|record| record.claim.origin == Origin::Outside);
        let named = outside.flat_map(|record| &record.claim.addresses);
        let earlier = stage.frozen().into_iter().flat_map(|earlier| earlier.all());
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
    /// Registrations to be woken that the caller has not taken yet.
    affected: BTreeSet<Key>,
}

impl Dependents {
    /// Notes what a registration asks, in the place of what it asked before. To be called before it
    /// asks, so that no change falls in between.
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

    /// An address has another owner, or none any more.
    pub fn address_changed(&mut self, address: IpAddr) {
        self.affect(|asked| asked.addresses.contains(&address));
    }

    /// A Node lies in another zone than was known.
    pub fn node_changed(&mut self, node: &str) {
        self.affect(|asked| asked.nodes.contains(node));
    }

    fn affect(&mut self, depends: impl Fn(&Asked) -> bool) {
        let affected = self.asked.iter().filter(|(_, asked)| depends(asked));
        self.affected.extend(affected.map(|(key, _)| key.clone()));
    }

    /// The registrations that the changes since the last call concern.
    pub fn take_affected(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.affected)
    }
}
