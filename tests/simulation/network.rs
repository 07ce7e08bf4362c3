//! The network between the processes and the API server. Requests can be slow, lost or unanswered. Watches can
//! lag, stall, break and start again.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use crate::{
    api::{Api, Call, Change, Refusal, Reply, Took},
    executor::{Executor, ProcessId},
    object::{KINDS, Kind},
};

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A replica, identified by its place. The process at this place may change.
    Controller(usize),
    /// A workload of this namespace.
    Workload { namespace: &'static str, number: usize },
    /// A person. The requests of people take effect at once.
    Person,
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
pub struct Weather {
    /// The longest latency in each direction, in milliseconds.
    pub latency: u64,
    /// Percentages: of lost requests, of lost answers, and of refusals (429, 500).
    pub lost: u64,
    pub unanswered: u64,
    pub refused: u64,
    /// The longest delay of a watch event, in milliseconds.
    pub lag: u64,
}

pub const FAIR: Weather = Weather { latency: 3, lost: 0, unanswered: 0, refused: 0, lag: 3 };

/// The reason for a request. The check of the request's effect gets it.
pub type Purpose = Rc<dyn std::any::Any>;

struct Pending {
    answer: Option<Reply>,
    task: (ProcessId, u64),
}

/// One watch of one process.
pub struct Watch {
    pub process: ProcessId,
    pub controller: usize,
    pub kind: Kind,
    /// The positions in the log up to which the events have been taken in, and have arrived.
    pub cursor: usize,
    arrived: usize,
    pub live: bool,
    stalled: bool,
    take_in: Rc<dyn Fn(Change)>,
    /// Called when the watch breaks; the argument is true if the watch can continue at its position.
    broken: Rc<dyn Fn(bool)>,
}

type Observer = Rc<dyn Fn(&Api, &Caller, Option<&Purpose>, &Took)>;

type Teller = Rc<dyn Fn(&dyn Fn() -> String)>;

pub struct Network {
    pub executor: Rc<Executor>,
    pub api: RefCell<Api>,
    pub mode: Cell<Mode>,
    pub weather: Cell<Weather>,
    cut: RefCell<BTreeSet<Caller>>,
    cut_namespaces: RefCell<BTreeSet<&'static str>>,
    pending: RefCell<BTreeMap<u64, Pending>>,
    frozen: RefCell<Vec<Box<dyn FnOnce()>>>,
    next: Cell<u64>,
    pub watches: RefCell<Vec<Watch>>,
    observer: RefCell<Option<Observer>>,
    asked: Cell<u64>,
    /// Receives each write of a controller, except those of Leases, for a trace.
    pub told: RefCell<Option<Teller>>,
}

impl Network {
    pub fn new(executor: Rc<Executor>) -> Rc<Self> {
        Rc::new(Self {
            executor,
            api: RefCell::default(),
            mode: Cell::new(Mode::Up),
            weather: Cell::new(FAIR),
            cut: RefCell::default(),
            cut_namespaces: RefCell::default(),
            pending: RefCell::default(),
            frozen: RefCell::default(),
            next: Cell::new(0),
            watches: RefCell::default(),
            observer: RefCell::default(),
            asked: Cell::new(0),
            told: RefCell::default(),
        })
    }

    pub fn observe(&self, observer: Observer) {
        *self.observer.borrow_mut() = Some(observer);
    }

    pub fn end(&self) {
        self.observer.borrow_mut().take();
        self.told.borrow_mut().take();
        self.watches.borrow_mut().clear();
        self.frozen.borrow_mut().clear();
    }

    fn is_cut(&self, caller: &Caller) -> bool {
        self.cut.borrow().contains(caller)
            || matches!(caller, Caller::Workload { namespace, .. }
                if self.cut_namespaces.borrow().contains(namespace))
    }

    pub fn cut(&self, caller: Caller) {
        self.cut.borrow_mut().insert(caller);
    }

    pub fn mend(&self, caller: &Caller) {
        self.cut.borrow_mut().remove(caller);
    }

    pub fn cut_namespace(&self, namespace: &'static str) {
        self.cut_namespaces.borrow_mut().insert(namespace);
    }

    pub fn mend_namespace(&self, namespace: &'static str) {
        self.cut_namespaces.borrow_mut().remove(namespace);
    }

    pub fn set_mode(self: &Rc<Self>, mode: Mode) {
        self.mode.set(mode);
        match mode {
            Mode::Up => {
                let held = std::mem::take(&mut *self.frozen.borrow_mut());
                for request in held {
                    self.executor.after(self.executor.random.between(0, 40), request);
                }
            }
            Mode::Down => {
                self.frozen.borrow_mut().clear();
                let watches = self.watches.borrow().len();
                (0..watches).for_each(|n| self.break_watch(n, self.executor.random.percent(50)));
            }
            Mode::Frozen => {}
        }
    }

    /// Stops the API server so that a backup can be restored. Each watch keeps its position, as the watches of
    /// kube-runtime do.
    pub fn stop_for_a_restore(self: &Rc<Self>) {
        self.mode.set(Mode::Down);
        self.frozen.borrow_mut().clear();
        let watches = self.watches.borrow().len();
        (0..watches).for_each(|n| self.break_watch(n, true));
    }

    /// Sends a request, and waits for its answer for at most `timeout` milliseconds.
    pub fn call(
        self: &Rc<Self>,
        caller: Caller,
        call: Call,
        timeout: u64,
        purpose: Option<Purpose>,
    ) -> Calling {
        let id = self.next.replace(self.next.get() + 1);
        let task = self.executor.current();
        self.pending.borrow_mut().insert(id, Pending { answer: None, task });
        let (random, weather) = (&self.executor.random, self.weather.get());
        let way = random.between(1, weather.latency);
        let late = |this: &Rc<Self>| {
            let this2 = this.clone();
            this.executor.after(timeout, move || this2.answer(id, Err(Refusal::TimedOut)));
        };
        if self.is_cut(&caller) || random.percent(weather.lost) {
            if random.percent(50) {
                late(self);
            } else {
                self.answer_after(way, id, Err(Refusal::Unavailable));
            }
        } else {
            if self.mode.get() == Mode::Frozen || way * 2 >= timeout || weather.unanswered > 0 {
                late(self);
            }
            let this = self.clone();
            self.executor.after(way, move || this.arrive(id, caller, call, timeout, purpose));
        }
        Calling { network: self.clone(), id }
    }

    fn arrive(
        self: &Rc<Self>,
        id: u64,
        caller: Caller,
        call: Call,
        timeout: u64,
        purpose: Option<Purpose>,
    ) {
        let (random, weather) = (&self.executor.random, self.weather.get());
        let way = random.between(1, weather.latency);
        match self.mode.get() {
            Mode::Down => return self.answer_after(way, id, Err(Refusal::Unavailable)),
            Mode::Frozen => {
                let this = self.clone();
                self.executor.after(timeout, move || this.answer(id, Err(Refusal::TimedOut)));
                let this = self.clone();
                let again = move || this.arrive(id, caller, call, timeout, purpose);
                return self.frozen.borrow_mut().push(Box::new(again));
            }
            Mode::Up => {}
        }
        if random.percent(weather.refused) {
            return self.answer_after(way, id, Err(Refusal::Unavailable));
        }
        let reply = self.execute(&caller, call, purpose.as_ref());
        if !random.percent(weather.unanswered) && !self.is_cut(&caller) {
            self.answer_after(way, id, reply);
        } else {
            let this = self.clone();
            self.executor.after(timeout, move || this.answer(id, Err(Refusal::TimedOut)));
        }
    }

    /// Executes a request at this moment.
    pub fn execute(
        self: &Rc<Self>,
        caller: &Caller,
        call: Call,
        purpose: Option<&Purpose>,
    ) -> Reply {
        if matches!(caller, Caller::Controller(_)) && call.is_write() {
            self.asked.set(self.asked.get() + 1);
            if let Some(told) = &*self.told.borrow() {
                told(&|| format!("{caller:?}: {}", call.told()));
            }
        }
        let (reply, took) = self.api.borrow_mut().execute(call);
        if let Some(took) = took {
            let kind = took.after.as_ref().or(took.before.as_ref()).map(|object| object.kind());
            kind.into_iter().for_each(|kind| self.announce(kind));
            let observer = self.observer.borrow().clone();
            if let Some(observer) = observer {
                observer(&self.api.borrow(), caller, purpose, &took);
            }
        }
        reply
    }

    fn answer_after(self: &Rc<Self>, after: u64, id: u64, reply: Reply) {
        let this = self.clone();
        self.executor.after(after, move || this.answer(id, reply));
    }

    fn answer(&self, id: u64, reply: Reply) {
        if let Some(pending) = self.pending.borrow_mut().get_mut(&id)
            && pending.answer.is_none()
        {
            pending.answer = Some(reply);
            self.executor.wake(pending.task, 0);
        }
    }

    // Watches.

    /// Starts a watch at the position after a list.
    pub fn watch(
        self: &Rc<Self>,
        controller: usize,
        process: ProcessId,
        kind: Kind,
        cursor: usize,
        take_in: Rc<dyn Fn(Change)>,
        broken: Rc<dyn Fn(bool)>,
    ) {
        let mut watches = self.watches.borrow_mut();
        watches.retain(|watch| (watch.process, watch.kind) != (process, kind));
        watches.push(Watch {
            process,
            controller,
            kind,
            cursor,
            arrived: cursor,
            live: true,
            stalled: false,
            take_in,
            broken,
        });
        let n = watches.len() - 1;
        drop(watches);
        self.catch_up(n);
    }

    /// Returns the position of a process's watch in the log.
    pub fn cursor(&self, process: ProcessId, kind: Kind) -> usize {
        let watches = self.watches.borrow();
        let watch = watches.iter().find(|watch| (watch.process, watch.kind) == (process, kind));
        watch.map_or(0, |watch| watch.cursor)
    }

    fn announce(self: &Rc<Self>, kind: Kind) {
        let watches: Vec<usize> = {
            let watches = self.watches.borrow();
            let of =
                |n: &usize| watches[*n].kind == kind && watches[*n].live && !watches[*n].stalled;
            (0..watches.len()).filter(of).collect()
        };
        watches.into_iter().for_each(|n| self.catch_up(n));
    }

    /// Schedules that the present content of the log arrives soon.
    fn catch_up(self: &Rc<Self>, n: usize) {
        let (process, kind) = {
            let watch = &self.watches.borrow()[n];
            (watch.process, watch.kind)
        };
        let upto = self.api.borrow().log(kind).len();
        let lag = self.executor.random.between(0, self.weather.get().lag);
        let this = self.clone();
        self.executor.after(lag, move || this.deliver(process, kind, upto));
    }

    fn deliver(self: &Rc<Self>, process: ProcessId, kind: Kind, upto: usize) {
        {
            let mut watches = self.watches.borrow_mut();
            let Some(watch) = watches
                .iter_mut()
                .find(|watch| (watch.process, watch.kind) == (process, kind))
                .filter(|watch| watch.live && !watch.stalled && watch.arrived < upto)
            else {
                return;
            };
            watch.arrived = upto;
        }
        let this = self.clone();
        if self.executor.runs(process) {
            this.take_in(process, kind);
        } else {
            self.executor.after_in(process, 0, move || this.take_in(process, kind));
        }
    }

    fn take_in(&self, process: ProcessId, kind: Kind) {
        loop {
            let (change, take_in) = {
                let mut watches = self.watches.borrow_mut();
                let Some(watch) =
                    watches.iter_mut().find(|watch| (watch.process, watch.kind) == (process, kind))
                else {
                    return;
                };
                if !watch.live || watch.cursor >= watch.arrived {
                    return;
                }
                watch.cursor += 1;
                let change = self.api.borrow().log(kind)[watch.cursor - 1].clone();
                (change, watch.take_in.clone())
            };
            take_in(change);
        }
    }

    fn of(&self, controller: usize, kind: Kind) -> Vec<usize> {
        let watches = self.watches.borrow();
        (0..watches.len())
            .filter(|n| watches[*n].controller == controller && watches[*n].kind == kind)
            .collect()
    }

    /// Stops the events of a watch without breaking it, so the process does not notice.
    pub fn stall(&self, controller: usize, kind: Kind) {
        for n in self.of(controller, kind) {
            self.watches.borrow_mut()[n].stalled = true;
        }
    }

    pub fn unstall(self: &Rc<Self>, controller: usize, kind: Kind) {
        for n in self.of(controller, kind) {
            self.watches.borrow_mut()[n].stalled = false;
            self.catch_up(n);
        }
    }

    /// Delivers events again that were delivered before.
    pub fn repeat(self: &Rc<Self>, controller: usize, kind: Kind, events: usize) {
        for n in self.of(controller, kind) {
            {
                let mut watches = self.watches.borrow_mut();
                let watch = &mut watches[n];
                watch.cursor = watch.cursor.saturating_sub(events);
                watch.arrived = watch.cursor;
            }
            self.catch_up(n);
        }
    }

    pub fn break_watches(self: &Rc<Self>, controller: usize, kind: Kind, resumable: bool) {
        self.of(controller, kind).into_iter().for_each(|n| self.break_watch(n, resumable));
    }

    fn break_watch(self: &Rc<Self>, n: usize, resumable: bool) {
        let (process, broken) = {
            let mut watches = self.watches.borrow_mut();
            if !watches[n].live {
                return;
            }
            watches[n].live = false;
            (watches[n].process, watches[n].broken.clone())
        };
        self.executor.after_in(process, 0, move || broken(resumable));
    }

    pub fn forget_watch(&self, process: ProcessId, kind: Kind) {
        self.watches.borrow_mut().retain(|watch| (watch.process, watch.kind) != (process, kind));
    }

    pub fn forget(&self, process: ProcessId) {
        self.watches.borrow_mut().retain(|watch| watch.process != process);
    }

    /// Whether all watches of this process deliver.
    pub fn sees_all(&self, process: ProcessId) -> bool {
        let watches = self.watches.borrow();
        let mut own = watches.iter().filter(|watch| watch.process == process);
        own.clone().count() == KINDS.len() && own.all(|watch| watch.live && !watch.stalled)
    }

    pub fn nobody_is_cut(&self) -> bool {
        self.cut.borrow().is_empty() && self.cut_namespaces.borrow().is_empty()
    }

    /// How many writes the operator has requested, without its own Leases (P4).
    pub fn writes_of_controllers(&self) -> u64 {
        self.asked.get()
    }

    /// Whether the Lease watch of this process delivers.
    pub fn delivers(&self, process: ProcessId) -> bool {
        let watches = self.watches.borrow();
        watches.iter().any(|watch| {
            watch.process == process && watch.kind == Kind::Lease && watch.live && !watch.stalled
        })
    }

    pub fn mend_everything(self: &Rc<Self>) {
        self.weather.set(FAIR);
        self.cut.borrow_mut().clear();
        self.cut_namespaces.borrow_mut().clear();
        let controllers: BTreeSet<usize> =
            self.watches.borrow().iter().map(|watch| watch.controller).collect();
        for controller in controllers {
            KINDS.iter().for_each(|kind| self.unstall(controller, *kind));
        }
        if self.mode.get() != Mode::Up {
            self.set_mode(Mode::Up);
        }
    }
}

/// A request in progress. Dropping it does not cancel the request.
pub struct Calling {
    network: Rc<Network>,
    id: u64,
}

impl Future for Calling {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reply> {
        let mut pending = self.network.pending.borrow_mut();
        let answered = pending.get_mut(&self.id).and_then(|pending| pending.answer.take());
        answered.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.network.pending.borrow_mut().remove(&self.id);
    }
}
