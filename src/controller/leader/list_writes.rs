//! The list of gateways that waits to be written into the election's Lease (G5).

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use crate::controller::leader::orders::ListOrder;
use beatkeeper_core::carriers::frames::{Incarnation, Term};

/// The order that waits. There is at most one, and only in the present term.
#[derive(Default)]
pub(crate) struct ListWrites {
    /// None while this replica does not lead.
    term: Option<Term>,
    waiting: Option<Waiting>,
}

struct Waiting {
    gateways: BTreeSet<Incarnation>,
    /// Learns whether they are written.
    done: oneshot::Sender<bool>,
}

impl ListWrites {
    /// A term begins.
    pub(crate) fn begin_term(&mut self, term: Term) {
        self.end_term();
        self.term = Some(term);
    }

    /// The term is over. What was not written will not be: another replica may lead.
    pub(crate) fn end_term(&mut self) {
        self.answer(false);
        self.term = None;
    }

    /// Takes an order, in the place of one that still waits. Returns whether it is of this term. What will not be
    /// written is answered.
    pub(crate) fn take(&mut self, order: ListOrder) -> bool {
        let ListOrder { term, gateways, done } = order;
        if self.term != Some(term) {
            // An error means that the sender of the order does not wait any longer. So it does in `answer`.
            let _ = done.send(false);
            return false;
        }
        self.answer(false);
        self.waiting = Some(Waiting { gateways, done });
        true
    }

    /// What has to be written with a claim in this term; None if nothing waits, or the term is another one.
    pub(crate) fn to_write(&self, term: Term) -> Option<BTreeSet<Incarnation>> {
        let waiting = self.waiting.as_ref().filter(|_| self.term == Some(term))?;
        Some(waiting.gateways.clone())
    }

    /// Tells the sender of the order whether its list is written.
    pub(crate) fn answer(&mut self, written: bool) {
        if let Some(Waiting { done, .. }) = self.waiting.take() {
            let _ = done.send(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(4);

    fn gateways(pods: &[&str]) -> BTreeSet<Incarnation> {
        pods.iter().map(|&pod| Incarnation { pod: pod.into(), epoch: 1 }).collect()
    }

    fn begun() -> ListWrites {
        let mut lists = ListWrites::default();
        lists.begin_term(TERM);
        lists
    }

    fn list(lists: &mut ListWrites, term: Term, pods: &[&str]) -> oneshot::Receiver<bool> {
        let (done, written) = oneshot::channel();
        lists.take(ListOrder { term, gateways: gateways(pods), done });
        written
    }

    #[test]
    fn a_list_is_written_once() {
        let mut lists = begun();
        assert_eq!(lists.to_write(TERM), None);
        let mut written = list(&mut lists, TERM, &["new"]);
        assert_eq!(lists.to_write(TERM), Some(gateways(&["new"])));
        assert!(written.try_recv().is_err(), "not yet");
        lists.answer(true);
        assert_eq!(written.try_recv(), Ok(true));
        assert_eq!(lists.to_write(TERM), None);
    }

    #[test]
    fn a_list_of_another_term_is_not_written() {
        let mut lists = begun();
        let mut early = list(&mut lists, Term(3), &["a"]);
        assert_eq!((early.try_recv(), lists.to_write(TERM)), (Ok(false), None));
        let mut late = list(&mut lists, TERM, &["a"]);
        assert_eq!(lists.to_write(Term(5)), None);
        lists.begin_term(Term(5));
        assert_eq!((late.try_recv(), lists.to_write(Term(5))), (Ok(false), None));
    }

    #[test]
    fn a_list_does_not_wait_for_another_term() {
        let mut lists = begun();
        let mut late = list(&mut lists, TERM, &["a"]);
        lists.end_term();
        let mut later = list(&mut lists, TERM, &["a"]);
        assert_eq!((late.try_recv(), later.try_recv()), (Ok(false), Ok(false)));
    }

    #[test]
    fn a_later_list_takes_the_place_of_one_that_waits() {
        let mut lists = begun();
        let mut first = list(&mut lists, TERM, &["a"]);
        let _second = list(&mut lists, TERM, &["b"]);
        assert_eq!(first.try_recv(), Ok(false));
        assert_eq!(lists.to_write(TERM), Some(gateways(&["b"])));
    }
}
