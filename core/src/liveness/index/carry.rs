//! Beats that a gateway carries. They change no Lease, so they bring no token.

use std::collections::BTreeMap;

use super::{
    CarrierId, Index, Observed, Presence,
    carried::{Carried, Delivery},
    store::LastInterval,
};
use crate::{
    objects::heartbeat::Origin,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

impl Index {
    /// The record of a Lease, and where its instance runs.
    pub fn find_carried(&self, lease: &Key) -> Option<(Carried, &Origin)> {
        let slot = self.find(lease)?;
        let entry = self.store.get(slot);
        Some((Carried { slot, owner: entry.owner }, &entry.record.content.origin))
    }

    /// Takes in a beat that a gateway carried. Returns `None` if the Lease or its owner is not the same any more.
    pub fn carry(
        &mut self,
        carried: Carried,
        by: CarrierId,
        delivery: Delivery,
        now: MonotonicTime,
    ) -> Option<Observed> {
        let entry = self.store.get_if_owned(carried.slot, carried.owner)?;
        let record = &mut entry.record;
        if record.presence == Presence::Missing && record.content.deleting {
            return None;
        }
        let (since, wake) = match delivery {
            Delivery::Fresh => record.beat(Some(by), now),
            Delivery::Late => {
                record.beat_late(by, now);
                self.followers.changed(&entry.home, &record.lease);
                let store = &self.store;
                self.followers.beaten(carried.slot, |slot| store.get(slot).record.seen);
                return Some(Observed::default());
            }
        };
        entry.last_interval = LastInterval::of(since);
        let wake = if wake { vec![Key::clone(&entry.home)] } else { Vec::new() };
        let observed = Observed { beat: true, since, wake };
        self.note_observed(carried.slot, &observed);
        Some(observed)
    }

    /// A term begins. An instance that this process has decided to be dead in an earlier term may have beaten since,
    /// through a gateway that this process did not hear, also if its last beat before renewed its Lease. If it is
    /// published, it has a ttl to beat.
    pub fn doubt_deaths(&mut self, now: MonotonicTime) {
        self.followers.end_all();
        let records = self.store.entries_mut().map(|entry| &mut entry.record);
        for record in records.filter(|record| record.expired_at.is_some()) {
            record.doubt_death(now);
        }
    }

    /// How many instances each gateway has carried last. It looks at every record.
    pub fn count_carried(&self) -> BTreeMap<CarrierId, usize> {
        let mut counts = BTreeMap::new();
        let all = self.store.registrations().flat_map(|(_, records)| records);
        for carrier in all.filter_map(|record| record.carrier) {
            *counts.entry(carrier).or_default() += 1;
        }
        counts
    }
}
