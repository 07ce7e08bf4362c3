//! The watches of the processes. Their events are delayed; watches stall, break, and deliver events again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    task::{Poll, Waker},
};

use hyper::body::Bytes;
use serde_json::json;

use crate::{
    executor::ProcessId,
    object::KINDS,
    store::{Change, Resource, Stored},
    wire::{Asked, Refusal, Selector, kind},
};

/// How a watch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection ends, and the next watch continues where it was.
    Resumable,
    /// The history is gone, so the next watch needs a new list.
    Expired,
}

/// One watch of one process.
struct Watch {
    process: ProcessId,
    place: usize,
    resource: Resource,
    namespace: Option<String>,
    selector: Selector,
    /// Changes up to this version are known.
    from: u64,
    /// The positions in the log up to which the events have been read, and have arrived.
    cursor: usize,
    arrived: usize,
    stalled: bool,
    ended: Option<End>,
    /// Lines that are no events of objects.
    extra: VecDeque<Bytes>,
    waker: Option<Waker>,
}

impl Watch {
    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Whether the operator follows a whole kind by this watch. Another watch is that of the leader election's Lease.
    fn is_whole(&self) -> bool {
        self.namespace.is_none()
    }

    fn delivers(&self) -> bool {
        self.ended.is_none() && !self.stalled
    }

    /// The event that a change is for this watch.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let shown = |object: &Option<Rc<Stored>>| {
            let namespace = self.namespace.as_deref();
            let shown = |object: &&Rc<Stored>| {
                namespace.is_none_or(|it| object.key().namespace == it)
                    && self.selector.selects(object)
            };
            object.as_ref().filter(shown).cloned()
        };
        if change.version <= self.from {
            return None;
        }
        let (word, text) = match (shown(&change.before), shown(&change.after)) {
            (None, Some(object)) => ("ADDED", object.text.clone()),
            (Some(_), Some(object)) => ("MODIFIED", object.text.clone()),
            (Some(before), None) => ("DELETED", before.deleted_at(change.version).text.clone()),
            (None, None) => return None,
        };
        Some(line(word, &text))
    }
}

