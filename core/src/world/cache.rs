//! What the watch has shown of one kind of object, overlaid with the results of our own writes.
//!
//! While a watch goes on, the newer resourceVersion wins. So a decision never rests on an object older than what this
//! process wrote itself (kubernetes 124547: a stale cache says "equal"), nor on an answer that the watch has overtaken.
//!
//! A list wins over everything that was known before it began: it is asked for after that, and answered with the
//! newest there is. Where it shows a lower version than was known, it is not late: the store has gone back to an
//! earlier state, of a backup (kubernetes 82428), and the versions that were known mean nothing any more. Only what a
//! write of ours was answered with *since* the list began may be newer than the list.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    debts::{Debt, Debts},
    in_namespace,
};
use crate::{heartbeat::Version, index::Key, reading::Unreadable};

/// Objects of one kind by namespace and name.
#[derive(Debug)]
pub struct Cache<V> {
    objects: HashMap<Key, (Version, V)>,
    /// Objects that we deleted, with the version they had: what the watch still brings of them up to
    /// that version is late.
    deleted: HashMap<Key, Version>,
    /// While a list is being read: what it, or a write of ours, has shown since it began.
    listing: Option<HashSet<Key>>,
    /// The newest version that the watch has shown, of whatever object, since the last list began.
    shown: Version,
    debts: Debts,
    /// Whether something has shown that versions went back.
    went_back: bool,
    /// Those whose newest version cannot be read. What was known of them before stays.
    unreadable: BTreeMap<Key, Unreadable>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            deleted: HashMap::new(),
            listing: None,
            shown: Version(0),
            debts: Debts::default(),
            went_back: false,
            unreadable: BTreeMap::new(),
        }
    }
}

/// A change of one object: what it was, and what it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<V> {
    pub key: Key,
    pub old: Option<V>,
    pub new: Option<V>,
}

