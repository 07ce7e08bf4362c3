//! Beats that wait for their answers. Those of one HTTP request wait together.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use beatkeeper_core::carriers::gateway::{Answer, RequestId};

/// The beats of one HTTP request.
#[derive(Debug)]
struct Group {
    answers: RefCell<Vec<Option<Answer>>>,
    left: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// All beats that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    open: RefCell<HashMap<RequestId, (Rc<Group>, usize)>>,
    cancelled: RefCell<Vec<RequestId>>,
}

impl Waiting {
    /// Lets these requests wait together.
    pub fn open(self: &Rc<Self>, requests: Vec<RequestId>) -> Pending {
        let group = Rc::new(Group {
            answers: RefCell::new(vec![None; requests.len()]),
            left: Cell::new(requests.len()),
            waker: RefCell::default(),
        });
        let places = requests.iter().enumerate();
        let open = places.map(|(place, request)| (*request, (group.clone(), place)));
        self.open.borrow_mut().extend(open);
        Pending { waiting: self.clone(), group, requests }
    }

    /// A request is answered.
    pub fn answer(&self, request: RequestId, answer: Answer) {
        let Some((group, place)) = self.open.borrow_mut().remove(&request) else { return };
        group.answers.borrow_mut()[place] = Some(answer);
        group.left.set(group.left.get() - 1);
        if group.left.get() == 0
            && let Some(waker) = group.waker.take()
        {
            waker.wake();
        }
    }

    /// The requests that were dropped before they were answered, since the last call.
    pub fn cancelled(&self) -> Vec<RequestId> {
        std::mem::take(&mut *self.cancelled.borrow_mut())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Waits until all beats of a request are answered. Dropping it cancels those that are not.
#[derive(Debug)]
pub struct Pending {
    waiting: Rc<Waiting>,
    group: Rc<Group>,
    requests: Vec<RequestId>,
}

impl Pending {
    /// The answers that there are, in the order of the beats.
    pub fn so_far(&self) -> Vec<Option<Answer>> {
        self.group.answers.borrow().clone()
    }
}

impl Future for Pending {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.group.left.get() == 0 {
            return Poll::Ready(());
        }
        let mut waker = self.group.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.group.left.get() == 0 {
            return;
        }
        let mut open = self.waiting.open.borrow_mut();
        let left = self.requests.iter().filter(|request| open.remove(request).is_some());
        self.waiting.cancelled.borrow_mut().extend(left);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn beats_of_one_request_are_answered_together_in_their_order() {
        let waiting = Rc::new(Waiting::default());
        let mut pending = waiting.open(vec![RequestId(1), RequestId(2)]);
        waiting.answer(RequestId(2), Answer::Unknown);
        assert!((&mut pending).now_or_never().is_none());
        assert_eq!(pending.so_far(), [None, Some(Answer::Unknown)]);
        waiting.answer(RequestId(2), Answer::Unknown);
        assert!((&mut pending).now_or_never().is_none(), "a second answer counts for nothing");
        waiting.answer(RequestId(1), Answer::Unknown);
        assert!((&mut pending).now_or_never().is_some());
    }

    #[test]
    fn a_request_that_is_dropped_cancels_what_has_no_answer() {
        let waiting = Rc::new(Waiting::default());
        let pending = waiting.open(vec![RequestId(1), RequestId(2)]);
        waiting.answer(RequestId(1), Answer::Unknown);
        drop(pending);
        assert_eq!(waiting.cancelled(), [RequestId(2)]);
        assert!(waiting.is_empty());
        waiting.answer(RequestId(2), Answer::Unknown);
    }
}
