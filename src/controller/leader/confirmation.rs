//! Reads of the election's Lease that show whether a term goes on (G10).

use tokio::sync::Mutex;

use crate::controller::{clock::Clock, leader::lease::ElectionLease};
use beatkeeper_core::{carriers::frames::Term, vocabulary::monotonic_time::MonotonicTime};

/// Reads the Lease. Several that ask at once share a read.
pub(crate) struct Confirmation {
    lease: ElectionLease,
    identity: String,
    clock: Clock,
    last: Mutex<Option<Read>>,
}

/// A read that was answered, or was not.
#[derive(Clone, Copy)]
struct Read {
    sent: MonotonicTime,
    /// The term, if this replica is the holder; None also without an answer.
    leads: Option<Term>,
}

impl Confirmation {
    pub(crate) fn new(lease: ElectionLease, identity: String, clock: Clock) -> Self {
        Self { lease, identity, clock, last: Mutex::new(None) }
    }

    /// The sending of a read that was sent after this call and shows this replica as the holder in this term. None if it
    /// shows something else, or was not answered in time.
    pub(crate) async fn of(&self, term: Term) -> Option<MonotonicTime> {
        let asked = self.clock.now();
        // The lock is given in the order of the calls. So all that have asked during a read share the next one.
        let mut last = self.last.lock().await;
        let shared = last.filter(|read| read.sent >= asked);
        let read = match shared {
            Some(read) => read,
            None => *last.insert(self.read().await),
        };
        (read.leads == Some(term)).then_some(read.sent)
    }

    async fn read(&self) -> Read {
        let sent = self.clock.now();
        let leads = match self.lease.read().await {
            Ok(lease) => lease.filter(|lease| lease.holder == self.identity),
            Err(error) => {
                tracing::debug!(%error, "no answer whether this replica still leads");
                None
            }
        };
        Read { sent, leads: leads.map(|lease| number(lease.transitions)) }
    }
}

/// The number of a term, as gateways know it.
pub(crate) fn number(transitions: i32) -> Term {
    Term(u64::try_from(transitions).unwrap_or_default())
}
