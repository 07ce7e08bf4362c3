//! A picture that follows the changes of objects.
//!
//! Most changes are beats. A beat changes the time of one instance in place; everything else has its registration put
//! together again, at most once for each frame.

use std::collections::{BTreeMap, BTreeSet};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::vocabulary::key::Key;
use jiff::{SignedDuration, Timestamp};

use super::{
    assemble,
    beat::Beat,
    change::{Change, Object},
    kind::Kind,
    lease::SeenLease,
    registration::Picture,
    store::Store,
};

/// A picture that follows changes.
#[derive(Debug, Default)]
pub struct Live {
    store: Store,
    picture: Picture,
    /// The name of the only registration that is wanted.
    only: Option<String>,
    /// The registrations to be put together again.
    dirty: BTreeSet<Key>,
    /// Whether registrations have come or gone.
    is_new: bool,
    /// What the lists under way have brought.
    listing: BTreeMap<Kind, BTreeSet<Key>>,
    /// The kinds that were listed completely.
    listed: BTreeSet<Kind>,
    /// The watches that have failed, and why.
    failing: BTreeMap<Kind, String>,
}

impl Live {
    /// A picture of one registration, or of all.
    pub fn of(only: Option<String>) -> Self {
        Self { only, ..Self::default() }
    }

    /// The picture, as it was last refreshed; its beats are the latest.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// The objects that are known.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The watches that fail at present, and why.
    pub fn failing(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.failing.iter().map(|(kind, why)| (*kind, why.as_str()))
    }

    /// Whether each kind was listed completely, or refused.
    pub fn is_complete(&self) -> bool {
        let mut kinds = Kind::OTHERS.into_iter().chain([Kind::ServiceRegistration]);
        kinds.all(|kind| self.listed.contains(&kind) || self.failing.contains_key(&kind))
    }

    /// Whether the rows have to be laid out again.
    pub fn is_dirty(&self) -> bool {
        self.is_new || !self.dirty.is_empty()
    }

