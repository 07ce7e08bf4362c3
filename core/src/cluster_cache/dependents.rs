//! Which registrations are affected by a change elsewhere in the cluster.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use crate::vocabulary::key::Key;

/// What a decision asks of the cluster, apart from objects that name the registration themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The addresses of outside instances.
    pub(crate) addresses: Box<[IpAddr]>,
    /// The Nodes of its Pods.
    pub(crate) nodes: BTreeSet<String>,
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
