//! A replica of the operator: the real core, surrounded by the steps of the shell in the shell's order, on
//! virtual time. Each function names the function of `src/controller` that it mirrors.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use beatkeeper_api::{ServiceRegistration, ServiceRegistrationStatus};
use beatkeeper_core::{
    cluster_cache::{ClusterCache, deliveries::PendingDelivery},
    decide::verdict::Suspect,
    liveness::{
        index::{Index, LiveRead},
        outage_guard::OutageGuard,
        probe_tracker::ProbeTracker,
        silence_log::SilenceLog,
        ttl::TtlHistory,
    },
    objects::{
        heartbeat::{Heartbeat, HeartbeatLease},
        registration::Registration,
    },
    plan::build::PlanSettings,
    replica::{leader::Candidate, watch_stall::DeliveryCheck},
    vocabulary::{
        address::OutsideRanges, key::Key, monotonic_time::MonotonicTime, version::Version,
    },
};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};

use crate::{
    api::{Answer, Call, Change, Reply},
    check::Check,
    executor::{Executor, ProcessId},
    network::{Caller, Network, Purpose},
    object::{KINDS, Kind, Object},
    rules::Without,
};

mod elect;
mod probe;
mod reconcile;
mod verify;
mod write;

pub use write::Explanation;

/// The same value as in run.rs.
const PAUSE_BETWEEN_PROOFS: u64 = 250;
/// The same value as `CALL_TIMEOUT` in context.rs.
pub const CALL_TIMEOUT: u64 = 5000;

/// How replicas share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// By the Lease of core/leader.rs. A replica checks its claim before each write.
    Elected,
    /// All replicas lead at all times, which is worse than any change of the leader.
    Anarchy,
}

/// The settings that all replicas share.
pub struct Setup {
    pub network: Rc<Network>,
    pub check: Rc<Check>,
    pub ranges: OutsideRanges,
    pub style: PlanSettings,
    pub leadership: Leadership,
    pub without: Without,
    /// How many lists are older than what was seen before, in percent.
    pub stale_lists: Cell<u64>,
}

/// The state that is kept for a registration, as in context.rs.
#[derive(Default)]
struct Remembered {
    uid: String,
    ttl: Option<TtlHistory>,
    failures: u32,
    failed_reads: u32,
    expected_expiries: Vec<Suspect>,
    foreign_service: bool,
    service_gone: Option<MonotonicTime>,
    /// Not part of the shell: whether a decision has been taken, for [`Without::Grace`].
    decided: bool,
    written: Option<(u64, ServiceRegistrationStatus)>,
}

#[derive(Default)]
struct Turn {
    running: bool,
    again: bool,
    due: Option<u64>,
}

pub struct Controller {
    pub setup: Rc<Setup>,
    pub place: usize,
    pub process: ProcessId,
    pub born: u64,
    identity: String,
    index: RefCell<Index>,
    world: RefCell<ClusterCache>,
    path: RefCell<ProbeTracker>,
    guard: RefCell<OutageGuard>,
    probes: RefCell<probe::Probes>,
    unproven: RefCell<BTreeSet<Key>>,
    registrations: RefCell<BTreeMap<Key, Arc<ServiceRegistration>>>,
    memories: RefCell<BTreeMap<Key, Remembered>>,
    turns: RefCell<BTreeMap<Key, Turn>>,
    listed: RefCell<BTreeSet<Kind>>,
    /// How often each kind was read again. A list that began before the latest of these reads is discarded.
    read_anew: RefCell<BTreeMap<Kind, u64>>,
    candidate: RefCell<Candidate>,
    /// When the claim was made, while the claim holds.
    term: Cell<Option<u64>>,
    /// True from the first proof of the term on.
    working: Cell<bool>,
    term_began: Cell<MonotonicTime>,
    probe_task: Cell<Option<(ProcessId, u64)>>,
}

