//! Where the records are kept: each in a slot of its own, that is found by the name of its Lease.
//!
//! A beat goes the shortest way there is, from the name to the slot. The order by registrations lies
//! beside that way and is touched only when a Lease comes or goes.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;
use slab::Slab;

use super::record::{Key, Record};
use crate::heartbeat::{Heartbeat, Token};

/// The place of a record, for as long as its Lease is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// A digest of a Lease as it was read, but for what each beat changes.
///
/// It stands for all of that: comparing the texts themselves would fetch each of them from memory
/// at every beat. That two which differ have the same is as likely as to guess 64 random bits,
/// whatever anybody writes, since the key of the hash is random and known to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said(u64);

/// A record and what belongs to it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// The registration it is kept under, in its own namespace.
    pub(super) home: Arc<Key>,
    pub(super) said: Said,
    /// The number of the last list that began before the Lease was last seen.
    pub(super) shown_in: u32,
}

impl Entry {
    fn is_of(&self, namespace: &str, lease: &str) -> bool {
        *self.record.lease == *lease && self.home.namespace == namespace
    }
}

/// All records.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: Slab<Entry>,
    leases: HashTable<Slot>,
    registrations: HashMap<Arc<Key>, BTreeMap<Arc<str>, Slot>>,
    /// Names are chosen by users: keyed at random, so that nobody can make many of them collide.
    hasher: RandomState,
}

impl Shelf {
    /// The digest of what a Lease says, its name included.
    pub(super) fn said(&self, namespace: &str, beat: &Heartbeat) -> Said {
        let Heartbeat { lease, registration, token, version: _, second_hand: _, claim } = beat;
        let Token { uid, renewed: _ } = token;
        Said(self.hasher.hash_one((namespace, lease, registration, uid, claim)))
    }

    /// Where a Lease is kept, if it is known.
    pub(super) fn find(&self, namespace: &str, lease: &str) -> Option<Slot> {
        let is_it = |slot: &Slot| self.get(*slot).is_of(namespace, lease);
        self.leases.find(hash(&self.hasher, namespace, lease), is_it).copied()
    }

    /// The same for one that was read, which is known by what it says in nearly every case.
    pub(super) fn find_read(&self, namespace: &str, lease: &str, said: Said) -> Option<Slot> {
        let is_it = |slot: &Slot| {
            let entry = self.get(*slot);
            entry.said == said || entry.is_of(namespace, lease)
        };
        self.leases.find(hash(&self.hasher, namespace, lease), is_it).copied()
    }

    /// What is kept there.
    pub(super) fn get(&self, slot: Slot) -> &Entry {
        &self.entries[slot.at()]
    }

    /// What is kept there.
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.at()]
    }

    /// Keeps a Lease that is not known yet.
    pub(super) fn insert(&mut self, home: Key, record: Record, said: Said, shown_in: u32) -> Slot {
        let home = match self.registrations.get_key_value(&home) {
            Some((known, _)) => known.clone(),
            None => Arc::new(home),
        };
        let name = record.lease.clone();
        let hash_of_it = hash(&self.hasher, &home.namespace, &name);
        let at = self.entries.insert(Entry { record, home: home.clone(), said, shown_in });
        let slot = Slot(u32::try_from(at).expect("no memory holds that many records"));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.leases.insert_unique(hash_of_it, slot, |slot| {
            let Entry { record, home, .. } = &entries[slot.at()];
            hash(hasher, &home.namespace, &record.lease)
        });
        self.registrations.entry(home).or_default().insert(name, slot);
        slot
    }

    /// Forgets a Lease.
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

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Goes through the records of a registration.
    pub(super) fn walk(&mut self, registration: &Key) -> Walk<'_> {
        static NONE: BTreeMap<Arc<str>, Slot> = BTreeMap::new();
        let slots = self.registrations.get(registration).unwrap_or(&NONE);
        Walk { next: slots.iter(), slots, entries: &mut self.entries }
    }

    /// How many a registration has.
    pub(super) fn count_of(&self, registration: &Key) -> usize {
        self.registrations.get(registration).map_or(0, BTreeMap::len)
    }

    /// All there is, in no order.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().map(|(_, entry)| entry)
    }

    /// The records of a registration, by the name of the Lease.
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

    /// All registrations with so many of their records at most. The others are passed over without being touched.
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

/// The records of one registration.
pub(super) struct Walk<'a> {
    next: btree_map::Iter<'a, Arc<str>, Slot>,
    slots: &'a BTreeMap<Arc<str>, Slot>,
    entries: &'a mut Slab<Entry>,
}

impl Walk<'_> {
    /// Goes on to the record of a Lease. Whoever asks in the order of the names, and by the names that a snapshot
    /// gave, has none looked up: no text is fetched from memory. Those between are passed over; who is asked
    /// for out of order may have been passed over before, and what is noted of it then counts.
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

    /// Passes over the rest.
    pub(super) fn end(self, passed_over: impl Fn(&mut Record)) {
        self.next.for_each(|(_, slot)| passed_over(&mut self.entries[slot.at()].record));
    }
}

fn hash(hasher: &RandomState, namespace: &str, lease: &str) -> u64 {
    hasher.hash_one((namespace, lease))
}
