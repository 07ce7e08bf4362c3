//! Objects of a registration that is gone, and that no other registration takes over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{ClusterCache, label};
use crate::{
    index::Key,
    plan::meta::{Marked, SERVICE_NAME_LABEL},
};

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
struct Belonging {
    registration: Key,
    /// Each object, and whether its annotation contains the namespace. Earlier versions did not write the namespace.
    objects: BTreeMap<(Kind, Key), bool>,
    /// Whether this process has seen the registration in this namespace.
    witnessed: bool,
}

/// Which objects carry the annotation of which registration. The keys consist of the namespace of the objects and the
/// uid of the registration in place of a name, because a copy in another namespace may carry the same uid.
#[derive(Debug, Default)]
pub(super) struct Belongings {
    of: HashMap<Key, Belonging>,
    /// The entries without an existing registration. Only these are checked repeatedly.
    without: BTreeSet<Key>,
    /// Registrations that leave their objects behind on purpose.
    let_go: HashSet<Key>,
    /// How many registrations were looked at.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
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

    fn put(&mut self, object: (Kind, Key), marked: Marked<'_>, lives: bool) {
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

    fn remove(&mut self, object: &(Kind, Key), uid: &str) {
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

impl ClusterCache {
    /// Notes the owner of an object that has changed, as our annotation names it. An owner reference does not count,
    /// because the garbage collector handles it.
    pub(super) fn note_owner(
        &mut self,
        kind: Kind,
        key: &Key,
        old: Option<Marked<'_>>,
        new: Option<Marked<'_>>,
    ) {
        let object = (kind, key.clone());
        if let Some(marked) = new {
            let registration = Key::new(&key.namespace, marked.name);
            let lives = self.registrations.live(&registration, marked.uid);
            self.belongings.put(object.clone(), marked, lives);
        }
        if let Some(marked) = old.filter(|old| new.is_none_or(|new| new.uid != old.uid)) {
            self.belongings.remove(&object, marked.uid);
        }
    }

    /// The objects that belonged to a registration that is gone, and that are for a Service that no other registration
    /// names. `namespace` restricts them to one namespace; None means all. It has to be given if objects of other
    /// namespaces are known but the registrations of those namespaces are not. The cost is one look-up for each
    /// registration that is gone and has left objects.
    ///
    /// Earlier versions wrote an annotation without the namespace. Such an annotation may have been copied from another
    /// namespace together with its object. So the object is abandoned only if this process has itself seen its
    /// registration in the namespace of the object. The other objects stay ([`ClusterCache::undecided`]), because an object
    /// too many costs less than the loss of a user's object.
    pub fn abandoned(&self, namespace: Option<&str>) -> Vec<Abandoned> {
        self.left_behind(namespace, |says_namespace, witnessed| says_namespace || witnessed)
    }

    /// The objects that would be [abandoned](ClusterCache::abandoned), but are not, because each of them may be a copy.
    pub fn undecided(&self, namespace: Option<&str>) -> Vec<Abandoned> {
        self.left_behind(namespace, |says_namespace, witnessed| !says_namespace && !witnessed)
    }

    /// How many registrations these searches have looked at.
    #[cfg(test)]
    pub fn looked_at(&self) -> usize {
        self.belongings.steps.get()
    }

    fn left_behind(
        &self,
        namespace: Option<&str>,
        counts: impl Fn(bool, bool) -> bool,
    ) -> Vec<Abandoned> {
        let Belongings { of, without, let_go, .. } = &self.belongings;
        let from = Key::new(namespace.unwrap_or_default(), "");
        let concerns = |place: &&Key| namespace.is_none_or(|it| place.namespace == it);
        let mut found = Vec::new();
        for place in without.range(from..).take_while(concerns) {
            #[cfg(test)]
            self.belongings.steps.update(|steps| steps + 1);
            let Some(Belonging { registration, objects, witnessed }) = of.get(place) else {
                continue;
            };
            for ((kind, key), says_namespace) in objects {
                let service = match kind {
                    Kind::EndpointSlice => self.slices.get(key).and_then(|slice| {
                        let service = label(&slice.metadata, SERVICE_NAME_LABEL)?;
                        Some(Key::new(&key.namespace, service))
                    }),
                    Kind::Endpoints | Kind::Service => Some(key.clone()),
                };
                let is_wanted =
                    service.as_ref().is_some_and(|it| self.registrations.name_service(it));
                if is_wanted || !counts(*says_namespace, *witnessed) {
                    continue;
                }
                found.push(Abandoned {
                    kind: *kind,
                    key: key.clone(),
                    registration: registration.clone(),
                    owner: place.name.clone(),
                    service,
                    orphaned: let_go.contains(place),
                });
            }
        }
        found
    }
}
