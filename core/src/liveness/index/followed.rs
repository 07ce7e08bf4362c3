//! Registrations of which the last decision is kept: what has changed since, and which of their verdicts stand.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    liveness::index::{
        order::{List, Order},
        record::Record,
        store::Slot,
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// After so many changed Leases without a decision, the next decision is about all instances. So what is noted of a
/// registration about which nothing is decided any more stays small.
const CHANGED_MAX: usize = 10_000;

/// Names a decision that is kept. No other decision has the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// Whether a verdict stands until its Lease, its Pod or what is published changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has to be made anew in each decision.
    No,
    /// It stands until a beat is late: the instance beats, and is published.
    Alive,
    /// It stands: the instance is dead, and out of the slices.
    Dead,
}

/// The Leases about which a decision has to judge anew.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// Their names.
    pub leases: BTreeSet<Arc<str>>,
    /// Their records, in the order of their names. A Lease that is gone has none.
    pub records: Vec<Record>,
}

/// What is noted of one registration.
#[derive(Debug)]
pub(super) struct Followed {
    ticket: Ticket,
    /// Whether it is known which verdicts of that decision stand.
    pub(super) is_settled: bool,
    /// The instances with a verdict that stands until a beat is late.
    pub(super) alive: List,
    /// The Leases about which the next decision has to judge anew, as far as the last one knew.
    pub(super) unsettled: BTreeSet<Arc<str>>,
    /// The Leases that have changed since.
    pub(super) changed: BTreeSet<Arc<str>>,
}

/// All registrations with a decision that is kept.
#[derive(Debug, Default)]
pub(super) struct Followers {
    of: HashMap<Arc<Key>, Followed>,
    order: Order,
    /// The last number of a ticket.
    last: u64,
}

impl Followers {
    /// Begins anew to follow a registration.
    pub(super) fn begin(&mut self, registration: &Key) -> Ticket {
        self.end(registration);
        self.last += 1;
        let ticket = Ticket(self.last);
        let (unsettled, changed) = (BTreeSet::new(), BTreeSet::new());
        let (alive, is_settled) = (self.order.begin(), false);
        let followed = Followed { ticket, is_settled, alive, unsettled, changed };
        self.of.insert(Arc::new(registration.clone()), followed);
        ticket
    }

    /// Ends it. The next decision about the registration is about all its instances.
    pub(super) fn end(&mut self, registration: &Key) {
        if let Some(followed) = self.of.remove(registration) {
            self.order.end(followed.alive);
        }
    }

    /// Ends it for all registrations.
    pub(super) fn end_all(&mut self) {
        self.of.clear();
        self.order = Order::default();
    }

    /// What is noted of a registration since the decision with this ticket. `None` if another decision has followed,
    /// or if not all is known that has changed since.
    pub(super) fn since(&self, registration: &Key, ticket: Ticket) -> Option<&Followed> {
        self.of.get(registration).filter(|followed| followed.ticket == ticket)
    }

    /// The same, for changes.
    pub(super) fn since_mut(
        &mut self,
        registration: &Key,
        ticket: Ticket,
    ) -> Option<&mut Followed> {
        self.of.get_mut(registration).filter(|followed| followed.ticket == ticket)
    }

    /// What is noted of a registration since any decision that was settled.
    pub(super) fn settled(&self, registration: &Key) -> Option<&Followed> {
        self.of.get(registration).filter(|followed| followed.is_settled)
    }

    /// A Lease has changed, in any way but by a beat that changes nothing.
    pub(super) fn changed(&mut self, registration: &Key, lease: &Arc<str>) {
        let Some(followed) = self.of.get_mut(registration) else { return };
        followed.changed.insert(lease.clone());
        if followed.changed.len() > CHANGED_MAX {
            self.end(registration);
        }
    }

    /// A record has beaten.
    pub(super) fn beaten(&mut self, slot: Slot, seen: impl Fn(Slot) -> MonotonicTime) {
        self.order.beaten(slot, seen);
    }

    /// The verdicts on these records stand until their beats are late. They are ordered by their last beats.
    pub(super) fn stand(
        &mut self,
        alive: List,
        oldest_first: &[Slot],
        seen: impl Fn(Slot) -> MonotonicTime,
    ) {
        self.order.put_all(alive, oldest_first, seen);
    }

    /// Whether the verdict on a record has stood until now.
    pub(super) fn has_stood(&self, alive: List, slot: Slot) -> bool {
        self.order.is_in(alive, slot)
    }

    /// The verdict on a record does not stand until its beat is late, or the record is gone.
    pub(super) fn stands_no_more(&mut self, slot: Slot) {
        self.order.take_out(slot);
    }

    /// The records of a list, the one first that has beaten longest ago.
    pub(super) fn oldest_first(&self, alive: List) -> impl Iterator<Item = Slot> {
        self.order.oldest_first(alive)
    }
}
