//! A cache of one kind of object: what the watch has shown, together with the results of our own writes.
//!
//! While a watch continues, the newer resourceVersion wins. So a decision never relies on an object that is older than
//! what this process itself has written (kubernetes 124547: a stale cache says "equal"). Nor does it rely on an answer
//! that the watch has overtaken.
//!
//! A list wins over everything that was known before the list began, because the list is requested after that and is
//! answered with the newest state. If it shows a lower version than was known, the list is not late. The store has
//! returned to an earlier state, from a backup (kubernetes 82428), and the known versions mean nothing any more. Only
//! an answer to a write of ours that arrived *since* the list began may be newer than the list.
//!
//! A list comes in parts. An object that was not known before it appears when the list has ended, at the moment at which
//! those go that it did not show. Otherwise a list of an earlier state would show an object that is gone beside the one
//! that has replaced it, and a plan would take the second one for superfluous (P3).

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    cluster_cache::deliveries::{Deliveries, PendingDelivery},
    objects::decode::Unreadable,
    vocabulary::{
        key::{Key, in_namespace},
        version::Version,
    },
};

/// Objects of one kind by namespace and name.
#[derive(Debug)]
pub struct ObjectCache<V> {
    objects: HashMap<Key, (Version, V)>,
    /// Objects that we deleted, with the version that they had. If the watch shows such an object up to that version,
    /// the event is late.
    deleted: HashMap<Key, Version>,
    /// While a list is being read.
    listing: Option<Listing<V>>,
    /// The newest version of any object that the watch has shown since the last list began.
    shown: Version,
    deliveries: Deliveries,
    /// Whether a rollback of versions was noticed.
    went_back: bool,
    /// Objects with a newest version that cannot be read. What was known of them before stays in the cache.
    unreadable: BTreeMap<Key, Unreadable>,
}

/// What has come of a list.
#[derive(Debug)]
struct Listing<V> {
    /// The objects that the list, or a write of ours, has shown since it began.
    shown: HashSet<Key>,
    /// Those of them that were not known before.
    unknown: BTreeMap<Key, (Version, V)>,
}

impl<V> Default for ObjectCache<V> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            deleted: HashMap::new(),
            listing: None,
            shown: Version(0),
            deliveries: Deliveries::default(),
            went_back: false,
            unreadable: BTreeMap::new(),
        }
    }
}

/// A change of one object: its old and its new content.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<V> {
    pub key: Key,
    pub old: Option<V>,
    pub new: Option<V>,
}

