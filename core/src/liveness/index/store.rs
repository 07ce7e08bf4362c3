//! The storage of the records. Each record has a slot, which is found by the name of its Lease.
//!
//! A beat takes the shortest path, from the name to the slot. The order by registrations is a separate structure. It is
//! changed only when a Lease appears or disappears.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashTable;
use slab::Slab;

use crate::{
    liveness::index::record::Record,
    objects::heartbeat::Heartbeat,
    vocabulary::{key::Key, version::Token},
};

/// The place of a record. It is valid for as long as the Lease is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    fn at(self) -> usize {
        self.0 as usize
    }

    /// Its number.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The slot with this number.
    pub(super) fn of_number(number: u32) -> Self {
        Self(number)
    }
}

/// A digest of a Lease as it was read, without the fields that each beat changes.
///
/// The digest stands for the whole text. A comparison of the texts themselves would fetch each of them from memory at
/// every beat. The probability that two different texts have the same digest is that of guessing 64 random bits. Users
/// cannot raise it by what they write, because the key of the hash is random and secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(u64);

/// The time between the last two beats that were seen, in milliseconds to save memory; [`u32::MAX`] if it is not known.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastInterval(u32);

impl LastInterval {
    const UNKNOWN: Self = Self(u32::MAX);

    pub(super) fn of(interval: Option<Duration>) -> Self {
        let millis = interval.and_then(|interval| u32::try_from(interval.as_millis()).ok());
        millis.map_or(Self::UNKNOWN, Self)
    }

    pub(super) fn known(self) -> Option<Duration> {
        (self.0 != u32::MAX).then(|| Duration::from_millis(self.0.into()))
    }
}

/// A record with its bookkeeping.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// The registration that the record is kept under. It is in the namespace of the Lease.
    pub(super) home: Arc<Key>,
    pub(super) digest: Digest,
    /// The number of the last list that began before the Lease was last seen.
    pub(super) shown_in: u32,
    pub(super) last_interval: LastInterval,
    /// Another number for each Lease and each owner of it.
    pub(super) owner: u64,
}

impl Entry {
    fn is_of(&self, namespace: &str, lease: &str) -> bool {
        *self.record.lease == *lease && self.home.namespace == namespace
    }
}

/// All records.
#[derive(Debug, Default)]
pub(super) struct Store {
    entries: Slab<Entry>,
    leases: HashTable<Slot>,
    registrations: HashMap<Arc<Key>, BTreeMap<Arc<str>, Slot>>,
    /// Users choose the names, so the hash has a random key. Then users cannot create many names that collide.
    hasher: RandomState,
}

impl Store {
    /// The digest of the content of a Lease, including its name.
    pub(super) fn digest(&self, namespace: &str, beat: &Heartbeat) -> Digest {
        let Heartbeat { lease, registration, token, version: _, second_hand: _, content } = beat;
        let Token { uid, renewed: _ } = token;
        Digest(self.hasher.hash_one((namespace, lease, registration, uid, content)))
    }

    /// The slot of a Lease, if the Lease is known.
    pub(super) fn find(&self, namespace: &str, lease: &str) -> Option<Slot> {
        let is_it = |slot: &Slot| self.get(*slot).is_of(namespace, lease);
        self.leases.find(hash(&self.hasher, namespace, lease), is_it).copied()
    }

    /// The same for a Lease that was read. In nearly every case its digest identifies it.
    pub(super) fn find_read(&self, namespace: &str, lease: &str, digest: Digest) -> Option<Slot> {
        let is_it = |slot: &Slot| {
            let entry = self.get(*slot);
            entry.digest == digest || entry.is_of(namespace, lease)
        };
        self.leases.find(hash(&self.hasher, namespace, lease), is_it).copied()
    }

    /// The entry in a slot.
    pub(super) fn get(&self, slot: Slot) -> &Entry {
        &self.entries[slot.at()]
    }

    /// The entry in a slot that may have been freed or given to another Lease since, for changes.
    pub(super) fn get_if_owned(&mut self, slot: Slot, owner: u64) -> Option<&mut Entry> {
        self.entries.get_mut(slot.at()).filter(|entry| entry.owner == owner)
    }

