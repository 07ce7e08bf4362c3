//! Virtual time, and the processes that run in it.
//!
//! A process is a small set of futures. They are polled only when the agenda says so. So a process can be
//! suspended (not polled while time goes on) or crash (dropped) at each of its awaits.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::random::Random;

/// A running program. A number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// An entry of the agenda.
pub enum Entry {
    Poll(ProcessId, u64),
    Do(Box<dyn FnOnce()>),
}

#[derive(Default)]
struct Process {
    suspended: bool,
    tasks: BTreeMap<u64, Option<Task>>,
    /// The entries that became due during the suspension. They are executed on resumption.
    missed: Vec<Entry>,
}

/// The agenda, the clock and the processes.
pub struct Executor {
    now: Cell<u64>,
    order: Cell<u64>,
    agenda: RefCell<BTreeMap<(u64, u64), Entry>>,
    processes: RefCell<BTreeMap<ProcessId, Process>>,
    next_id: Cell<u64>,
    current: Cell<Option<(ProcessId, u64)>>,
    pub random: Random,
}

impl Executor {
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(0),
            order: Cell::new(0),
            agenda: RefCell::default(),
            processes: RefCell::default(),
            next_id: Cell::new(1),
            current: Cell::new(None),
            random: Random::new(seed),
        })
    }

    /// The virtual time since the start, in milliseconds.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    fn id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// Schedules an action in `after` milliseconds. Actions that are due at the same moment happen in the order
    /// in which they were scheduled.
    pub fn after(&self, after: u64, action: impl FnOnce() + 'static) {
        self.put(after, Entry::Do(Box::new(action)));
    }

    fn put(&self, after: u64, entry: Entry) {
        let order = self.order.replace(self.order.get() + 1);
        self.agenda.borrow_mut().insert((self.now() + after, order), entry);
    }

    /// Schedules an action inside a process. If the process is suspended at that moment, the action happens on
    /// its resumption. If the process has crashed, the action never happens.
    pub fn after_in(
        self: &Rc<Self>,
        process: ProcessId,
        after: u64,
        action: impl FnOnce() + 'static,
    ) {
        let this = self.clone();
        self.after(after, move || {
            match this.processes.borrow_mut().get_mut(&process) {
                None => return,
                Some(state) if state.suspended => {
                    return state.missed.push(Entry::Do(Box::new(action)));
                }
                Some(_) => {}
            }
            action();
        });
    }

    pub fn start(&self) -> ProcessId {
        let id = ProcessId(self.id());
        self.processes.borrow_mut().insert(id, Process::default());
        id
    }

    pub fn spawn(&self, process: ProcessId, task: impl Future<Output = ()> + 'static) {
        let id = self.id();
        if let Some(state) = self.processes.borrow_mut().get_mut(&process) {
            state.tasks.insert(id, Some(Box::pin(task)));
        }
        self.put(0, Entry::Poll(process, id));
    }

    pub fn crash(&self, process: ProcessId) {
        let gone = self.processes.borrow_mut().remove(&process);
        drop(gone);
    }

    pub fn runs(&self, process: ProcessId) -> bool {
        self.processes.borrow().get(&process).is_some_and(|state| !state.suspended)
    }

    pub fn suspend(&self, process: ProcessId) {
        if let Some(state) = self.processes.borrow_mut().get_mut(&process) {
            state.suspended = true;
        }
    }

    /// Resumes a process. At random, the missed polls come before the other missed entries, because timers and
    /// sockets have no common order.
    pub fn resume(&self, process: ProcessId) {
        let mut missed = match self.processes.borrow_mut().get_mut(&process) {
            Some(state) if state.suspended => {
                state.suspended = false;
                std::mem::take(&mut state.missed)
            }
            _ => return,
        };
        if self.random.percent(50) {
            let (polls, others): (Vec<_>, Vec<_>) =
                missed.into_iter().partition(|entry| matches!(entry, Entry::Poll(..)));
            missed = polls.into_iter().chain(others).collect();
        }
        for entry in missed {
            self.put(0, entry);
        }
    }

    /// The task that is being polled.
    pub fn current(&self) -> (ProcessId, u64) {
        self.current.get().expect("called inside a task")
    }

    pub fn wake(&self, (process, task): (ProcessId, u64), after: u64) {
        self.put(after, Entry::Poll(process, task));
    }

    /// Waits for this many milliseconds.
    pub fn sleep(self: &Rc<Self>, millis: u64) -> Sleep {
        Sleep { executor: self.clone(), until: self.now() + millis, asked: false }
    }

    /// Executes the next due entry, unless it is due after `end`. Returns whether it executed one.
    pub fn step(&self, end: u64) -> bool {
        let next = {
            let mut agenda = self.agenda.borrow_mut();
            match agenda.first_key_value() {
                Some((&(when, _), _)) if when <= end => agenda.pop_first(),
                _ => None,
            }
        };
        let Some(((when, _), entry)) = next else {
            self.now.set(end);
            return false;
        };
        self.now.set(when);
        match entry {
            Entry::Do(action) => action(),
            Entry::Poll(process, task) => self.poll(process, task),
        }
        true
    }

    fn poll(&self, process: ProcessId, id: u64) {
        let task = match self.processes.borrow_mut().get_mut(&process) {
            None => return,
            Some(state) if state.suspended => return state.missed.push(Entry::Poll(process, id)),
            Some(state) => state.tasks.get_mut(&id).and_then(Option::take),
        };
        let Some(mut task) = task else { return };
        self.current.set(Some((process, id)));
        let done = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(());
        self.current.set(None);
        if let Some(state) = self.processes.borrow_mut().get_mut(&process) {
            if done {
                state.tasks.remove(&id);
            } else {
                state.tasks.insert(id, Some(task));
            }
        }
    }

    /// Ends everything. This breaks reference cycles, which would keep memory allocated.
    pub fn end(&self) {
        let agenda = std::mem::take(&mut *self.agenda.borrow_mut());
        let processes = std::mem::take(&mut *self.processes.borrow_mut());
        drop(agenda);
        drop(processes);
    }
}

pub struct Sleep {
    executor: Rc<Executor>,
    until: u64,
    asked: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let now = self.executor.now();
        if now >= self.until {
            return Poll::Ready(());
        }
        if !self.asked {
            self.asked = true;
            self.executor.wake(self.executor.current(), self.until - now);
        }
        Poll::Pending
    }
}
