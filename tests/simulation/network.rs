//! The network between the processes and the API server. Requests can be slow, lost or unanswered. Watches can
//! lag, stall, break and start again.

mod watching;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
};

use beatkeeper_core::vocabulary::key::Key;
use http::Request;
use hyper::body::Bytes;
use serde_json::Value;

use crate::{
    check::{Check, Purpose},
    executor::{Executor, ProcessId},
    object::{KINDS, PODS, REGISTRATIONS},
    rules::Without,
    server::{Answer, Server},
    store::{Preconditions, Resource},
    watches::{End, Id, Watches},
    wire::{Ask, Asked, Refusal},
};

/// The sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A process of the operator, and its place. The process at a place may change.
    Operator { place: usize, process: ProcessId },
    /// A workload of this namespace.
    Workload { namespace: &'static str, number: usize },
    /// A person, or another controller of the cluster. Their requests take effect at once.
    Person,
}

impl Caller {
    /// The process, if the operator sends the request.
    fn process(&self) -> Option<ProcessId> {
        if let Self::Operator { process, .. } = *self { Some(process) } else { None }
    }
}

/// What is cut off from the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    Operator(usize),
    Namespace(&'static str),
    Workload(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Connections are refused.
    Down,
    /// The API server is suspended: requests that arrive now are executed when it resumes.
    Frozen,
}

/// How requests and watch events are disturbed when there is no outage.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// The longest latency in each direction, in milliseconds.
    pub latency: u64,
    /// Percentages: of lost requests, of lost answers, and of refusals (429, 500, 503).
    pub lost: u64,
    pub unanswered: u64,
    pub refused: u64,
    /// The longest delay of a watch event, in milliseconds.
    pub lag: u64,
}

pub const GOOD: Conditions = Conditions { latency: 3, lost: 0, unanswered: 0, refused: 0, lag: 3 };

/// How many writes there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writes {
    /// Of Services, slices and Endpoints.
    pub addresses: u64,
    /// Of status and events, which may be delayed by their rate limits.
    pub reports: u64,
}

/// After this time a watch without events gets a bookmark, in milliseconds.
const BOOKMARK: u64 = 60_000;

/// What comes back for a request, unless nothing does.
pub enum Reply {
    Answer(Answer),
    Watch(Id),
    /// The connection is refused.
    Unreachable,
}

type Deliver = Box<dyn FnOnce(Reply)>;

struct Sent {
    caller: Caller,
    asked: Asked,
    purpose: Option<Purpose>,
    deliver: Deliver,
}

pub struct Network {
    pub executor: Rc<Executor>,
    pub server: Server,
    pub watches: Watches,
    pub check: Rc<Check>,
    pub mode: Cell<Mode>,
    pub conditions: Cell<Conditions>,
    /// How many lists are older than what was seen before, in percent.
    pub stale_lists: Cell<u64>,
    pub without: Without,
    cut: RefCell<BTreeSet<Cut>>,
    frozen: RefCell<Vec<Sent>>,
    writes: Cell<Writes>,
    this: std::rc::Weak<Self>,
}