impl<V: Clone + PartialEq> Cache<V> {
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.objects.get(key).map(|(_, value)| value)
    }

    /// The watch shows an object as it was at a version. None when it is old news, or changes nothing.
    pub fn put(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        self.shown = self.shown.max(version);
        match &self.listing {
            Some(_) => self.debts.listed(&key, version),
            None => self.debts.shown(&key, version),
        }
        let first = self.listing.as_ref().is_some_and(|shown| !shown.contains(&key));
        if first {
            // Whatever version it had before: a list shows what there is.
            self.unreadable.remove(&key);
        }
        if first && self.objects.get(&key).is_some_and(|(known, _)| *known > version) {
            // Known before the list began.
            self.went_back = true;
            return self.take_over(key, version, value);
        }
        self.take_in(key, version, value)
    }

    /// A write of ours was answered with the object as it was at a version. None as for [`Self::put`].
    ///
    /// A watch shows versions in their order. So an object that is not known, though a later one has been shown, was
    /// deleted while the answer was on its way: taken in, it would be there for ever.
    pub fn put_own(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        if version > self.shown {
            self.debts.written(version);
        }
        if version < self.shown && !self.objects.contains_key(&key) {
            return None;
        }
        self.take_in(key, version, value)
    }

    /// A write of ours was refused, since the object is not at the version that it was planned from any more; none where
    /// it was planned from there being no such object. The watch owes what it is.
    pub fn refused(&mut self, key: &Key, from: Version) {
        let known = self.objects.get(key).map_or(Version(0), |(known, _)| *known);
        if known == from {
            self.debts.refused(key, from);
        }
    }

    /// A read that was sent after `known` was known shows the object at a version. None as for [`Self::put`].
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

    /// What the watch owes; none where it has brought all that is known to have been written.
    pub fn debt(&self) -> Option<Debt> {
        self.debts.owed()
    }

    /// The newest version that the watch has shown since its last list began.
    pub fn shown(&self) -> Version {
        self.shown
    }

    /// Whether versions have gone back since this was asked last.
    pub fn went_back(&mut self) -> bool {
        std::mem::take(&mut self.went_back)
    }

    /// The store has gone back: what was known by versions is forgotten, and the next list shows what there is.
    pub fn begin_anew(&mut self) {
        self.objects.values_mut().for_each(|(known, _)| *known = Version(0));
        self.unreadable.values_mut().for_each(|object| object.version = Version(0));
        self.deleted.clear();
        self.debts.begin_list();
        self.shown = Version(0);
        self.went_back = false;
    }

    /// Takes an object in whatever version was known.
    fn take_over(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        if let Some((known, _)) = self.objects.get_mut(&key) {
            *known = version;
        }
        self.deleted.remove(&key);
        self.unreadable.remove(&key);
        self.take_in(key, version, value)
    }

    /// The watch shows that an object is there, which cannot be read. What was known of it stays.
    pub fn put_unreadable(&mut self, object: Unreadable) {
        self.shown = self.shown.max(object.version);
        match &mut self.listing {
            Some(shown) => {
                shown.insert(object.key.clone());
                self.debts.listed(&object.key, object.version);
            }
            None => self.debts.shown(&object.key, object.version),
        }
        self.unreadable.insert(object.key.clone(), object);
    }

    /// The object, if its newest version cannot be read.
    pub fn unreadable(&self, key: &Key) -> Option<&Unreadable> {
        self.unreadable.get(key)
    }

    /// Those of a namespace whose newest versions cannot be read.
    pub fn unreadable_in(&self, namespace: &str) -> impl Iterator<Item = &Unreadable> {
        in_namespace(&self.unreadable, namespace).map(|(_, object)| object)
    }

    fn take_in(&mut self, key: Key, version: Version, value: V) -> Option<Change<V>> {
        if self.deleted.get(&key).is_some_and(|deleted| version <= *deleted) {
            return None;
        }
        if let Some(shown) = &mut self.listing {
            shown.insert(key.clone());
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

    /// The watch says that an object is gone, as of a version.
    pub fn remove(&mut self, key: &Key, version: Version) -> Option<Change<V>> {
        self.shown = self.shown.max(version);
        self.debts.shown(key, version);
        self.deleted.remove(key);
        if self.unreadable.get(key).is_some_and(|object| object.version <= version) {
            self.unreadable.remove(key);
        }
        // A late deletion of an earlier object of that name must not take the new one away.
        if self.objects.get(key).is_some_and(|(known, _)| *known > version) {
            return None;
        }
        self.take(key)
    }

    /// We deleted an object that had this version.
    pub fn remove_own(&mut self, key: &Key, version: Version) -> Option<Change<V>> {
        // An answer that is older than what the watch has brought since says nothing of it.
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

    /// A list begins.
    pub fn begin_list(&mut self) {
        self.listing = Some(HashSet::new());
        // What is known of earlier writes the list shows, or they are of another history.
        self.shown = Version(0);
        self.deleted.clear();
        self.debts.begin_list();
    }

    /// A list has ended: what neither it nor a write of ours has shown since it began is gone.
    pub fn end_list(&mut self) -> Vec<Change<V>> {
        let Some(shown) = self.listing.take() else { return Vec::new() };
        self.debts.end_list(self.shown);
        self.unreadable.retain(|key, _| shown.contains(key));
        let gone: Vec<Key> =
            self.objects.keys().filter(|key| !shown.contains(key)).cloned().collect();
        gone.iter().filter_map(|key| self.take(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("shop", "greeter")
    }

    #[test]
    fn a_stale_event_does_not_undo_our_own_write() {
        let mut cache = Cache::default();
        cache.put(key(), Version(5), "written by us");
        assert_eq!(cache.put(key(), Version(4), "from the watch, late"), None);
        assert_eq!(cache.get(&key()), Some(&"written by us"));
    }

    #[test]
    fn the_echo_of_our_own_write_is_no_change() {
        let mut cache = Cache::default();
        assert!(cache.put(key(), Version(5), "same").is_some());
        assert_eq!(cache.put(key(), Version(5), "same"), None);
    }

    #[test]
    fn what_we_deleted_does_not_come_back_with_a_late_event() {
        let mut cache = Cache::default();
        cache.put(key(), Version(5), "slice");
        cache.remove_own(&key(), Version(5));
        assert_eq!(cache.put(key(), Version(5), "late"), None);
        assert_eq!(cache.get(&key()), None);
        assert!(cache.put(key(), Version(9), "made anew").is_some());
    }

    #[test]
    fn what_somebody_deleted_does_not_come_back_with_a_late_answer() {
        let mut cache = Cache::default();
        cache.put(key(), Version(5), "slice");
        // We wrote it at 6, somebody deleted it at 7, and the watch was faster than the answer.
        cache.put(key(), Version(6), "written by us");
        cache.remove(&key(), Version(7));
        assert_eq!(cache.put_own(key(), Version(6), "written by us"), None);
        assert_eq!(cache.get(&key()), None);
        assert!(cache.put_own(key(), Version(8), "made anew by us").is_some());
        cache.begin_list();
        cache.end_list();
        assert!(cache.put_own(key(), Version(3), "after a restore").is_some());
    }

    fn strange(version: u64) -> Unreadable {
        Unreadable {
            kind: "Pod",
            key: key(),
            version: Version(version),
            service: None,
            owner: None,
            why: "spec: invalid type".to_owned(),
        }
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was_known_until_it_can_be_or_is_gone() {
        let mut cache = Cache::default();
        cache.put(key(), Version(5), "known");
        cache.begin_list();
        cache.put_unreadable(strange(6));
        assert_eq!(cache.end_list(), [], "it is there");
        assert_eq!(cache.get(&key()), Some(&"known"));
        assert!(cache.unreadable(&key()).is_some());
        cache.put(key(), Version(5), "late");
        assert!(cache.unreadable(&key()).is_some(), "an older version says nothing of the newest");
        assert!(cache.put(key(), Version(7), "read").is_some());
        assert_eq!(cache.unreadable(&key()), None);
        cache.put_unreadable(strange(8));
        assert!(cache.remove(&key(), Version(9)).is_some());
        assert_eq!(cache.unreadable(&key()), None);
        cache.put_unreadable(strange(10));
        cache.begin_list();
        cache.end_list();
        assert_eq!(cache.unreadable(&key()), None, "a list without it");
    }

    #[test]
    fn a_list_that_shows_an_older_version_replaces_what_was_known_before_it_began() {
        let mut cache = Cache::default();
        cache.put(key(), Version(5), "of the old history");
        cache.begin_list();
        let change = cache.put(key(), Version(3), "restored").expect("a change");
        assert_eq!((change.old, change.new), (Some("of the old history"), Some("restored")));
        assert_eq!(cache.end_list(), []);
        assert_eq!(cache.get(&key()), Some(&"restored"));
        assert!(cache.went_back());
        assert!(!cache.went_back(), "told once");
        assert!(cache.put(key(), Version(4), "and goes on from there").is_some());
    }

    #[test]
    fn a_list_replaces_what_we_wrote_or_deleted_before_it_began() {
        let mut cache = Cache::default();
        let deleted = Key::new("shop", "deleted");
        cache.put(deleted.clone(), Version(4), "slice");
        cache.remove_own(&deleted, Version(4));
        cache.put_own(key(), Version(5), "written by us");
        cache.begin_list();
        cache.put(key(), Version(3), "restored");
        cache.put(deleted.clone(), Version(2), "restored");
        cache.end_list();
        assert_eq!(cache.get(&key()), Some(&"restored"));
        assert_eq!(cache.get(&deleted), Some(&"restored"));
    }

    #[test]
    fn a_list_does_not_undo_what_we_wrote_or_deleted_since_it_began() {
        let mut cache = Cache::default();
        let deleted = Key::new("shop", "deleted");
        cache.put(key(), Version(2), "before");
        cache.put(deleted.clone(), Version(4), "slice");
        cache.begin_list();
        cache.put_own(key(), Version(5), "written by us");
        cache.remove_own(&deleted, Version(4));
        assert_eq!(cache.put(key(), Version(3), "answered before"), None);
        assert_eq!(cache.put(deleted.clone(), Version(4), "answered before"), None);
        cache.end_list();
        assert_eq!(cache.get(&key()), Some(&"written by us"));
        assert_eq!(cache.get(&deleted), None);
        assert!(!cache.went_back());
    }

    #[test]
    fn a_read_that_shows_an_older_version_than_was_known_when_it_was_sent_replaces_it() {
        let mut cache = Cache::default();
        cache.put(key(), Version(50), "of the old history");
        assert!(cache.put_read(key(), Version(7), Version(50), "restored").is_some());
        assert!(cache.went_back());
        cache.put(key(), Version(60), "newer");
        assert_eq!(cache.put_read(key(), Version(55), Version(7), "overtaken"), None);
        assert!(!cache.went_back());
    }

    #[test]
    fn a_late_deletion_does_not_take_the_successor_away() {
        let mut cache = Cache::default();
        cache.put(key(), Version(9), "successor");
        assert_eq!(cache.remove(&key(), Version(7)), None);
        assert_eq!(cache.get(&key()), Some(&"successor"));
    }

    #[test]
    fn a_list_removes_what_it_does_not_show_but_not_what_we_wrote_meanwhile() {
        let mut cache = Cache::default();
        let (stays, goes, ours) =
            (Key::new("shop", "stays"), Key::new("shop", "goes"), Key::new("shop", "ours"));
        cache.put(stays.clone(), Version(1), "");
        cache.put(goes.clone(), Version(2), "");
        cache.begin_list();
        cache.put(stays.clone(), Version(1), "");
        cache.put(ours.clone(), Version(8), "");
        let gone = cache.end_list();
        assert_eq!(gone, [Change { key: goes, old: Some(""), new: None }]);
        assert!(cache.get(&stays).is_some() && cache.get(&ours).is_some());
    }
}
