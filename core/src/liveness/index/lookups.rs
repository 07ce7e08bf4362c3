//! What can be asked of the index.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Index, Presence, Record, store::Slot};
use crate::vocabulary::key::Key;

impl Index {
    /// The current records of a registration, ordered by the name of the Lease.
    pub fn records_of(&self, registration: &Key) -> Vec<Record> {
        self.store.of(registration).cloned().collect()
    }

    /// The Leases of a registration that the watch no longer shows and that no live read has checked yet (L4).
    pub fn missing(&self, registration: &Key) -> impl Iterator<Item = &Arc<str>> {
        let missing = |record: &&Record| record.presence == Presence::Missing;
        // Of a registration with a decision that is kept, they are among the Leases that have changed since, or about
        // which that decision was not settled.
        let followed = self.followers.settled(registration);
        let noted: BTreeSet<&Arc<str>> = followed
            .into_iter()
            .flat_map(|followed| followed.unsettled.iter().chain(&followed.changed))
            .collect();
        let noted = noted.into_iter().filter_map(|lease| self.record(registration, lease));
        let all = followed.is_none().then(|| self.store.of(registration));
        noted.chain(all.into_iter().flatten()).filter(missing).map(|record| &record.lease)
    }

    /// The registrations that have an instance in this Pod.
    pub fn registrations_of_pod(&self, pod: &Key) -> Vec<Key> {
        self.pods.registrations_of(pod)
    }

    /// All registrations for which a Lease is known, whether the registrations exist or not.
    pub fn registrations(&self) -> impl Iterator<Item = (&Key, impl Iterator<Item = &Record>)> {
        self.store.registrations()
    }

    /// The record of a Lease, if it belongs to this registration.
    pub fn record(&self, registration: &Key, lease: &str) -> Option<&Record> {
        Some(&self.store.get(self.find_in(registration, lease)?).record)
    }

    /// The registration that a Lease belongs to.
    pub fn registration_of(&self, lease: &Key) -> Option<&Key> {
        Some(&*self.store.get(self.find(lease)?).home)
    }

    /// The time between the last two beats that were seen of a Lease of this registration.
    pub fn last_interval(&self, registration: &Key, lease: &str) -> Option<Duration> {
        self.store.get(self.find_in(registration, lease)?).last_interval.known()
    }

    /// How many Leases are known.
    pub fn count(&self) -> usize {
        self.store.count()
    }

    /// How many Leases of a registration are known.
    pub fn count_of(&self, registration: &Key) -> usize {
        self.store.count_of(registration)
    }

    /// All registrations for which a Lease is known, each with at most `most` of its records, taken in even steps.
    pub fn some_of_each_registration(
        &self,
        most: usize,
    ) -> impl Iterator<Item = (&Key, impl Iterator<Item = &Record>)> {
        self.store.some_of_each_registration(most)
    }

    pub(super) fn find(&self, lease: &Key) -> Option<Slot> {
        self.store.find(&lease.namespace, &lease.name)
    }

    /// The slot of a Lease, if it belongs to this registration.
    pub(super) fn find_in(&self, registration: &Key, lease: &str) -> Option<Slot> {
        let slot = self.store.find(&registration.namespace, lease)?;
        (*self.store.get(slot).home == *registration).then_some(slot)
    }

    pub(super) fn record_mut(&mut self, lease: &Key) -> Option<&mut Record> {
        let slot = self.find(lease)?;
        Some(&mut self.store.get_mut(slot).record)
    }
}
