//! What belonged to a registration that is gone, and that no other takes over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{World, label};
use crate::{
    index::Key,
    plan::meta::{Marked, SERVICE_NAME_LABEL},
};

/// The kinds of objects that the operator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A slice.
    EndpointSlice,
    /// An Endpoints object.
    Endpoints,
    /// A Service.
    Service,
}

/// An object whose registration is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Abandoned {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub key: Key,
    /// The registration that it belonged to.
    pub registration: Key,
    /// The uid of that registration.
    pub owner: String,
    /// The Service that it is for, where it still says so.
    pub service: Option<Key>,
    /// Whether it is to stay, as `--cascade=orphan` asks for.
    pub orphaned: bool,
}

/// The objects that carry the annotation of a registration.
#[derive(Debug)]
struct Belonging {
    registration: Key,
    /// Each with whether its annotation says the namespace. Earlier versions did not write that.
    objects: BTreeMap<(Kind, Key), bool>,
    /// Whether this process has seen the registration in this namespace.
    witnessed: bool,
}

/// Which objects carry the annotation of which registration. Kept by the namespace of the objects with the uid of the
/// registration in place of a name: a copy in another namespace may say the same uid.
#[derive(Debug, Default)]
pub(super) struct Belongings {
    of: HashMap<Key, Belonging>,
    /// Those whose registration is not there: only they are looked at again and again.
    without: BTreeSet<Key>,
    /// Registrations whose objects are to stay.
    let_go: HashSet<Key>,
    /// How many registrations were looked at.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl Belongings {
    /// A registration is deleted, and what belongs to it is to stay.
    pub(super) fn let_go(&mut self, place: &Key) {
        self.let_go.insert(place.clone());
    }

    /// A registration is there.
    pub(super) fn appeared(&mut self, place: &Key) {
        self.without.remove(place);
        if let Some(belonging) = self.of.get_mut(place) {
            belonging.witnessed = true;
        }
    }

    /// A registration is there no more.
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

impl World {
    /// An object has changed: what it says of its owner by our annotation is noted. An owner reference is the garbage
    /// collector's to follow, so it does not count.
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

    /// What belongs to registrations of a namespace, or of all, that are gone, and is for a Service that no
    /// other registration names. Of other namespaces objects may be known, but no registrations. Costs a
    /// look-up for each registration that is gone and has left something.
    ///
    /// An annotation that does not say its namespace, as earlier versions wrote it, may have been copied from another
    /// namespace with the object. So such an object is abandoned only where this process has itself seen its registration
    /// in the object's namespace. The others stay ([`World::undecided`]): an object too many costs less than one of a user.
    pub fn abandoned(&self, namespace: Option<&str>) -> Vec<Abandoned> {
        self.left_behind(namespace, |says_namespace, witnessed| says_namespace || witnessed)
    }

    /// What would be [abandoned](World::abandoned), and is not since it may be a copy.
    pub fn undecided(&self, namespace: Option<&str>) -> Vec<Abandoned> {
        self.left_behind(namespace, |says_namespace, witnessed| !says_namespace && !witnessed)
    }

    /// How many registrations were looked at for all of that.
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
