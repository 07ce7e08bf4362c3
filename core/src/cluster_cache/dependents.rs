//! Which registrations are affected by a change elsewhere in the cluster.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::vocabulary::{address::AddressSet, key::Key};

/// What a decision asks of the cluster, apart from objects that name the registration themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The addresses of outside instances.
    pub(crate) addresses: AddressSet,
    /// The Nodes of its Pods.
    pub(crate) nodes: BTreeSet<String>,
}

/// What all registrations have asked.
#[derive(Debug, Default)]
pub struct Dependents {
    asked: HashMap<Key, Asked>,
    /// Registrations to wake that the caller has not taken yet.
    affected: BTreeSet<Key>,
    /// Registrations for which an answer has changed since they asked for all that they depend on.
    outdated: BTreeSet<Key>,
    /// How many answers each registration has asked for since it last asked for all.
    added: HashMap<Key, usize>,
}

/// After so many further questions a registration has to ask for all that it depends on, and only that is remembered.
const ADDED_MAX: usize = 4_096;

impl Dependents {
    /// Records what a registration asks, and replaces what it asked before. Must be called before the questions are
    /// asked, so that no change is missed in between.
    pub fn note(&mut self, registration: &Key, asked: Asked) {
        self.outdated.remove(registration);
        self.added.remove(registration);
        if asked == Asked::default() {
            self.asked.remove(registration);
        } else if self.asked.get(registration) != Some(&asked) {
            self.asked.insert(registration.clone(), asked);
        }
    }

    /// Records what a registration asks in addition to what it asked before. Must be called before the questions are
    /// asked, too.
    pub fn add(&mut self, registration: &Key, Asked { addresses, nodes }: Asked) {
        if addresses.is_empty() && nodes.is_empty() {
            return;
        }
        let known = self.asked.entry(registration.clone()).or_default();
        let before = known.addresses.len() + known.nodes.len();
        known.addresses.extend(addresses);
        known.nodes.extend(nodes);
        let added = self.added.entry(registration.clone()).or_default();
        *added += known.addresses.len() + known.nodes.len() - before;
        if *added > ADDED_MAX {
            self.outdated.insert(registration.clone());
        }
    }

    /// Whether an answer has changed since a registration last asked for all that it depends on.
    pub fn is_outdated(&self, registration: &Key) -> bool {
        self.outdated.contains(registration)
    }

    /// Forgets a registration.
    pub fn forget(&mut self, registration: &Key) {
        self.outdated.remove(registration);
        self.added.remove(registration);
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
        for (key, _) in affected {
            self.affected.insert(key.clone());
            self.outdated.insert(key.clone());
        }
    }

    /// The registrations that are affected by changes since the last call.
    pub fn take_affected(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.affected)
    }
}