impl Network {
    pub fn new(
        executor: Rc<Executor>,
        check: Rc<Check>,
        page: usize,
        without: Without,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            executor,
            server: Server::new(page),
            watches: Watches::default(),
            check,
            mode: Cell::new(Mode::Up),
            conditions: Cell::new(GOOD),
            stale_lists: Cell::new(0),
            without,
            cut: RefCell::default(),
            frozen: RefCell::default(),
            writes: Cell::default(),
            this: this.clone(),
        })
    }

    fn rc(&self) -> Rc<Self> {
        self.this.upgrade().expect("it is in use")
    }

    pub fn end(&self) {
        self.watches.clear();
        self.frozen.borrow_mut().clear();
    }

    fn is_cut(&self, caller: &Caller) -> bool {
        let cut = self.cut.borrow();
        match *caller {
            Caller::Operator { place, .. } => cut.contains(&Cut::Operator(place)),
            Caller::Workload { namespace, number } => {
                cut.contains(&Cut::Namespace(namespace)) || cut.contains(&Cut::Workload(number))
            }
            Caller::Person => false,
        }
    }

    pub fn cut(&self, what: Cut) {
        self.cut.borrow_mut().insert(what);
    }

    pub fn mend(&self, what: &Cut) {
        self.cut.borrow_mut().remove(what);
    }

    pub fn nothing_is_cut(&self) -> bool {
        self.cut.borrow().is_empty()
    }

    pub fn set_mode(&self, mode: Mode) {
        self.mode.set(mode);
        match mode {
            Mode::Up => {
                for sent in self.frozen.take() {
                    let this = self.rc();
                    let pause = self.executor.random.between(0, 40);
                    self.executor.after(pause, move || this.arrive(sent));
                }
                self.watches.ids().into_iter().for_each(|id| self.catch_up(id));
            }
            Mode::Down => self.stop(|| {
                if self.executor.random.percent(50) { End::Resumable } else { End::Expired }
            }),
            Mode::Frozen => {}
        }
    }

    /// Stops the API server so that a backup can be restored. Each watch keeps its position.
    pub fn stop_for_a_restore(&self) {
        self.mode.set(Mode::Down);
        self.stop(|| End::Resumable);
    }

    fn stop(&self, how: impl Fn() -> End) {
        self.frozen.borrow_mut().clear();
        self.server.forget_lists();
        self.watches.ids().into_iter().for_each(|id| self.watches.end(id, how()));
    }

    /// Sends a request of the operator in its form on the wire.
    pub fn send_request(
        &self,
        caller: Caller,
        request: &Request<Bytes>,
        deliver: impl FnOnce(Reply) + 'static,
    ) {
        let Some(asked) = Asked::read(request) else {
            let what = format!("{} {}", request.method(), request.uri());
            return deliver(Reply::Answer(Answer::Refused(Refusal::bad_request(what))));
        };
        if asked.is_write() {
            self.check.tell(|| {
                // kube-runtime makes names and times of events of the wall clock of this machine.
                if asked.resource == "events" {
                    return format!("{caller:?}: {} event", request.method());
                }
                let body = String::from_utf8_lossy(request.body());
                format!("{caller:?}: {} {} {body}", request.method(), request.uri().path())
            });
        }
        self.send(caller, asked, deliver);
    }

    /// Sends a request. It takes effect even if the sender does not wait for the answer.
    pub fn send(&self, caller: Caller, asked: Asked, deliver: impl FnOnce(Reply) + 'static) {
        let purpose = caller.process().map(|process| self.check.purpose(process));
        let sent = Sent { caller, asked, purpose, deliver: Box::new(deliver) };
        let (random, conditions) = (&self.executor.random, self.conditions.get());
        let way = random.between(1, conditions.latency);
        if self.is_cut(&caller) || random.percent(conditions.lost) {
            if random.percent(50) {
                self.answer(way, sent.deliver, Reply::Unreachable);
            } else {
                self.keep_unanswered(sent.deliver);
            }
            return;
        }
        let this = self.rc();
        self.executor.after(way, move || this.arrive(sent));
    }

    fn answer(&self, way: u64, deliver: Deliver, reply: Reply) {
        self.executor.after(way, move || deliver(reply));
    }

    /// No answer comes, and the connection stays open until the sender gives up.
    fn keep_unanswered(&self, deliver: Deliver) {
        self.executor.after(120_000, move || drop(deliver));
    }

    fn arrive(&self, sent: Sent) {
        let (random, conditions) = (&self.executor.random, self.conditions.get());
        let way = random.between(1, conditions.latency);
        match self.mode.get() {
            Mode::Down => return self.answer(way, sent.deliver, Reply::Unreachable),
            Mode::Frozen => return self.frozen.borrow_mut().push(sent),
            Mode::Up => {}
        }
        if random.percent(conditions.refused) {
            let refusal = Refusal::unavailable(random.index(3));
            return self.answer(way, sent.deliver, Reply::Answer(Answer::Refused(refusal)));
        }
        let Sent { caller, asked, purpose, deliver } = sent;
        let reply = match (&asked.ask, caller) {
            (Ask::Watch { from, seconds, bookmarks }, Caller::Operator { place, process }) => {
                if !self.executor.exists(process) {
                    return;
                }
                self.check.tell(|| format!("{caller:?}: watch {} from {from:?}", asked.resource));
                Reply::Watch(self.begin_watch(
                    place,
                    process,
                    &asked,
                    (*from, *seconds, *bookmarks),
                ))
            }
            _ => Reply::Answer(self.execute(&caller, &asked, purpose.as_ref())),
        };
        if !random.percent(conditions.unanswered) && !self.is_cut(&caller) {
            self.answer(way, deliver, reply);
        } else {
            if let Reply::Watch(id) = reply {
                self.watches.close(id);
            }
            self.keep_unanswered(deliver);
        }
    }

    /// Executes a request at this moment.
    pub fn execute(&self, caller: &Caller, asked: &Asked, purpose: Option<&Purpose>) -> Answer {
        let reader = caller.process();
        if reader.is_some() && asked.is_write() && !asked.dry_run {
            let mut writes = self.writes.get();
            match asked.resource {
                "events" | REGISTRATIONS => writes.reports += 1,
                _ => writes.addresses += 1,
            }
            self.writes.set(writes);
        }
        if let Some(answer) = reader.and_then(|process| self.without.answer(self, process, asked)) {
            return answer;
        }
        let upto = reader.and_then(|process| self.stale_list(process, asked));
        let (answer, change) = self.server.execute(asked, upto);
        if let Some(change) = change {
            self.announce(asked.resource);
            self.check.took(&self.server.store.borrow(), caller, purpose, &change);
        }
        if let (Some(process), Ask::List { .. }) = (reader, &asked.ask) {
            self.check.tell(|| format!("{caller:?}: list {} {upto:?}", asked.resource));
            self.note_list(process, asked, &answer);
        }
        match &answer {
            Answer::Object(_) | Answer::Text(_) if reader.is_some() => {
                self.without.rewrite(asked.resource, &answer.body()).map_or(answer, Answer::Text)
            }
            _ => answer,
        }
    }

    /// The length of the log that a list shows which is older than what the process has seen. The operator
    /// believes a list of Pods, because Pods have no label that they could lose. So a list of Pods is never stale here.
    fn stale_list(&self, process: ProcessId, asked: &Asked) -> Option<usize> {
        let Ask::List { token: None, limit } = asked.ask else { return None };
        let may_be_stale = asked.namespace.is_none()
            && limit != Some(1)
            && KINDS.contains(&asked.resource)
            && asked.resource != PODS
            && self.check.has_watched(process, asked.resource);
        let random = &self.executor.random;
        (may_be_stale && random.percent(self.stale_lists.get())).then(|| {
            let length = self.server.store.borrow().log(asked.resource).len();
            length.saturating_sub(usize::try_from(random.between(1, 20)).expect("few"))
        })
    }

    fn note_list(&self, process: ProcessId, asked: &Asked, answer: &Answer) {
        let Answer::Text(text) = answer else { return };
        if asked.resource == REGISTRATIONS {
            let list: Value = serde_json::from_slice(text).expect("a list");
            for object in list["items"].as_array().into_iter().flatten() {
                self.check.shown(process, object);
            }
        }
    }

    /// How many writes the operator has requested, without Leases (P4).
    pub fn writes_of_operators(&self) -> Writes {
        self.writes.get()
    }

    pub fn mend_everything(&self) {
        self.conditions.set(GOOD);
        self.stale_lists.set(0);
        self.cut.borrow_mut().clear();
        for id in self.watches.ids() {
            self.watches.set_stalled(id, false);
            self.catch_up(id);
        }
        if self.mode.get() != Mode::Up {
            self.set_mode(Mode::Up);
        }
    }

    // What people and other controllers of the cluster do.

    pub fn act(&self, ask: Ask, resource: Resource, key: &Key) -> Answer {
        self.execute(&Caller::Person, &Asked::object(ask, resource, key), None)
    }

    /// Creates an object together with its status.
    pub fn create(&self, resource: Resource, namespace: &str, object: Value) -> Answer {
        let status = object.get("status").cloned();
        let answer = self.act(Ask::Create(object), resource, &Key::new(namespace, ""));
        let (Answer::Object(made), Some(status)) = (&answer, status) else { return answer };
        let patch = Ask::Patch(serde_json::json!({ "status": status }));
        let asked = Asked { of_status: true, ..Asked::object(patch, resource, &made.key()) };
        self.execute(&Caller::Person, &asked, None)
    }

    pub fn delete(&self, resource: Resource, key: &Key, uid: Option<String>) {
        let only = Preconditions { uid, version: None };
        let _ = self.act(Ask::Delete(only), resource, key);
    }

    pub fn patch(&self, resource: Resource, key: &Key, patch: Value) {
        let _ = self.act(Ask::Patch(patch), resource, key);
    }
}