impl<V: Clone + PartialEq> ObjectCache<V> {
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.objects.get(key).map(|(_, value)| value)
    }

    /// Takes in an object that the watch shows at a version. Returns None if the event is outdated or changes nothing.
    pub fn put(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        self.shown = self.shown.max(version);
        match &self.listing {
            Some(_) => self.deliveries.listed(&key, version),
            None => self.deliveries.shown(&key, version),
        }
        let first = self.listing.as_ref().is_some_and(|listing| !listing.shown.contains(&key));
        if first {
            // The version does not matter: a list shows what exists now.
            self.unreadable.remove(&key);
        }
        if first && self.objects.get(&key).is_some_and(|(known, _)| *known > version) {
            // The higher version was known before the list began.
            self.went_back = true;
            return self.take_over(key, version, value);
        }
        if let Some(listing) = &mut self.listing
            && !self.objects.contains_key(&key)
        {
            listing.shown.insert(key.clone());
            listing.unknown.insert(key, (version, value));
            return None;
        }
        self.take_in(key, version, value)
    }

    /// Takes in the answer to a write of ours: the object at a version. Returns None in the same cases as
    /// [`Self::put`].
    ///
    /// A watch shows versions in order. So if it has shown a later version and the object is not known, the object was
    /// deleted while the answer was on its way. If the answer were taken in, the object would stay in the cache
    /// forever.
    pub fn put_own(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        if version > self.shown {
            self.deliveries.written(version);
        }
        if version < self.shown && !self.objects.contains_key(&key) {
            return None;
        }
        self.take_in(key, version, value)
    }

    /// Notes that a write of ours was refused, because the object is no longer at the version `from` that the write was
    /// planned from. That version is 0 if the write was planned without an existing object. If the cache still has that
    /// version, the watch now owes the newer state.
    pub fn refused(&mut self, key: &Key, from: Version) {
        let known = self.objects.get(key).map_or(Version(0), |(known, _)| *known);
        if known == from {
            self.deliveries.refused(key, from);
        }
    }

    /// Takes in the answer to a read that was sent when the version `known` was known. Returns None in the same cases
    /// as [`Self::put`].
    pub fn put_read(
        &mut self,
        key: Key,
        version: Version,
        known: Version,
        value: V,
    ) -> Option<Change<V>> {
        if version < known && self.objects.get(&key).is_some_and(|(now, _)| *now == known) {
            self.went_back = true;
            return self.take_over(key, version, value);
        }
        self.put_own(key, version, value)
    }

    /// What the watch owes. None if it has shown everything that is known to have been written.
    pub fn debt(&self) -> Option<PendingDelivery> {
        self.deliveries.owed()
    }

    /// The newest version that the watch has shown since its last list began.
    pub fn shown(&self) -> Version {
        self.shown
    }

    /// Whether a rollback of versions was noticed since the last call of this method.
    pub fn went_back(&mut self) -> bool {
        std::mem::take(&mut self.went_back)
    }

    /// Handles a rollback of the store: forgets all known versions. The next list shows what exists now.
    pub fn begin_anew(&mut self) {
        self.objects.values_mut().for_each(|(known, _)| *known = Version(0));
        self.unreadable.values_mut().for_each(|object| object.version = Version(0));
        self.deleted.clear();
        self.deliveries.begin_list();
        self.shown = Version(0);
        self.went_back = false;
    }

    /// Takes in an object, no matter which version was known.
    fn take_over(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        if let Some((known, _)) = self.objects.get_mut(&key) {
            *known = version;
        }
        self.deleted.remove(&key);
        self.unreadable.remove(&key);
        self.take_in(key, version, value)
    }

    /// Notes that the watch shows an object that cannot be read. What was known of the object stays in the cache.
    pub fn put_unreadable(&mut self, object: Unreadable) {
        self.shown = self.shown.max(object.version);
        match &mut self.listing {
            Some(listing) => {
                listing.shown.insert(object.key.clone());
                self.deliveries.listed(&object.key, object.version);
            }
            None => self.deliveries.shown(&object.key, object.version),
        }
        self.unreadable.insert(object.key.clone(), object);
    }

    /// The object, if its newest version cannot be read.
    pub fn unreadable(&self, key: &Key) -> Option<&Unreadable> {
        self.unreadable.get(key)
    }

    /// The objects of a namespace with a newest version that cannot be read.
    pub fn unreadable_in(&self, namespace: &str) -> impl Iterator<Item = &Unreadable> {
        in_namespace(&self.unreadable, namespace).map(|(_, object)| object)
    }

    fn take_in(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        if self.deleted.get(&key).is_some_and(|deleted| version <= *deleted) {
            return None;
        }
        if let Some(listing) = &mut self.listing {
            listing.shown.insert(key.clone());
        }
        self.deleted.remove(&key);
        if self.unreadable.get(&key).is_some_and(|object| object.version <= version) {
            self.unreadable.remove(&key);
        }
        match self.objects.get_mut(&key) {
            Some((known, _)) if *known > version => None,
            Some((known, old)) => {
                *known = version;
                if *old == value {
                    return None;
                }
                let old = std::mem::replace(old, value.clone());
                Some(Change { key, old: Some(old), new: Some(value) })
            }
            None => {
                self.objects.insert(key.clone(), (version, value.clone()));
                Some(Change { key, old: None, new: Some(value) })
            }
        }
    }

    /// Takes in that the watch shows the deletion of an object, at a version.
    pub fn remove(&mut self, key: &Key, version: Version) -> Option<Change<V>> {
        self.shown = self.shown.max(version);
        self.deliveries.shown(key, version);
        self.deleted.remove(key);
        if self.unreadable.get(key).is_some_and(|object| object.version <= version) {
            self.unreadable.remove(key);
        }
        // A late deletion of an earlier object with the same name must not remove the new object.
        if self.objects.get(key).is_some_and(|(known, _)| *known > version) {
            return None;
        }
        self.take(key)
    }

    /// Takes in that we deleted an object, which had this version.
    pub fn remove_own(&mut self, key: &Key, version: Version) -> Option<Change<V>> {
        // If the watch has shown a newer version since, the answer says nothing about that version.
        let (known, _) = self.objects.get(key)?;
        if *known > version {
            return None;
        }
        self.deleted.insert(key.clone(), version);
        self.take(key)
    }

    fn take(&mut self, key: &Key) -> Option<Change<V>> {
        let (_, old) = self.objects.remove(key)?;
        Some(Change { key: key.clone(), old: Some(old), new: None })
    }

    /// Begins a list.
    pub fn begin_list(&mut self) {
        self.listing = Some(Listing { shown: HashSet::new(), unknown: BTreeMap::new() });
        // The list shows all earlier writes, unless they belong to a history that no longer exists.
        self.shown = Version(0);
        self.deleted.clear();
        self.deliveries.begin_list();
    }

    /// Ends a list. Objects that neither the list nor a write of ours has shown since it began are gone, and those that
    /// were not known before are there.
    pub fn end_list(&mut self) -> Vec<Change<V>> {
        let Some(Listing { shown, unknown }) = self.listing.take() else { return Vec::new() };
        self.deliveries.end_list(self.shown);
        self.unreadable.retain(|key, _| shown.contains(key));
        let gone: Vec<Key> =
            self.objects.keys().filter(|key| !shown.contains(key)).cloned().collect();
        let mut changes: Vec<_> = gone.iter().filter_map(|key| self.take(key)).collect();
        let new = unknown.into_iter();
        changes.extend(new.filter_map(|(key, (version, value))| self.take_in(key, version, value)));
        changes
    }
}

pub(super) fn identity(metadata: &ObjectMeta) -> (Key, Version) {
    (Key::of(metadata), Version::of(metadata.resource_version.as_deref()))
}

#[cfg(test)]
mod tests;
