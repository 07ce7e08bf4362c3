//! Leadership: whether this process may write to the API server, and until when.
//!
//! Without leader election it always may. With leader election every write checks it right before it is
//! sent ([`crate::controller::context::call_write`]), except writes of the operator's own Leases. So a process that was
//! suspended, or that cannot reach the API server, stops writing before another replica may lead.

use std::time::Duration;

use tokio::sync::watch;

use crate::controller::clock::Clock;
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;

/// A term of this process. Each term has its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term(pub(crate) u64);

/// The state of the election, as seen by this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The current term of this process; None if it does not lead.
    pub(crate) term: Option<Term>,
    /// Until when this process leads without another answer from the API server. A renewal changes it without a
    /// notification.
    pub(crate) valid_until: MonotonicTime,
}

/// Whether this process may write. All clones share the same state.
#[derive(Debug, Clone)]
pub(crate) struct Leadership {
    clock: Clock,
    /// None without election.
    standing: Option<watch::Receiver<Standing>>,
}

impl Leadership {
    /// Without leader election. It always holds.
    pub(crate) fn without_election(clock: Clock) -> Self {
        Self { clock, standing: None }
    }

    /// With an election, which decides.
    pub(crate) fn elected(clock: Clock, standing: watch::Receiver<Standing>) -> Self {
        Self { clock, standing: Some(standing) }
    }

    /// For how long this process still leads; None if it does not lead.
    pub(crate) fn left(&self) -> Option<Duration> {
        let Some(standing) = &self.standing else { return Some(Duration::MAX) };
        let Standing { term, valid_until } = *standing.borrow();
        let left = valid_until.since(self.clock.now());
        (term.is_some() && !left.is_zero()).then_some(left)
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
        Standing { term: Some(Term(1)), valid_until: clock.now() + left }
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
