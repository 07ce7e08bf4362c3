//! What has changed about the Leases of a registration since the last decision, and which of its verdicts stand.
//!
//! A decision is about all instances, or about those with a verdict that may have changed. The second kind needs to
//! know which these are. So the index notes, for each registration with a decision that is kept, the Leases that have
//! changed, and the order of the last beats of all others.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Index, Observed, Record, Standing, Ticket, Unsettled,
    store::{Entry, Slot},
};
use crate::vocabulary::{key::Key, monotonic_time::MonotonicTime};

impl Index {
    /// The current records of a registration, ordered by the name of the Lease, for a decision that is to be kept. From
    /// now on, what changes is noted.
    pub fn follow(&mut self, registration: &Key) -> (Vec<Record>, Ticket) {
        (self.records_of(registration), self.followers.begin(registration))
    }

    /// The decisions about a registration are not kept any more.
    pub fn unfollow(&mut self, registration: &Key) {
        self.followers.end(registration);
    }

    /// The Leases about which the verdicts of a decision do not stand: those that did not stand, those that have changed
    /// since, those with a last beat at `late` or before, and `others`. `None` if this is not known.
    pub fn unsettled(
        &mut self,
        registration: &Key,
        ticket: Ticket,
        others: BTreeSet<Arc<str>>,
        late: MonotonicTime,
    ) -> Option<Unsettled> {
        let alive = self.followers.since(registration, ticket)?.alive;
        let records = self.followers.oldest_first(alive).map(|slot| &self.store.get(slot).record);
        let silent = records.take_while(|record| record.seen <= late);
        let silent: Vec<Arc<str>> = silent.map(|record| record.lease.clone()).collect();
        let followed = self.followers.since_mut(registration, ticket)?;
        // They are kept in case that the decision is overtaken.
        let changed = std::mem::take(&mut followed.changed);
        followed.unsettled.extend(changed.into_iter().chain(others).chain(silent));
        let leases = followed.unsettled.clone();
        let records = leases.iter().filter_map(|lease| self.record(registration, lease)).cloned();
        Some(Unsettled { records: records.collect(), leases })
    }

    /// Notes which verdicts of a decision stand.
    pub fn settle<'a>(
        &mut self,
        registration: &Key,
        ticket: Ticket,
        judged: impl IntoIterator<Item = (&'a Arc<str>, Standing)>,
    ) {
        let Some(alive) = self.followers.since(registration, ticket).map(|it| it.alive) else {
            return;
        };
        let mut living = Vec::new();
        for (lease, standing) in judged {
            let slot = self.find_in(registration, lease);
            let mut standing = standing;
            if let Some(slot) = slot {
                let record = &self.store.get(slot).record;
                // It has beaten since it was judged.
                if standing == Standing::Dead && record.expired_at.is_none() {
                    standing = Standing::No;
                }
                // A beat moves a record in the list, so one that is in it is at its place.
                let has_stood = self.followers.has_stood(alive, slot);
                if standing == Standing::Alive && !has_stood {
                    living.push((record.seen, slot));
                }
                if standing != Standing::Alive || !has_stood {
                    self.followers.stands_no_more(slot);
                }
            }
            let Some(followed) = self.followers.since_mut(registration, ticket) else { return };
            match slot {
                Some(_) if standing == Standing::No => {
                    followed.unsettled.insert(lease.clone());
                }
                _ => drop(followed.unsettled.remove(lease)),
            }
        }
        if let Some(followed) = self.followers.since_mut(registration, ticket) {
            followed.is_settled = true;
        }
        living.sort_by_key(|(seen, _)| *seen);
        let living: Vec<Slot> = living.into_iter().map(|(_, slot)| slot).collect();
        let store = &self.store;
        self.followers.stand(alive, &living, |slot| store.get(slot).record.seen);
    }

    /// When the instance has last beaten whose beat is late next, of those with a verdict that stands until then.
    pub fn oldest_beat(&self, registration: &Key, ticket: Ticket) -> Option<MonotonicTime> {
        let alive = self.followers.since(registration, ticket)?.alive;
        let oldest = self.followers.oldest_first(alive).next()?;
        Some(self.store.get(oldest).record.seen)
    }

    /// The Leases of a registration that name this Pod.
    pub fn leases_in_pod(&self, registration: &Key, pod: &Key) -> impl Iterator<Item = Arc<str>> {
        self.pods.leases_in(registration, pod)
    }

    /// Whether a Lease has gone since the decision with this ticket was begun.
    pub(super) fn has_lost_a_lease(&self, registration: &Key, ticket: Ticket) -> bool {
        self.followers.since(registration, ticket).is_some_and(|followed| {
            followed.changed.iter().any(|lease| self.find_in(registration, lease).is_none())
        })
    }

    /// Notes what was observed of a known Lease. A beat that changes no decision only moves it in the order of the
    /// beats. A beat that comes late may begin a pace anew for which a verdict has counted it as following (L8).
    pub(super) fn note_observed(&mut self, slot: Slot, observed: &Observed) {
        let Entry { record, home, .. } = self.store.get(slot);
        let comes_late = observed.since.is_some_and(|since| record.rhythm.is_broken_by(since));
        if !observed.wake.is_empty() || comes_late {
            self.followers.changed(home, &record.lease);
        }
        if observed.beat || !observed.wake.is_empty() {
            let store = &self.store;
            self.followers.beaten(slot, |slot| store.get(slot).record.seen);
        }
    }
}
