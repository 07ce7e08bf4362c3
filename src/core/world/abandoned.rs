//! What belonged to a registration that is gone, and that no other takes over.

use std::collections::{BTreeSet, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{World, label, owner_of};
use crate::core::{
    index::Key,
    plan::meta::{SERVICE_NAME_LABEL, owned_by},
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

/// A registration, and the objects that carry its annotation.
type Belonging = (Key, BTreeSet<(Kind, Key)>);

/// Which objects carry the annotation of which registration.
#[derive(Debug, Default)]
pub(super) struct Belongings {
    /// By the namespace and the registration's uid, with its name. A copy in another namespace says the same uid.
    of: HashMap<(String, String), Belonging>,
    /// Registrations whose objects are to stay.
    let_go: HashSet<String>,
}

impl Belongings {
    /// A registration is deleted, and what belongs to it is to stay.
    pub(super) fn let_go(&mut self, uid: &str) {
        self.let_go.insert(uid.to_owned());
    }

    fn note(&mut self, uid: &str, registration: Key, object: (Kind, Key), present: bool) {
        let place = (registration.namespace.clone(), uid.to_owned());
        let (_, objects) =
            self.of.entry(place.clone()).or_insert_with(|| (registration, BTreeSet::new()));
        if present {
            objects.insert(object);
        } else {
            objects.remove(&object);
        }
        if objects.is_empty() {
            self.of.remove(&place);
        }
    }
}

impl World {
    /// An object is there now, or is no longer: what it says of its owner is noted. An owner
    /// reference is the garbage collector's to follow, so it does not count.
    pub(super) fn note_owner(
        &mut self,
        kind: Kind,
        key: &Key,
        owner: Option<(&str, &str)>,
        present: bool,
    ) {
        if let Some((uid, name)) = owner {
            let registration = Key::new(&key.namespace, name);
            self.belongings.note(uid, registration, (kind, key.clone()), present);
        }
    }

    /// What belongs to registrations of a namespace, or of all, that are gone, and is for a Service that no
    /// other registration names. Of other namespaces objects may be known, but no registrations. Costs a
    /// look-up for each registration.
    pub fn abandoned(&mut self, namespace: Option<&str>) -> Vec<Abandoned> {
        let Belongings { of, let_go } = &mut self.belongings;
        let registrations = &self.registrations;
        let lives = |uid: &str, key: &Key| registrations.get(key).is_some_and(|it| it.uid == uid);
        let_go.retain(|uid| {
            of.keys().any(|(_, it)| it == uid)
                || registrations.values().any(|brief| brief.uid == *uid)
        });
        let concerns = |key: &Key| namespace.is_none_or(|namespace| key.namespace == namespace);
        // What says the uid of one that lives in another namespace is a copy, and its maker's (P6).
        let is_copy = |uid: &str| registrations.values().any(|it| it.uid == uid);
        let dead = of
            .iter()
            .filter(|((_, uid), (key, _))| concerns(key) && !lives(uid, key) && !is_copy(uid));
        let mut found = Vec::new();
        for ((_, uid), (registration, objects)) in dead {
            for (kind, key) in objects {
                let service = match kind {
                    Kind::EndpointSlice => self.slices.get(key).and_then(|slice| {
                        let service = label(&slice.metadata, SERVICE_NAME_LABEL)?;
                        Some(Key::new(&key.namespace, service))
                    }),
                    Kind::Endpoints | Kind::Service => Some(key.clone()),
                };
                if service.as_ref().is_some_and(|it| self.by_service.contains_key(it)) {
                    continue;
                }
                found.push(Abandoned {
                    kind: *kind,
                    key: key.clone(),
                    registration: registration.clone(),
                    owner: uid.clone(),
                    service,
                    orphaned: let_go.contains(uid),
                });
            }
        }
        found
    }
}

/// Uid and name of the registration that an object belongs to by our annotation.
pub(super) fn annotated(metadata: &ObjectMeta) -> Option<(&str, &str)> {
    owned_by(metadata).and(owner_of(metadata))
}
