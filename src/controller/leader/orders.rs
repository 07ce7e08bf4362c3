//! What other parts of the process ask of the task that writes the election's Lease.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot};

use beatkeeper_core::carriers::frames::{Incarnation, Term};

/// An order.
pub(crate) enum Order {
    /// To list gateways.
    List(ListOrder),
    /// To claim a term above this one.
    Exceed(Term),
}

/// An order to list gateways.
pub(crate) struct ListOrder {
    /// The term that the list belongs to.
    pub(crate) term: Term,
    pub(crate) gateways: BTreeSet<Incarnation>,
    /// Learns whether the Lease lists them.
    pub(crate) done: oneshot::Sender<bool>,
}

/// The sender of orders. The task takes the next order when it waits.
#[derive(Clone)]
pub(crate) struct Orders {
    sender: mpsc::UnboundedSender<Order>,
    /// One more than the highest term that was sent; 0 before the first one. So a term that is told again and again is
    /// sent once.
    exceeded: Arc<AtomicU64>,
}

impl Orders {
    /// The sender, and the end of the task.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, exceeded: Arc::default() }, receiver)
    }

    /// Orders a list, and waits until it is written. Returns whether it was.
    pub(crate) async fn list(&self, term: Term, gateways: BTreeSet<Incarnation>) -> bool {
        let (done, written) = oneshot::channel();
        let order = Order::List(ListOrder { term, gateways, done });
        // An error means that the election is over.
        self.sender.send(order).is_ok() && written.await.unwrap_or(false)
    }

    /// Orders a term above this one.
    pub(crate) fn exceed(&self, term: Term) {
        let next = term.0.saturating_add(1);
        if self.exceeded.fetch_max(next, Ordering::Relaxed) < next {
            let _ = self.sender.send(Order::Exceed(term));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_is_told_again_is_ordered_once() {
        let (orders, mut receiver) = Orders::new();
        for term in [3, 3, 2, 0, 4] {
            orders.exceed(Term(term));
        }
        let mut received = Vec::new();
        while let Ok(Order::Exceed(Term(term))) = receiver.try_recv() {
            received.push(term);
        }
        assert_eq!(received, [3, 4]);
    }

    #[tokio::test]
    async fn a_list_that_is_not_written_is_answered_when_the_election_is_over() {
        let (orders, receiver) = Orders::new();
        let list = orders.list(Term(1), BTreeSet::new());
        let (written, ()) = tokio::join!(list, async { drop(receiver) });
        assert!(!written);
    }
}
