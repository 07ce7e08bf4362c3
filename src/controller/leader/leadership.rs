//! Leadership: whether this process may write to the API server, and until when.
//!
//! Without leader election it always may. With leader election every write checks it right before it is
//! sent ([`crate::controller::context::call_write`]), except writes of the operator's own Leases. So a process that was
//! suspended, or that cannot reach the API server, stops writing before another replica may lead.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::controller::{
    clock::Clock,
    leader::{confirmation::Confirmation, orders::Orders},
};
use beatkeeper_core::{
    carriers::{
        frames::{self, Incarnation},
        set::Claim,
    },
    vocabulary::monotonic_time::MonotonicTime,
};

/// A term of this process. Each term has its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term(pub(crate) u64);

/// The state of the election, as seen by this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The current term of this process; None if it does not lead.
    pub(crate) term: Option<Term>,
    /// Until when this process leads without another answer from the API server. A renewal changes it without a
    /// notification.
    pub(crate) valid_until: MonotonicTime,
    /// The number of the term in the election's Lease, by which gateways know it. Another number is another term. Two
    /// terms of this process have the same number only if no other replica led in between.
    pub(crate) number: Option<frames::Term>,
    /// The gateways that the Lease listed when the term began; None without a list.
    pub(crate) listed: Option<Arc<BTreeSet<Incarnation>>>,
}

/// Whether this process may write. All clones share the same state.
#[derive(Clone)]
pub(crate) struct Leadership {
    clock: Clock,
    /// None without election.
    standing: Option<watch::Receiver<Standing>>,
    /// The way to the election's Lease; None without election.
    lease: Option<Arc<LeaseAccess>>,
}

/// How other parts of the process read and write the election's Lease.
pub(crate) struct LeaseAccess {
    pub(crate) orders: Orders,
    pub(crate) confirmation: Confirmation,
}

impl Leadership {
    /// Without leader election. It always holds.
    pub(crate) fn without_election(clock: Clock) -> Self {
        Self { clock, standing: None, lease: None }
    }

    /// With an election, which decides.
    pub(crate) fn elected(clock: Clock, standing: watch::Receiver<Standing>) -> Self {
        Self { clock, standing: Some(standing), lease: None }
    }

    /// With this way to the election's Lease.
    pub(crate) fn through(self, lease: LeaseAccess) -> Self {
        Self { lease: Some(Arc::new(lease)), ..self }
    }

    /// For how long this process still leads; None if it does not lead.
    pub(crate) fn left(&self) -> Option<Duration> {
        let Some(standing) = &self.standing else { return Some(Duration::MAX) };
        let standing = standing.borrow();
        let left = standing.valid_until.since(self.clock.now());
        (standing.term.is_some() && !left.is_zero()).then_some(left)
    }

    /// The current term of this process; None if it does not lead.
    pub(crate) fn term(&self) -> Option<Term> {
        let term = self.standing.as_ref().map_or(Some(Term(0)), |it| it.borrow().term);
        term.filter(|_| self.holds())
    }

    /// Whether this process leads now.
    pub(crate) fn holds(&self) -> bool {
        self.left().is_some()
    }

    /// Waits until this process leads. Never returns if this process cannot lead any more.
    pub(crate) async fn leads(&self) -> Term {
        let Some(standing) = &self.standing else { return Term(0) };
        let mut standing = standing.clone();
        let led = standing.wait_for(|standing| standing.term.is_some()).await;
        let Some(term) = led.ok().map(|standing| standing.term.unwrap_or(Term(0))) else {
            return std::future::pending().await;
        };
        term
    }