    /// The entry in a slot, for changes.
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.at()]
    }

    /// Adds a Lease that is not known yet.
    pub(super) fn insert(
        &mut self,
        home: Key,
        record: Record,
        digest: Digest,
        shown_in: u32,
        owner: u64,
    ) -> Slot {
        let home = match self.registrations.get_key_value(&home) {
            Some((known, _)) => known.clone(),
            None => Arc::new(home),
        };
        let name = record.lease.clone();
        let hash_of_it = hash(&self.hasher, &home.namespace, &name);
        let at = self.entries.insert(Entry {
            record,
            home: home.clone(),
            digest,
            shown_in,
            last_interval: LastInterval::UNKNOWN,
            owner,
        });
        let slot = Slot(u32::try_from(at).expect("no memory holds that many records"));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.leases.insert_unique(hash_of_it, slot, |slot| {
            let Entry { record, home, .. } = &entries[slot.at()];
            hash(hasher, &home.namespace, &record.lease)
        });
        self.registrations.entry(home).or_default().insert(name, slot);
        slot
    }

    /// Removes a Lease.
    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let gone = self.entries.remove(slot.at());
        let hash = hash(&self.hasher, &gone.home.namespace, &gone.record.lease);
        if let Ok(found) = self.leases.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        if let Some(slots) = self.registrations.get_mut(&gone.home) {
            slots.remove(&gone.record.lease);
            if slots.is_empty() {
                self.registrations.remove(&gone.home);
            }
        }
        gone
    }

    /// The number of records.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// A cursor over the records of a registration.
    pub(super) fn cursor(&mut self, registration: &Key) -> Cursor<'_> {
        static NONE: BTreeMap<Arc<str>, Slot> = BTreeMap::new();
        let slots = self.registrations.get(registration).unwrap_or(&NONE);
        Cursor { next: slots.iter(), slots, entries: &mut self.entries }
    }

    /// The number of records of a registration.
    pub(super) fn count_of(&self, registration: &Key) -> usize {
        self.registrations.get(registration).map_or(0, BTreeMap::len)
    }

    /// All entries, in no particular order.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().map(|(_, entry)| entry)
    }

    /// The records of a registration, in the order of their Lease names.
    pub(super) fn of(&self, registration: &Key) -> impl Iterator<Item = &Record> {
        let slots = self.registrations.get(registration).into_iter().flat_map(BTreeMap::values);
        slots.map(|slot| &self.get(*slot).record)
    }

    /// All registrations with their records.
    pub(super) fn registrations(
        &self,
    ) -> impl Iterator<Item = (&Key, impl Iterator<Item = &Record>)> {
        self.some_of_each_registration(usize::MAX)
    }

    /// All registrations, each with at most `most` of its records. The other records are not touched.
    pub(super) fn some_of_each_registration(
        &self,
        most: usize,
    ) -> impl Iterator<Item = (&Key, impl Iterator<Item = &Record>)> {
        self.registrations.iter().map(move |(key, slots)| {
            let step = slots.len().div_ceil(most).max(1);
            let records = slots.values().step_by(step).map(|slot| &self.get(*slot).record);
            (&**key, records)
        })
    }
}

/// A cursor through the records of one registration.
pub(super) struct Cursor<'a> {
    next: btree_map::Iter<'a, Arc<str>, Slot>,
    slots: &'a BTreeMap<Arc<str>, Slot>,
    entries: &'a mut Slab<Entry>,
}

impl Cursor<'_> {
    /// Moves on to the record of a Lease. If the caller asks in the order of the names, and with the names from a
    /// snapshot, no look-up is needed and no text is fetched from memory. `passed_over` is called for the records in
    /// between. A record that is asked for out of order may have been passed over before. In that case what the caller
    /// sets now counts.
    pub(super) fn find(
        &mut self,
        lease: &Arc<str>,
        passed_over: impl Fn(&mut Record),
    ) -> Option<&mut Record> {
        for (known, slot) in self.next.by_ref() {
            if Arc::ptr_eq(known, lease) {
                return Some(&mut self.entries[slot.at()].record);
            }
            passed_over(&mut self.entries[slot.at()].record);
        }
        let slot = self.slots.get(lease)?;
        Some(&mut self.entries[slot.at()].record)
    }

    /// Calls `passed_over` for the remaining records.
    pub(super) fn end(self, passed_over: impl Fn(&mut Record)) {
        self.next.for_each(|(_, slot)| passed_over(&mut self.entries[slot.at()].record));
    }
}

fn hash(hasher: &RandomState, namespace: &str, lease: &str) -> u64 {
    hasher.hash_one((namespace, lease))
}