    /// Takes a change in. `now` is the time of the API server.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::ListBegins(kind) => {
                self.listing.insert(kind, BTreeSet::new());
            }
            Change::Listed(object) => {
                let (kind, key) = identity(&object);
                if let Some(seen) = self.listing.get_mut(&kind) {
                    seen.insert(key);
                }
                self.put(object, None);
            }
            Change::ListEnds(kind) => {
                let seen = self.listing.remove(&kind).unwrap_or_default();
                let gone: Vec<Key> =
                    self.known(kind).into_iter().filter(|key| !seen.contains(key)).collect();
                gone.iter().for_each(|key| self.remove(kind, key));
                self.listed.insert(kind);
                if self.failing.remove(&kind).is_some() {
                    self.touch_all();
                }
                self.store.unread.retain(|unread| unread.what != kind.as_str());
            }
            Change::Changed(object) => {
                self.failing.remove(&identity(&object).0);
                self.put(object, Some(now));
            }
            Change::Gone(kind, key) => self.remove(kind, &key),
            Change::Unreadable { what, why } => {
                self.store.note_unread(what, why);
                self.is_new = true;
            }
            Change::Failed(kind, why) => {
                if !self.listed.contains(&kind) {
                    self.store.note_unread(kind.as_str(), why.clone());
                    self.is_new = true;
                }
                self.failing.insert(kind, why);
            }
        }
    }

    /// Puts the registrations together again that have changed; all of them, if the time alone may have changed them.
    pub fn refresh(&mut self, now: Timestamp, all: bool) {
        if all || self.is_new {
            self.picture = assemble::picture(&self.store, now);
        } else {
            for key in &self.dirty {
                let Some(object) = self.store.registrations.get(key) else { continue };
                let place = self.picture.registrations.binary_search_by(|it| it.key.cmp(key));
                if let Ok(place) = place {
                    let view = assemble::registration(&self.store, object, now);
                    self.picture.registrations[place] = view;
                }
            }
        }
        self.is_new = false;
        self.dirty.clear();
    }

    fn touch_all(&mut self) {
        self.is_new = true;
    }

    /// Adds an object, or replaces it. `at` is when a watch has brought it; `None` for one of a list.
    fn put(&mut self, object: Object, at: Option<Timestamp>) {
        match object {
            Object::Registration(object) => {
                let key = Key::of(&object.metadata);
                if self.only.as_ref().is_some_and(|only| *only != key.name) {
                    return;
                }
                let known = self.store.registrations.insert(key.clone(), *object);
                self.is_new |= known.is_none();
                self.dirty.insert(key);
            }
            Object::Lease(lease) => self.put_lease(*lease, at),
            Object::Pod(pod) => {
                let key = self.store.put_pod(&pod);
                self.touch_namespace(&key.namespace);
            }
            Object::Slice(slice) => {
                if let Some(service) = self.store.put_slice(*slice) {
                    self.touch_service(&service);
                }
            }
            Object::Service(service) => {
                let key = Key::of(&service.metadata);
                self.store.services.insert(key.clone(), *service);
                self.touch_service(&key);
            }
            Object::Endpoints(endpoints) => {
                let key = Key::of(&endpoints.metadata);
                self.store.endpoints.insert(key.clone(), *endpoints);
                self.touch_service(&key);
            }
        }
    }

    fn put_lease(&mut self, mut lease: SeenLease, at: Option<Timestamp>) {
        let registration = lease.heartbeat.registration.clone();
        let key = Key::new(&*lease.key.namespace, registration.unwrap_or_default());
        let known = self.store.leases.get(&key).and_then(|leases| leases.get(&lease.key.name));
        // The watch shows when the beat came, whatever the clocks of others say.
        if let (Some(now), Some(known), Some(beat)) = (at, known, lease.beat.as_mut()) {
            if known.heartbeat.token != lease.heartbeat.token {
                beat.at = now;
            } else if let Some(before) = known.beat {
                *beat = before;
            }
        }
        let is_beat = known.is_some_and(|known| known.differs_only_in_beat(&lease));
        let (name, beat) = (lease.key.name.clone(), lease.beat);
        self.store.put_lease(lease);
        if is_beat {
            self.set_beat(&key, &name, beat);
        } else {
            self.dirty.insert(key);
        }
    }

    fn set_beat(&mut self, key: &Key, lease: &str, beat: Option<Beat>) {
        let place = self.picture.registrations.binary_search_by(|it| it.key.cmp(key));
        let Ok(place) = place else { return };
        let view = &mut self.picture.registrations[place];
        let overdue_after = view.overdue_after();
        let name = beatkeeper_api::heartbeat::instance_of(lease, &key.name).unwrap_or(lease);
        if let Some(instance) = view.instance_mut(name) {
            let was_late = instance.beat.zip(beat).is_some_and(|(before, now)| {
                let pause = now.at.duration_since(before.at);
                pause > SignedDuration::try_from(overdue_after).unwrap_or(SignedDuration::MAX)
            });
            instance.beat = beat;
            if was_late {
                self.dirty.insert(key.clone());
            }
        }
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::ServiceRegistration => {
                self.is_new |= self.store.registrations.remove(key).is_some();
            }
            Kind::Lease => {
                let mut of = self.store.leases.iter_mut();
                let found = of.find(|(it, leases)| {
                    it.namespace == key.namespace && leases.contains_key(&key.name)
                });
                if let Some((registration, leases)) = found {
                    leases.remove(&key.name);
                    self.dirty.insert(registration.clone());
                }
            }
            Kind::Pod => {
                self.store.pods.remove(key);
                self.touch_namespace(&key.namespace);
            }
            Kind::EndpointSlice => {
                let mut of = self.store.slices.iter_mut();
                let found = of.find(|(it, slices)| {
                    it.namespace == key.namespace && slices.contains_key(&key.name)
                });
                if let Some((service, slices)) = found {
                    slices.remove(&key.name);
                    let service = service.clone();
                    self.touch_service(&service);
                }
            }
            Kind::Service => {
                self.store.services.remove(key);
                self.touch_service(key);
            }
            Kind::Endpoints => {
                self.store.endpoints.remove(key);
                self.touch_service(key);
            }
        }
    }

    /// The keys of the objects of a kind that are known.
    fn known(&self, kind: Kind) -> Vec<Key> {
        let nested = |key: &Key, names: &mut dyn Iterator<Item = &String>| -> Vec<Key> {
            names.map(|name| Key::new(&*key.namespace, &**name)).collect()
        };
        match kind {
            Kind::ServiceRegistration => self.store.registrations.keys().cloned().collect(),
            Kind::Lease => {
                let all = self.store.leases.iter();
                all.flat_map(|(key, leases)| nested(key, &mut leases.keys())).collect()
            }
            Kind::Pod => self.store.pods.keys().cloned().collect(),
            Kind::EndpointSlice => {
                let all = self.store.slices.iter();
                all.flat_map(|(key, slices)| nested(key, &mut slices.keys())).collect()
            }
            Kind::Service => self.store.services.keys().cloned().collect(),
            Kind::Endpoints => self.store.endpoints.keys().cloned().collect(),
        }
    }

    fn of_service<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Key> {
        let is_of = |(it, object): &(&Key, &ServiceRegistration)| {
            it.namespace == key.namespace && object.service_name() == key.name
        };
        self.store.registrations.iter().filter(is_of).map(|(it, _)| it)
    }

    fn touch_service(&mut self, key: &Key) {
        let touched: Vec<Key> = self.of_service(key).cloned().collect();
        self.dirty.extend(touched);
    }

    fn touch_namespace(&mut self, namespace: &str) {
        let keys = self.store.registrations.keys();
        let touched: Vec<Key> = keys.filter(|key| key.namespace == namespace).cloned().collect();
        self.dirty.extend(touched);
    }
}

/// The kind and the key of an object.
fn identity(object: &Object) -> (Kind, Key) {
    match object {
        Object::Registration(it) => (Kind::ServiceRegistration, Key::of(&it.metadata)),
        Object::Lease(it) => (Kind::Lease, it.key.clone()),
        Object::Pod(it) => (Kind::Pod, Key::of(&it.metadata)),
        Object::Slice(it) => (Kind::EndpointSlice, Key::of(&it.metadata)),
        Object::Service(it) => (Kind::Service, Key::of(&it.metadata)),
        Object::Endpoints(it) => (Kind::Endpoints, Key::of(&it.metadata)),
    }
}