impl Controller {
    /// Starts a process at this place. Mirrors `scope` in run.rs.
    pub fn start(setup: &Rc<Setup>, place: usize) -> Rc<Self> {
        let executor = &setup.network.executor;
        let process = executor.start();
        let identity = format!("replica-{place}-{}", process.0);
        let this = Rc::new(Self {
            setup: setup.clone(),
            place,
            process,
            born: executor.now(),
            index: RefCell::default(),
            world: RefCell::default(),
            path: RefCell::new(ProbeTracker::new(MonotonicTime::default())),
            guard: RefCell::default(),
            probes: RefCell::default(),
            unproven: RefCell::default(),
            registrations: RefCell::default(),
            memories: RefCell::default(),
            turns: RefCell::default(),
            listed: RefCell::default(),
            read_anew: RefCell::default(),
            candidate: RefCell::new(elect::candidate(&identity)),
            term: Cell::new(None),
            working: Cell::new(false),
            term_began: Cell::default(),
            probe_task: Cell::new(None),
            identity,
        });
        setup.check.born(place, process);
        for kind in KINDS {
            this.spawn(this.clone().follow(kind, None));
        }
        this.spawn(this.clone().run());
        this
    }

    async fn run(self: Rc<Self>) {
        while self.listed.borrow().len() < KINDS.len() {
            self.executor().sleep(20).await;
        }
        self.recall();
        self.spawn(self.clone().renew_for_ever());
        self.spawn(self.clone().listen());
        match self.setup.leadership {
            Leadership::Anarchy => self.begin_term(),
            Leadership::Elected => self.clone().elect().await,
        }
    }

    /// Mirrors `publish` and `lead` in run.rs: it waits for a proof, reconciles all registrations, and then the
    /// ones that are woken.
    fn begin_term(self: &Rc<Self>) {
        let term = self.executor().now();
        self.term.set(Some(term));
        self.spawn(self.clone().lead(term));
    }

    async fn lead(self: Rc<Self>, term: u64) {
        let claimed = self.now();
        while let Err(why) = self.prove(claimed).await {
            self.setup.check.tell(|| format!("controller {} does not begin: {why}", self.place));
            self.executor().sleep(PAUSE_BETWEEN_PROOFS).await;
        }
        if self.term.get() != Some(term) {
            return;
        }
        self.working.set(true);
        self.term_began.set(self.now());
        self.setup.check.leads(self.place, self.process);
        let all: Vec<Key> = self.registrations.borrow().keys().cloned().collect();
        self.wake(all);
    }

    fn end_term(&self) {
        self.term.set(None);
        self.working.set(false);
        self.setup.check.leads_no_more(self.process);
    }

    fn executor(&self) -> &Rc<Executor> {
        &self.setup.network.executor
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor().spawn(self.process, task);
    }

    fn now(&self) -> MonotonicTime {
        MonotonicTime::from_millis(self.executor().now() - self.born)
    }

    /// Converts a moment of this process into the time of the simulation.
    pub fn absolute(&self, moment: MonotonicTime) -> u64 {
        self.born + millis(moment.since(MonotonicTime::default()))
    }

    fn wall(&self) -> Timestamp {
        let skew = self.setup.check.skew(self.place);
        let micros = 1_800_000_000_000_000 + self.setup_now() * 1000;
        Timestamp::from_microsecond(micros + skew * 1000).expect("in range")
    }

    fn setup_now(&self) -> i64 {
        i64::try_from(self.executor().now()).expect("small")
    }

    async fn call(&self, call: Call) -> Reply {
        self.call_for(call, None).await
    }

    async fn call_for(&self, call: Call, purpose: Option<Purpose>) -> Reply {
        self.call_within(CALL_TIMEOUT, call, purpose).await
    }

    async fn call_within(&self, limit: u64, call: Call, purpose: Option<Purpose>) -> Reply {
        let caller = Caller::Controller(self.place);
        self.setup.network.call(caller, call, limit, purpose).await
    }

    /// Whether the replica may send a write that only the leader may send. Mirrors `write` in context.rs of the
    /// election.
    fn may_write(&self) -> bool {
        self.setup.leadership == Leadership::Anarchy || self.candidate.borrow().holds(self.now())
    }

    /// Pauses at random, because in the shell another thread may run between two steps.
    async fn breathe(&self) {
        let random = &self.executor().random;
        if random.percent(10) {
            let pause = random.between(0, 8);
            self.executor().sleep(pause).await;
        }
    }

    fn remember<T>(&self, key: &Key, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut memories = self.memories.borrow_mut();
        let memory = memories.entry(key.clone()).or_default();
        if memory.uid != uid {
            *memory = Remembered { uid: uid.to_owned(), ..Remembered::default() };
        }
        change(memory)
    }

    /// The keys of the Leases that the replica has in memory.
    pub fn known_leases(&self) -> Vec<Key> {
        let mut known = Vec::new();
        for (registration, records) in self.index().registrations() {
            known.extend(records.map(|it| Key::new(&registration.namespace, &*it.lease)));
        }
        known
    }