fn line(word: &str, object: &[u8]) -> Bytes {
    let mut line = format!("{{\"type\":\"{word}\",\"object\":").into_bytes();
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// The number of a watch.
pub type Id = u64;

/// What a watch delivers next.
pub enum Next {
    /// An event, and the change that it tells of, if any.
    Line(Bytes, Option<Change>),
    End,
}

#[derive(Default)]
pub struct Watches {
    all: RefCell<BTreeMap<Id, Watch>>,
    next: std::cell::Cell<Id>,
}

impl Watches {
    pub fn begin(
        &self,
        process: ProcessId,
        place: usize,
        asked: &Asked,
        from: u64,
        log: &[Change],
    ) -> Id {
        let id = self.next.replace(self.next.get() + 1);
        let watch = Watch {
            process,
            place,
            resource: asked.resource,
            namespace: asked.namespace.clone(),
            selector: asked.selector.clone(),
            from,
            cursor: log.partition_point(|change| change.version <= from),
            arrived: 0,
            stalled: false,
            ended: None,
            extra: VecDeque::new(),
            waker: None,
        };
        self.all.borrow_mut().insert(id, watch);
        id
    }

    /// The client has closed the connection.
    pub fn close(&self, id: Id) {
        self.all.borrow_mut().remove(&id);
    }

    pub fn forget(&self, process: ProcessId) {
        self.all.borrow_mut().retain(|_, watch| watch.process != process);
    }

    pub fn clear(&self) {
        self.all.borrow_mut().clear();
    }

    pub fn process(&self, id: Id) -> Option<ProcessId> {
        self.all.borrow().get(&id).map(|watch| watch.process)
    }

    /// The watches for which a change of this kind is news.
    pub fn following(&self, resource: Resource) -> Vec<Id> {
        let all = self.all.borrow();
        let of = |(_, watch): &(&Id, &Watch)| watch.resource == resource && watch.delivers();
        all.iter().filter(of).map(|(id, _)| *id).collect()
    }

    pub fn resource(&self, id: Id) -> Option<Resource> {
        self.all.borrow().get(&id).map(|watch| watch.resource)
    }

    /// The events up to this position arrive.
    pub fn deliver(&self, id: Id, upto: usize) {
        if let Some(watch) = self.all.borrow_mut().get_mut(&id)
            && watch.delivers()
            && watch.arrived < upto
        {
            watch.arrived = upto;
            watch.wake();
        }
    }

    /// Sends a bookmark, unless there are events to send.
    pub fn bookmark(&self, id: Id, log: usize, version: u64) {
        if let Some(watch) = self.all.borrow_mut().get_mut(&id)
            && watch.delivers()
            && watch.cursor == log
        {
            let (kind, api) = kind(watch.resource);
            let metadata = json!({ "resourceVersion": version.to_string() });
            let object = json!({ "kind": kind, "apiVersion": api, "metadata": metadata });
            watch.extra.push_back(line("BOOKMARK", object.to_string().as_bytes()));
            watch.wake();
        }
    }

    pub fn end(&self, id: Id, how: End) {
        if let Some(watch) = self.all.borrow_mut().get_mut(&id)
            && watch.ended.is_none()
        {
            watch.ended = Some(how);
            watch.wake();
        }
    }

    /// The next line of a watch.
    pub fn poll(
        &self,
        id: Id,
        log: impl Fn(Resource, usize) -> Option<Change>,
        waker: &Waker,
    ) -> Poll<Next> {
        let mut all = self.all.borrow_mut();
        let Some(watch) = all.get_mut(&id) else { return Poll::Ready(Next::End) };
        if let Some(how) = watch.ended {
            if how == End::Expired {
                watch.ended = Some(End::Resumable);
                let line = line("ERROR", &Refusal::expired().body());
                return Poll::Ready(Next::Line(line, None));
            }
            return Poll::Ready(Next::End);
        }
        while watch.cursor < watch.arrived {
            // After a rollback the log may be shorter.
            let Some(change) = log(watch.resource, watch.cursor) else { break };
            watch.cursor += 1;
            if let Some(line) = watch.event(&change) {
                return Poll::Ready(Next::Line(line, Some(change)));
            }
        }
        if let Some(line) = watch.extra.pop_front() {
            return Poll::Ready(Next::Line(line, None));
        }
        watch.waker = Some(waker.clone());
        Poll::Pending
    }

    pub fn of(&self, place: usize, resource: Resource) -> Vec<Id> {
        let all = self.all.borrow();
        let of = |(_, watch): &(&Id, &Watch)| watch.place == place && watch.resource == resource;
        all.iter().filter(of).map(|(id, _)| *id).collect()
    }

    pub fn ids(&self) -> Vec<Id> {
        self.all.borrow().keys().copied().collect()
    }

    pub fn set_stalled(&self, id: Id, stalled: bool) {
        if let Some(watch) = self.all.borrow_mut().get_mut(&id) {
            watch.stalled = stalled;
        }
    }

    /// Goes back by some events, which are then delivered again.
    pub fn go_back(&self, id: Id, events: usize, log: &[Change]) {
        if let Some(watch) = self.all.borrow_mut().get_mut(&id)
            && watch.cursor <= log.len()
        {
            watch.cursor = watch.cursor.saturating_sub(events);
            watch.arrived = watch.cursor;
            let known = log[..watch.cursor].last().map_or(0, |change| change.version);
            watch.from = watch.from.min(known);
        }
    }

    /// How far a process has read the log of a kind.
    pub fn cursor(&self, process: ProcessId, resource: Resource) -> Option<usize> {
        let all = self.all.borrow();
        let of = |watch: &&Watch| {
            watch.process == process && watch.resource == resource && watch.is_whole()
        };
        all.values().filter(of).map(|watch| watch.cursor).max()
    }

    /// Whether the watch of a kind delivers to this process.
    pub fn deliver_to(&self, process: ProcessId, resource: Resource) -> bool {
        let all = self.all.borrow();
        all.values().any(|watch| {
            watch.process == process
                && watch.resource == resource
                && watch.is_whole()
                && watch.delivers()
        })
    }

    /// Whether the watches of all kinds deliver to this process.
    pub fn show_all_to(&self, process: ProcessId) -> bool {
        KINDS.iter().all(|kind| self.deliver_to(process, kind))
            && self.all.borrow().values().all(|watch| watch.process != process || !watch.stalled)
    }
}
