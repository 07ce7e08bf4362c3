//! The watches on their way: when their events arrive, and how they are disturbed.

use std::task::{Poll, Waker};

use super::{BOOKMARK, Mode, Network};
use crate::{
    executor::ProcessId,
    object::REGISTRATIONS,
    store::{Change, Resource},
    watches::{End, Id, Next},
    wire::Asked,
};

impl Network {
    pub(super) fn begin_watch(
        &self,
        place: usize,
        process: ProcessId,
        asked: &Asked,
        (from, seconds, bookmarks): (u64, u64, bool),
    ) -> Id {
        if asked.namespace.is_none() {
            self.check.watches(process, asked.resource);
        }
        let id = {
            let store = self.server.store.borrow();
            self.watches.begin(process, place, asked, from, store.log(asked.resource))
        };
        self.catch_up(id);
        let this = self.rc();
        self.executor.after(seconds * 1000, move || this.watches.end(id, End::Resumable));
        if bookmarks {
            self.bookmark_later(id);
        }
        id
    }

    fn bookmark_later(&self, id: Id) {
        let this = self.rc();
        self.executor.after(BOOKMARK, move || {
            let Some(resource) = this.watches.resource(id) else { return };
            let store = this.server.store.borrow();
            this.watches.bookmark(id, store.log(resource).len(), store.version());
            drop(store);
            this.bookmark_later(id);
        });
    }

    pub(super) fn announce(&self, resource: Resource) {
        self.watches.following(resource).into_iter().for_each(|id| self.catch_up(id));
    }

    /// Schedules that the present content of the log arrives soon.
    pub fn catch_up(&self, id: Id) {
        let Some(resource) = self.watches.resource(id) else { return };
        let upto = self.server.store.borrow().log(resource).len();
        let lag = self.executor.random.between(0, self.conditions.get().lag);
        let this = self.rc();
        self.executor.after(lag, move || {
            // A suspended API server sends nothing. It catches up when it resumes.
            if this.mode.get() != Mode::Frozen {
                this.watches.deliver(id, upto);
            }
        });
    }

    pub fn poll_watch(&self, id: Id, waker: &Waker) -> Poll<Next> {
        let resource = self.watches.resource(id);
        let log = |resource: Resource, at: usize| -> Option<Change> {
            self.server.store.borrow().log(resource).get(at).cloned()
        };
        self.watches.poll(id, log, waker).map(|next| match (next, resource) {
            (Next::Line(line, change), Some(resource)) => {
                if let Some(after) = change.as_ref().and_then(|change| change.after.as_ref())
                    && let Some(process) = self.watches.process(id)
                    && resource == REGISTRATIONS
                {
                    self.check.shown(process, &after.value);
                }
                let line = self.without.rewrite(resource, &line).unwrap_or(line);
                Next::Line(line, change)
            }
            (next, _) => next,
        })
    }

    /// Stops the events of a watch without breaking it, so the process does not notice.
    pub fn stall(&self, place: usize, resource: Resource) {
        let of = self.watches.of(place, resource);
        of.into_iter().for_each(|id| self.watches.set_stalled(id, true));
    }

    pub fn unstall(&self, place: usize, resource: Resource) {
        for id in self.watches.of(place, resource) {
            self.watches.set_stalled(id, false);
            self.catch_up(id);
        }
    }

    /// Delivers events again that were delivered before.
    pub fn repeat(&self, place: usize, resource: Resource, events: usize) {
        for id in self.watches.of(place, resource) {
            self.watches.go_back(id, events, self.server.store.borrow().log(resource));
            self.catch_up(id);
        }
    }

    pub fn break_watches(&self, place: usize, resource: Resource, how: End) {
        self.watches.of(place, resource).into_iter().for_each(|id| self.watches.end(id, how));
    }
}
