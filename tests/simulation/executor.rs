//! The agenda of the simulation, on the paused clock of the tokio runtime.
//!
//! The operator runs as tasks of the runtime. Everything around it happens by the agenda: arrivals of requests and events,
//! faults, and the steps of the workloads. Time passes only when neither has anything to do.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{fate::Fate, random::Random};

/// A running program. A number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// An entry of the agenda.
enum Entry {
    Poll(ProcessId, u64),
    Do(Box<dyn FnOnce()>),
}

#[derive(Default)]
struct Process {
    suspended: bool,
    /// The tasks of a workload. A process of the operator has its tasks in the runtime instead.
    tasks: BTreeMap<u64, Option<Task>>,
    /// The polls that became due during the suspension. They follow on resumption.
    missed: Vec<u64>,
    /// Halts the tasks of a process of the operator.
    fate: Option<Arc<Fate>>,
}

/// The agenda, the clock and the processes.
pub struct Executor {
    start: Instant,
    order: Cell<u64>,
    agenda: RefCell<BTreeMap<(u64, u64), Entry>>,
    /// Tells [`Executor::step`] that the agenda has a new entry.
    changed: Notify,
    processes: RefCell<BTreeMap<ProcessId, Process>>,
    next_id: Cell<u64>,
    current: Cell<Option<(ProcessId, u64)>>,
    pub random: Random,
}

impl Executor {
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            order: Cell::new(0),
            agenda: RefCell::default(),
            changed: Notify::new(),
            processes: RefCell::default(),
            next_id: Cell::new(1),
            current: Cell::new(None),
            random: Random::new(seed),
        })
    }

    /// The virtual time since the start, in milliseconds.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("small")
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
        self.changed.notify_one();
    }

    /// Starts a workload, which has no task yet.
    pub fn start(&self) -> ProcessId {
        self.admit(None)
    }

    /// Starts a process of the operator, which has its tasks in the runtime.
    pub fn start_operator(&self, fate: Arc<Fate>) -> ProcessId {
        self.admit(Some(fate))
    }

    fn admit(&self, fate: Option<Arc<Fate>>) -> ProcessId {
        let id = ProcessId(self.id());
        self.processes.borrow_mut().insert(id, Process { fate, ..Process::default() });
        id
    }

    pub fn spawn(&self, process: ProcessId, task: impl Future<Output = ()> + 'static) {
        let id = self.id();
        if let Some(state) = self.processes.borrow_mut().get_mut(&process) {
            state.tasks.insert(id, Some(Box::pin(task)));
        }
        self.put(0, Entry::Poll(process, id));
    }

    /// Ends a process at once, at whichever await its tasks are.
    pub fn crash(&self, process: ProcessId) {
        let gone = self.processes.borrow_mut().remove(&process);
        if let Some(fate) = gone.as_ref().and_then(|process| process.fate.as_ref()) {
            fate.kill();
        }
        drop(gone);
    }

    pub fn exists(&self, process: ProcessId) -> bool {
        self.processes.borrow().contains_key(&process)
    }

    pub fn runs(&self, process: ProcessId) -> bool {
        self.processes.borrow().get(&process).is_some_and(|state| !state.suspended)
    }

    pub fn suspend(&self, process: ProcessId) {
        if let Some(state) = self.processes.borrow_mut().get_mut(&process) {
            state.suspended = true;
            state.fate.iter().for_each(|fate| fate.suspend());
        }
    }

    /// Resumes a process. Its tasks go on in a random order, because timers and sockets have no common order.
    pub fn resume(&self, process: ProcessId) {
        let (missed, fate) = match self.processes.borrow_mut().get_mut(&process) {
            Some(state) if state.suspended => {
                state.suspended = false;
                (std::mem::take(&mut state.missed), state.fate.clone())
            }
            _ => return,
        };
        for task in missed {
            self.put(0, Entry::Poll(process, task));
        }
        fate.iter().for_each(|fate| fate.resume(|waiting| self.random.shuffle(waiting)));
    }

    /// The task that is being polled.
    pub fn current(&self) -> (ProcessId, u64) {
        self.current.get().expect("called inside a task")
    }

    pub fn wake(&self, (process, task): (ProcessId, u64), after: u64) {
        self.put(after, Entry::Poll(process, task));
    }

    /// Lets a workload wait for this many milliseconds.
    pub fn sleep(self: &Rc<Self>, millis: u64) -> Sleep {
        Sleep { executor: self.clone(), until: self.now() + millis, asked: false }
    }

    /// Executes the next due entry, unless it is due after `end`. Returns whether it executed one. The operator runs while
    /// this waits.
    pub async fn step(&self, end: u64) -> bool {
        loop {
            let next = self.agenda.borrow().first_key_value().map(|(&(when, _), _)| when);
            let due = next.unwrap_or(end).min(end);
            if due > self.now() {
                let until = tokio::time::sleep_until(self.start + Duration::from_millis(due));
                tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = until => {}
                }
                continue;
            }
            let Some(when) = next.filter(|when| *when <= end) else { return false };
            let entry = self.agenda.borrow_mut().pop_first();
            debug_assert!(when <= self.now());
            match entry.expect("it is the first").1 {
                Entry::Do(action) => action(),
                Entry::Poll(process, task) => self.poll(process, task),
            }
            return true;
        }
    }

    fn poll(&self, process: ProcessId, id: u64) {
        let task = match self.processes.borrow_mut().get_mut(&process) {
            None => return,
            Some(state) if state.suspended => return state.missed.push(id),
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
        processes.values().filter_map(|state| state.fate.as_ref()).for_each(|fate| fate.kill());
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