    /// Waits until a term is over.
    pub(crate) async fn lost(&self, term: Term) {
        match &self.standing {
            // An error means that the election is over, and the term with it.
            Some(standing) => {
                let _ = standing.clone().wait_for(|standing| standing.term != Some(term)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// The claim of this replica, asked now: the number of its term, and until when it holds. None if it does not lead,
    /// and without election.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let standing = self.standing.as_ref()?.borrow();
        let term = standing.number.filter(|_| standing.term.is_some())?;
        let until = standing.valid_until;
        (self.clock.now() < until).then_some(Claim { term, until })
    }

    /// The gateways that the election's Lease listed when this replica claimed it for its last term. None if there was
    /// no list, or one that cannot be read.
    pub(crate) fn listed(&self) -> Option<BTreeSet<Incarnation>> {
        let standing = self.standing.as_ref()?.borrow();
        standing.listed.as_deref().cloned()
    }

    /// Writes these gateways into the election's Lease, by a renewal at once. The set replaces the list
    /// before. Returns whether the Lease lists them, and no others. False if the term is over, or the write has failed: the
    /// caller tries again, from its present list.
    pub(crate) async fn list(&self, term: frames::Term, gateways: BTreeSet<Incarnation>) -> bool {
        match &self.lease {
            Some(lease) => lease.orders.list(term, gateways).await,
            None => false,
        }
    }

    /// Reads the election's Lease by a quorum (G10). Returns the sending of a read that was sent after this call and
    /// shows this replica as the holder in this term. None if it shows something else, without an answer in time, and
    /// without election.
    pub(crate) async fn confirm(&self, term: frames::Term) -> Option<MonotonicTime> {
        let leads = self.claim().is_some_and(|claim| claim.term == term);
        let lease = self.lease.as_ref().filter(|_| leads)?;
        lease.confirmation.of(term).await
    }

    /// A gateway knows this term from another replica. The next claim is above it. If this replica leads in a term that
    /// is not above it, it claims anew at once, which begins another term.
    pub(crate) fn exceed(&self, term: frames::Term) {
        if let Some(lease) = &self.lease {
            lease.orders.exceed(term);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn elected() -> (watch::Sender<Standing>, Leadership, Clock) {
        let clock = Clock::start();
        let (standing, receiver) = watch::channel(Standing::default());
        (standing, Leadership::elected(clock, receiver), clock)
    }

    fn leading(clock: Clock, left: Duration) -> Standing {
        let number = Some(frames::Term(7));
        Standing { term: Some(Term(1)), valid_until: clock.now() + left, number, listed: None }
    }

    #[test]
    fn without_election_it_always_holds() {
        let leadership = Leadership::without_election(Clock::start());
        assert_eq!(leadership.left(), Some(Duration::MAX));
        assert_eq!(leadership.leads().now_or_never(), Some(Term(0)));
        assert_eq!(leadership.lost(Term(0)).now_or_never(), None);
    }

    #[test]
    fn a_claim_ends_by_itself_at_its_deadline() {
        let (standing, leadership, clock) = elected();
        assert!(!leadership.holds());
        standing.send_replace(leading(clock, Duration::from_secs(60)));
        assert!(leadership.left().is_some_and(|left| left <= Duration::from_secs(60)));
        standing.send_replace(leading(clock, Duration::ZERO));
        assert_eq!(leadership.left(), None);
    }

    #[test]
    fn a_claim_is_shown_while_it_holds() {
        let (standing, leadership, clock) = elected();
        assert_eq!(leadership.claim(), None);
        let leading = leading(clock, Duration::from_secs(60));
        standing.send_replace(leading.clone());
        let claim = Claim { term: frames::Term(7), until: leading.valid_until };
        assert_eq!(leadership.claim(), Some(claim));
        standing.send_replace(Standing { valid_until: clock.now(), ..leading.clone() });
        assert_eq!(leadership.claim(), None);
        standing.send_replace(Standing { term: None, ..leading });
        assert_eq!(leadership.claim(), None);
    }

    #[tokio::test]
    async fn without_election_there_is_no_lease_for_gateways() {
        let leadership = Leadership::without_election(Clock::start());
        assert_eq!((leadership.claim(), leadership.listed()), (None, None));
        assert!(!leadership.list(frames::Term(0), BTreeSet::new()).await);
        assert_eq!(leadership.confirm(frames::Term(0)).await, None);
    }

    #[test]
    fn a_later_term_is_not_the_same() {
        let (standing, leadership, clock) = elected();
        standing.send_replace(leading(clock, Duration::from_secs(60)));
        let term = leadership.leads().now_or_never().expect("it leads");
        assert_eq!(leadership.lost(term).now_or_never(), None);
        standing.send_modify(|standing| standing.term = Some(Term(2)));
        assert_eq!(leadership.lost(term).now_or_never(), Some(()));
    }

    #[test]
    fn a_replica_that_left_the_election_does_not_lead() {
        let (standing, leadership, clock) = elected();
        standing.send_replace(leading(clock, Duration::from_secs(60)));
        let term = leadership.leads().now_or_never().expect("it leads");
        standing.send_replace(Standing::default());
        drop(standing);
        assert_eq!(leadership.lost(term).now_or_never(), Some(()));
        assert_eq!(leadership.leads().now_or_never(), None);
    }
}