    fn index(&self) -> RefMut<'_, Index> {
        self.index.borrow_mut()
    }

    fn world(&self) -> RefMut<'_, ClusterCache> {
        self.world.borrow_mut()
    }

    // The work queue: at most one reconciliation of each registration runs at a time.

    fn wake(self: &Rc<Self>, keys: impl IntoIterator<Item = Key>) {
        // The result must not depend on the iteration order of a set, so the keys are sorted.
        let keys: BTreeSet<Key> = keys.into_iter().collect();
        for key in keys {
            if !self.working.get() || !self.registrations.borrow().contains_key(&key) {
                continue;
            }
            let mut turns = self.turns.borrow_mut();
            let turn = turns.entry(key.clone()).or_default();
            if turn.running {
                turn.again = true;
            } else {
                turn.running = true;
                turn.due = None;
                self.spawn(self.clone().take_turn(key));
            }
        }
    }

    async fn take_turn(self: Rc<Self>, key: Key) {
        loop {
            if let Some(turn) = self.turns.borrow_mut().get_mut(&key) {
                turn.again = false;
            }
            let object = self.registrations.borrow().get(&key).cloned();
            let pause = match object {
                Some(object) if self.working.get() => self.clone().reconcile(object).await,
                _ => None,
            };
            let mut turns = self.turns.borrow_mut();
            let Some(turn) = turns.get_mut(&key) else { return };
            if turn.again {
                continue;
            }
            turn.running = false;
            let Some(pause) = pause else { return };
            // Timers have a resolution of one millisecond.
            let pause = millis_up(pause).max(1);
            let due = self.executor().now() + pause;
            turn.due = Some(due);
            drop(turns);
            let this = self.clone();
            self.executor().after_in(self.process, pause, move || {
                let is_due =
                    this.turns.borrow().get(&key).is_some_and(|turn| turn.due == Some(due));
                if is_due {
                    this.wake([key]);
                }
            });
            return;
        }
    }

    // The watches.

    /// Lists until a list succeeds, and then watches. `resume` continues at the position where the watch was.
    /// Mirrors kube's watcher and `Watches::follow` in watch.rs.
    async fn follow(self: Rc<Self>, kind: Kind, resume: Option<usize>) {
        let mut pause = 200;
        let begun = self.beginning(kind);
        let cursor = loop {
            // A watch that starts again needs an answer from the API server, as a list does.
            let answer = self.call(Call::List(kind)).await;
            if self.beginning(kind) != begun {
                return;
            }
            match (answer, resume) {
                (Ok(Answer::List(..)), Some(cursor)) => break cursor,
                (Ok(Answer::List(objects, at)), None) => {
                    let first = !self.listed.borrow().contains(&kind);
                    let random = &self.executor().random;
                    // The operator believes a list of Pods, because Pods have no label that they could lose. So
                    // a list of Pods is never stale here.
                    let may_be_stale = !first && kind != Kind::Pod;
                    let (objects, at) = if may_be_stale
                        && random.percent(self.setup.stale_lists.get())
                    {
                        let at =
                            at.saturating_sub(usize::try_from(random.between(1, 20)).expect("few"));
                        (self.as_of(kind, at), at)
                    } else {
                        (objects, at)
                    };
                    if !self.take_in_list(kind, objects).await {
                        return;
                    }
                    self.listed.borrow_mut().insert(kind);
                    if kind == Kind::Lease {
                        self.setup.check.has_listed(self.process);
                    }
                    break at;
                }
                _ => {
                    let random = &self.executor().random;
                    let jittered = random.between(pause / 2, pause);
                    self.executor().sleep(jittered).await;
                    pause = (pause * 2).min(5000);
                }
            }
        };
        let this = Rc::downgrade(&self);
        let take_in = move |change| {
            if let Some(this) = this.upgrade() {
                this.take_in(change);
            }
        };
        let this = Rc::downgrade(&self);
        let broken = move |resumable: bool| {
            if let Some(this) = this.upgrade() {
                let cursor = this.setup.network.cursor(this.process, kind);
                let again = this.clone().follow(kind, resumable.then_some(cursor));
                this.spawn(again);
            }
        };
        let network = &self.setup.network;
        network.watch(self.place, self.process, kind, cursor, Rc::new(take_in), Rc::new(broken));
    }

    /// Returns what a list showed when the log had this length.
    fn as_of(&self, kind: Kind, at: usize) -> Vec<Object> {
        let api = self.setup.network.api.borrow();
        let mut objects = BTreeMap::new();
        for change in &api.log(kind)[..at] {
            match change {
                Change::Applied(object) => objects.insert(object.key(), object.clone()),
                Change::Deleted(object) => objects.remove(&object.key()),
            };
        }
        objects.into_values().collect()
    }

    /// Mirrors what `on_lease`, `on_object` and `follow` in run.rs do between Init and InitDone. Returns
    /// whether the list was taken in to its end.
    async fn take_in_list(self: &Rc<Self>, kind: Kind, objects: Vec<Object>) -> bool {
        let begun = self.beginning(kind);
        match kind {
            Kind::Lease => self.index().begin_list(),
            Kind::Pod => self.world().begin_list::<Pod>(),
            Kind::Service => self.world().begin_list::<Service>(),
            Kind::Slice => self.world().begin_list::<EndpointSlice>(),
            Kind::Endpoints => self.world().begin_list::<Endpoints>(),
            Kind::Registration => {}
        }
        let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        for (n, object) in objects.into_iter().enumerate() {
            if n % 8 == 3 {
                self.breathe().await;
            }
            if self.beginning(kind) != begun {
                return false;
            }
            self.take_in(Change::Applied(object));
        }
        if self.beginning(kind) != begun {
            return false;
        }
        let concerned = match kind {
            Kind::Lease => self.index().end_list().wake,
            Kind::Pod => self.of_pods(|world| world.end_list::<Pod>()),
            Kind::Service => self.world().end_list::<Service>(),
            Kind::Slice => self.world().end_list::<EndpointSlice>(),
            Kind::Endpoints => self.world().end_list::<Endpoints>(),
            Kind::Registration => {
                let gone = self.world().registrations_beyond(&listed);
                gone.iter().for_each(|key| self.remove_registration(key));
                listed.into_iter().collect()
            }
        };
        self.wake(concerned);
        true
    }

    /// Mirrors `begin` in anew.rs.
    pub(super) fn begin_anew(self: &Rc<Self>, why: &str) {
        if self.setup.without == Without::Rollbacks {
            return;
        }
        self.setup.check.tell(|| format!("controller {} begins anew: {why}", self.place));
        self.path.borrow_mut().reset_after_rollback(why.to_owned());
        let now = self.now();
        self.index().reset_after_rollback(now);
        self.world().begin_anew();
        self.forget_probes();
        for memory in self.memories.borrow_mut().values_mut() {
            memory.written = None;
        }
        KINDS.iter().for_each(|kind| self.read_kind_anew(*kind));
    }

    fn beginning(&self, kind: Kind) -> u64 {
        self.read_anew.borrow().get(&kind).copied().unwrap_or_default()
    }

    /// Mirrors `Beginnings::each` in anew.rs.
    fn read_kind_anew(self: &Rc<Self>, kind: Kind) {
        *self.read_anew.borrow_mut().entry(kind).or_default() += 1;
        self.setup.network.forget_watch(self.process, kind);
        self.spawn(self.clone().follow(kind, None));
    }

    /// Mirrors `run` in anew.rs, without the request for the versions that the kinds have reached.
    async fn listen(self: Rc<Self>) {
        let mut ears: BTreeMap<Kind, DeliveryCheck> = BTreeMap::new();
        loop {
            self.executor().sleep(1000).await;
            let probe = self.path.borrow_mut().rollback_detector().unshown();
            let owed = {
                let mut world = self.world();
                [
                    (Kind::Lease, probe.map(i64::cast_unsigned)),
                    (Kind::Service, world.debt::<Service>().map(PendingDelivery::number)),
                    (Kind::Slice, world.debt::<EndpointSlice>().map(PendingDelivery::number)),
                    (Kind::Endpoints, world.debt::<Endpoints>().map(PendingDelivery::number)),
                ]
            };
            for (kind, owed) in owed {
                let deaf = ears.entry(kind).or_default().check(owed, Duration::from_secs(1));
                if deaf && self.setup.without != Without::Rollbacks {
                    self.setup
                        .check
                        .tell(|| format!("controller {} lists {kind:?} anew", self.place));
                    self.read_kind_anew(kind);
                }
            }
        }
    }

    /// Mirrors how anew.rs learns of a rollback from lists.
    pub(super) fn notice_lists(self: &Rc<Self>) {
        let went_back = {
            let mut world = self.world();
            world.went_back::<Pod>()
                | world.went_back::<Service>()
                | world.went_back::<EndpointSlice>()
                | world.went_back::<Endpoints>()
                | self.index().went_back()
        };
        if went_back {
            self.begin_anew("a list or a read shows a lower version than was known");
        }
    }

    fn of_pods(&self, change: impl FnOnce(&mut ClusterCache) -> Vec<Key>) -> Vec<Key> {
        let pods = change(&mut self.world());
        let index = self.index();
        pods.iter().flat_map(|pod| index.registrations_of_pod(pod)).collect()
    }

    fn take_in(self: &Rc<Self>, change: Change) {
        self.take_in_change(change);
        self.notice_lists();
    }

    fn take_in_change(self: &Rc<Self>, change: Change) {
        let concerned = match change {
            Change::Applied(object) => match object {
                Object::Lease(lease) => self.take_in_lease(&lease),
                Object::Pod(pod) => self.of_pods(|world| world.put((*pod).clone())),
                Object::Service(object) => self.world().put((*object).clone()),
                Object::Slice(object) => self.world().put((*object).clone()),
                Object::Endpoints(object) => self.world().put((*object).clone()),
                Object::Registration(object) => {
                    self.registrations
                        .borrow_mut()
                        .insert(Key::of(&object.metadata), object.clone());
                    let registration = Registration::validate(&object);
                    self.ttl_history(&registration);
                    let now = self.executor().now();
                    self.setup.check.knows_ttl(self.process, &registration, now);
                    let concerned = self.world().put_registration(&object);
                    self.suit_pace();
                    concerned
                }
            },
            Change::Deleted(object) => match object {
                Object::Lease(lease) => self.lose_lease(&lease),
                Object::Pod(pod) => self.of_pods(|world| world.remove(&*pod)),
                Object::Service(object) => self.world().remove(&*object),
                Object::Slice(object) => self.world().remove(&*object),
                Object::Endpoints(object) => self.world().remove(&*object),
                Object::Registration(object) => {
                    self.remove_registration(&Key::of(&object.metadata));
                    Vec::new()
                }
            },
        };
        self.wake(concerned);
    }

    fn remove_registration(self: &Rc<Self>, key: &Key) {
        let concerned = self.world().remove_registration(key);
        self.registrations.borrow_mut().remove(key);
        self.memories.borrow_mut().remove(key);
        self.guard.borrow_mut().forget(key);
        self.path.borrow_mut().await_deadline(key, None);
        self.suit_pace();
        self.wake(concerned);
    }

    /// Mirrors `on_lease` in watch.rs.
    fn take_in_lease(self: &Rc<Self>, lease: &HeartbeatLease) -> Vec<Key> {
        let now = self.now();
        let beat = Heartbeat::read(lease);
        if self.take_in_probe(lease, &beat, now) {
            return Vec::new();
        }
        let namespace = lease.metadata.namespace.as_deref().unwrap_or_default();
        self.index().observe(namespace, beat, now).wake
    }

    fn lose_lease(&self, lease: &HeartbeatLease) -> Vec<Key> {
        let version = Version::of(lease.metadata.resource_version.as_deref());
        let key = Key::of(&lease.metadata);
        self.lose_probe(&key);
        let now = self.now();
        let mut index = self.index();
        if self.setup.without == Without::DoubtOfDeletions {
            index.observe_deleted(&key, version);
            return index.confirm(&key, LiveRead::Absent, now + Duration::from_millis(1), now).wake;
        }
        index.observe_deleted(&key, version).wake
    }

    /// Applies the memory of an earlier process to the state of this one.
    fn recall(&self) {
        if self.setup.without == Without::Memory {
            return;
        }
        if let Some(memory) = self.probes.borrow().newest_memory() {
            let memory: SilenceLog = memory;
            self.index().resume_silence(&memory);
            self.path.borrow_mut().resume(memory);
        }
    }

    /// Mirrors `Context::suit_pace`.
    fn suit_pace(&self) {
        let tightest = self.world().tightest_pace();
        let now = self.now();
        let sooner = {
            let mut path = self.path.borrow_mut();
            let before = path.next(now);
            path.set_pace(tightest);
            path.next(now) < before
        };
        if sooner {
            self.hurry();
        }
    }
}

pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("small")
}

fn millis_up(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1000)).expect("small")
}
