//! Which objects carry the annotation of which registration.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{objects::marks::Marked, vocabulary::key::Key};

/// The kinds of objects that the operator creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A slice.
    EndpointSlice,
    /// An Endpoints object.
    Endpoints,
    /// A Service.
    Service,
}

/// An object that belonged to a registration that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Abandoned {
    /// The kind of the object.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// The registration that it belonged to.
    pub registration: Key,
    /// The uid of that registration.
    pub owner: String,
    /// The Service that the object is for, if it still says so.
    pub service: Option<Key>,
    /// Whether the object is to stay, as `--cascade=orphan` requests.
    pub orphaned: bool,
}

/// The objects that carry the annotation of a registration.
#[derive(Debug)]
pub(super) struct Belonging {
    pub(super) registration: Key,
    /// Each object, and whether its annotation contains the namespace. Earlier versions did not write the namespace.
    pub(super) objects: BTreeMap<(Kind, Key), bool>,
    /// Whether this process has seen the registration in this namespace.
    pub(super) witnessed: bool,
}

/// Which objects carry the annotation of which registration. The keys consist of the namespace of the objects and the
/// uid of the registration in place of a name, because a copy in another namespace may carry the same uid.
#[derive(Debug, Default)]
pub(super) struct Belongings {
    pub(super) of: HashMap<Key, Belonging>,
    /// The entries without an existing registration. Only these are checked repeatedly.
    pub(super) without: BTreeSet<Key>,
    /// Registrations that leave their objects behind on purpose.
    pub(super) let_go: HashSet<Key>,
    /// How many registrations were looked at.
    #[cfg(test)]
    pub(super) steps: std::cell::Cell<usize>,
}

impl Belongings {
    /// Notes that a registration is being deleted and that its objects are to stay.
    pub(super) fn let_go(&mut self, place: &Key) {
        self.let_go.insert(place.clone());
    }

    /// Notes that a registration exists.
    pub(super) fn appeared(&mut self, place: &Key) {
        self.without.remove(place);
        if let Some(belonging) = self.of.get_mut(place) {
            belonging.witnessed = true;
        }
    }

    /// Notes that a registration no longer exists.
    pub(super) fn went(&mut self, place: &Key) {
        match self.of.contains_key(place) {
            true => drop(self.without.insert(place.clone())),
            false => drop(self.let_go.remove(place)),
        }
    }

    pub(super) fn put(&mut self, object: (Kind, Key), marked: Marked<'_>, lives: bool) {
        let namespace = &object.1.namespace;
        let place = Key::new(namespace, marked.uid);
        let belonging = self.of.entry(place.clone()).or_insert_with(|| Belonging {
            registration: Key::new(namespace, marked.name),
            objects: BTreeMap::new(),
            witnessed: false,
        });
        belonging.witnessed |= lives;
        belonging.objects.insert(object, marked.namespace.is_some());
        if !lives {
            self.without.insert(place);
        }
    }

    pub(super) fn remove(&mut self, object: &(Kind, Key), uid: &str) {
        let place = Key::new(&object.1.namespace, uid);
        let Some(belonging) = self.of.get_mut(&place) else { return };
        belonging.objects.remove(object);
        if belonging.objects.is_empty() {
            self.of.remove(&place);
            if self.without.remove(&place) {
                self.let_go.remove(&place);
            }
        }
    }
}
