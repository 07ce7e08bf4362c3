//! The promises, checked by an observer that sees everything.
//!
//! **Proven time** (P1) is computed here as follows: the time that has passed, minus the stretches in which the
//! API server accepted no writes, and minus the stretches in which the deciding process could not have seen
//! writes. A process cannot see writes while it is suspended or cut off, or while its watch of the Leases does
//! not deliver. A stretch counts only if it is longer than the tolerance of the registration's pace. A
//! partition that cuts off some workloads but not the operator is no such stretch: only the guard (L6) can
//! distinguish it from death.
//!
//! P1 is judged when a process decides that an instance is dead. The judgement uses the token that the process
//! read live:
//! 1. no other beat had been accepted when that read was sent,
//! 2. the last accepted beat was at least a ttl before that read, also in the time in which the API server was
//!    open,
//! 3. the rule of L3, applied to the real gaps, allows the decision,
//! 4. the path was not broken in a way that requires a hold (L6).

mod beats_due;
mod decisions;
mod kept;
mod left;
mod silence;
mod stretches;
mod workloads;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use beatkeeper_core::{
    liveness::index::Index,
    objects::{heartbeat::Heartbeat, registration::Registration},
    vocabulary::{key::Key, pace::Pace, version::Token},
};
use serde_json::Value;

pub use self::decisions::Purpose;
use self::{
    decisions::{Explanation, Explanations},
    silence::TakenForDead,
    stretches::Stretches,
};
use crate::{
    executor::ProcessId,
    network::{Caller, Mode, Network},
    object::{ENDPOINTS, LEASES, Object, PODS, REGISTRATIONS, SLICES, is_operators},
    replica::Replica,
    store::{Change, Resource, Store, Stored},
    workload::Workload,
};

pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("small")
}

/// An accepted beat.
#[derive(Debug, Clone)]
struct Accepted {
    at: u64,
    token: Token,
    /// True if no beat was written and a backup restored the token.
    by_backup: bool,
}

/// What happens to one process of the operator.
#[derive(Default)]
struct Witnessed {
    /// The stretches in which the process could not have seen beats.
    blind: Stretches,
    /// The stretches in which the process could not have seen Pods.
    blind_to_pods: Stretches,
    /// When the process first had a list of each kind and began to watch it.
    watched: BTreeMap<Resource, u64>,
    /// The last decision about each registration.
    explanations: Rc<Explanations>,
    /// minReady of each registration, as the process knows it.
    min_ready: BTreeMap<Key, usize>,
    /// What the process knows of the Leases.
    index: Option<Arc<Mutex<Index>>>,
}

/// Each entry is the moment at which a ttl ended, and the ttl.
type Ttls = Vec<(u64, Duration)>;

#[derive(Default)]
pub struct Check {
    pub violation: RefCell<Option<String>>,
    pub trace: RefCell<Option<Vec<String>>>,
    now: Cell<u64>,
    closed: RefCell<Stretches>,
    processes: RefCell<BTreeMap<ProcessId, Witnessed>>,
    leaders: RefCell<BTreeSet<ProcessId>>,
    beats: RefCell<BTreeMap<Key, Vec<Accepted>>>,
    specs: RefCell<BTreeMap<Key, Vec<Pace>>>,
    workloads: RefCell<Vec<Rc<Workload>>>,
    /// The addresses that were written by hand before the operator came.
    pub legacy: RefCell<BTreeSet<IpAddr>>,
    /// When another client last took an address out of a slice of a Service.
    taken_away: RefCell<BTreeMap<(Key, IpAddr), u64>>,
    skews: RefCell<BTreeMap<usize, i64>>,
    /// The instances that a process took for dead.
    dead: RefCell<BTreeMap<Key, TakenForDead>>,
    /// When a Lease was lost because the store went back to a time before the Lease was made.
    lost: RefCell<BTreeMap<Key, u64>>,
    /// Whether the store went back to an earlier state.
    went_back: Cell<bool>,
    /// When a Lease last lost its label.
    stripped: RefCell<BTreeMap<Key, u64>>,
    /// The addresses that are published for each Service: the union of its slices.
    published: RefCell<BTreeMap<Key, BTreeSet<IpAddr>>>,
    /// The ttls of a registration that a process has known. Each has the moment at which it ended.
    ttls: RefCell<BTreeMap<(ProcessId, Key), Ttls>>,
    /// How often an instance was taken for dead, published or not.
    pub deaths: Cell<u64>,
    /// How many decisions were made of what has changed.
    pub kept: Cell<u64>,
    /// How many plans were made of what has changed.
    pub kept_plans: Cell<u64>,
    pub prunes: Cell<u64>,
}

impl Check {
    pub fn fail(&self, why: impl FnOnce() -> String) {
        if self.violation.borrow().is_none() {
            let why = why();
            self.tell(|| format!("VIOLATION {why}"));
            *self.violation.borrow_mut() = Some(why);
        }
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.borrow_mut().as_mut() {
            trace.push(format!("{:>8}  {}", self.now.get(), what()));
        }
    }

    pub fn set_skew(&self, place: usize, millis: i64) {
        self.skews.borrow_mut().insert(place, millis);
    }

    /// Returns the error of a controller's wall clock, in milliseconds.
    pub fn skew(&self, place: usize) -> i64 {
        self.skews.borrow().get(&place).copied().unwrap_or(0)
    }

    pub fn born(&self, place: usize, process: ProcessId) {
        self.tell(|| format!("replica {place} starts as {process:?}"));
        self.processes.borrow_mut().insert(process, Witnessed::default());
    }

    /// Records that a process has listed a kind and begins to watch it. Only the first time counts.
    pub fn watches(&self, process: ProcessId, resource: Resource) {
        let now = self.now.get();
        self.of(process, |known| {
            known.watched.entry(resource).or_insert(now);
        });
    }

    pub fn has_watched(&self, process: ProcessId, resource: Resource) -> bool {
        self.processes.borrow().get(&process).is_some_and(|it| it.watched.contains_key(resource))
    }

    /// When the process had read all Leases for the first time.
    fn listed(&self, process: ProcessId) -> Option<u64> {
        self.processes.borrow().get(&process)?.watched.get(LEASES).copied()
    }

    fn of(&self, process: ProcessId, change: impl FnOnce(&mut Witnessed)) {
        if let Some(known) = self.processes.borrow_mut().get_mut(&process) {
            change(known);
        }
    }

    pub fn keeps(&self, process: ProcessId, index: Arc<Mutex<Index>>) {
        self.of(process, |known| known.index = Some(index));
    }

    /// The Leases that a process has in memory.
    pub fn known_leases(&self, process: ProcessId) -> Vec<Key> {
        let processes = self.processes.borrow();
        let Some(index) = processes.get(&process).and_then(|known| known.index.as_ref()) else {
            return Vec::new();
        };
        let index = index.lock().expect("no panic");
        let mut known = Vec::new();
        for (registration, records) in index.registrations() {
            known.extend(records.map(|it| Key::new(&registration.namespace, &*it.lease)));
        }
        known
    }

    /// What a request is sent for.
    pub fn purpose(&self, process: ProcessId) -> Purpose {
        let processes = self.processes.borrow();
        let explanations =
            processes.get(&process).map(|known| known.explanations.clone()).unwrap_or_default();
        Purpose { explanations, sent: self.now.get() }
    }

    /// Records that a process has received an object of a registration.
    pub fn shown(&self, process: ProcessId, object: &Value) {
        let Object::Registration(object) = Object::read(REGISTRATIONS, object) else { return };
        let registration = Registration::validate(&object);
        self.knows_ttl(process, &registration, self.now.get());
        self.of(process, |known| {
            known.min_ready.insert(registration.key.clone(), registration.min_ready);
        });
    }

    pub fn leads(&self, place: usize, process: ProcessId) {
        self.tell(|| format!("replica {place} leads"));
        self.leaders.borrow_mut().insert(process);
    }

    pub fn leads_no_more(&self, process: ProcessId) {
        self.tell(|| format!("{process:?} leads no more"));
        self.leaders.borrow_mut().remove(&process);
    }

    pub fn leads_now(&self, process: ProcessId) -> bool {
        self.leaders.borrow().contains(&process)
    }

    /// The longest ttl of any spec so far, in milliseconds.
    pub fn longest_ttl(&self) -> u64 {
        let specs = self.specs.borrow();
        specs.values().flatten().map(|pace| millis(pace.ttl)).max().unwrap_or(0)
    }

    /// The largest slack of any spec so far, in milliseconds.
    pub fn widest_slack(&self) -> u64 {
        let specs = self.specs.borrow();
        specs.values().flatten().map(|pace| millis(pace.slack())).max().unwrap_or(0)
    }

    pub fn ended(&self, process: ProcessId) {
        self.leaders.borrow_mut().remove(&process);
    }

    /// Records what works and what does not. Call it after each step.
    pub fn look(&self, network: &Network, replicas: &[Option<Replica>]) {
        let now = network.executor.now();
        self.now.set(now);
        self.closed.borrow_mut().note(now, network.mode.get() != Mode::Up);
        for replica in replicas.iter().flatten() {
            let process = replica.process;
            let runs = network.executor.runs(process);
            let sees = |kind| runs && network.watches.deliver_to(process, kind);
            let (leases, pods) = (sees(LEASES), sees(PODS));
            self.of(process, |known| {
                known.blind.note(now, !leases);
                known.blind_to_pods.note(now, !pods);
            });
        }
    }

    pub fn published(&self, service: &Key) -> BTreeSet<IpAddr> {
        self.published.borrow().get(service).cloned().unwrap_or_default()
    }

    /// Returns the workload that has this address, or had it before.
    fn owner(&self, address: IpAddr) -> Option<Rc<Workload>> {
        let text = address.to_string();
        let of = |workload: &&Rc<Workload>| {
            let number = text.rsplit('.').next().and_then(|last| last.parse::<usize>().ok());
            number == Some(workload.number + 1) && workload.in_pod == text.starts_with("10.")
        };
        self.workloads.borrow().iter().find(of).cloned()
    }

    /// Records and checks a change that has taken place.
    pub fn took(&self, store: &Store, caller: &Caller, purpose: Option<&Purpose>, change: &Change) {
        let object = change.latest();
        let by_operator = matches!(caller, Caller::Operator { .. });
        if by_operator {
            self.may_write(store, purpose, change);
        }
        match object.resource {
            LEASES => self.lease_changed(change, by_operator),
            REGISTRATIONS => {
                let after = change.after.as_ref().and_then(|it| it.object().registration());
                after
                    .into_iter()
                    .for_each(|object| self.specified(&Registration::validate(object)));
            }
            SLICES => {
                let services = [&change.before, &change.after].into_iter().flatten();
                for service in services.filter_map(|object| object.service()) {
                    if !by_operator {
                        self.note_taken_away(&service, change);
                    }
                    self.union_changed(store, &service, purpose, by_operator);
                }
            }
            _ => {}
        }
    }

    /// P6, and that a dry run publishes nothing.
    fn may_write(&self, store: &Store, purpose: Option<&Purpose>, change: &Change) {
        let object = change.latest();
        let service = object.service();
        let consented = service.as_ref().is_some_and(|service| left::consents(store, service));
        if change.before.as_ref().is_some_and(|before| !before.object().is_operators())
            && !consented
        {
            self.fail(|| format!("P6: the operator wrote {} {}", object.resource, object.key()));
        }
        let why = service.and_then(|service| purpose?.explanations.get(&service));
        if why.is_some_and(|why| why.dry_run) && matches!(object.resource, SLICES | ENDPOINTS) {
            self.fail(|| format!("P6: in a dry run {} {} changed", object.resource, object.key()));
        }
    }

    /// The operator deletes a heartbeat Lease only if it is long expired (P6).
    fn was_swept(&self, lease: &Key) {
        let least = |paces: &Vec<Pace>| paces.iter().map(|pace| millis(pace.ttl)).min();
        let ttl = self.specs.borrow().values().filter_map(least).min().unwrap_or_default();
        let now = self.now.get();
        if self.last_beat(lease).is_some_and(|beat| now < beat + ttl * 10) {
            self.fail(|| format!("P6: {lease} was swept although it has beaten"));
        }
    }

    fn specified(&self, registration: &Registration) {
        let mut specs = self.specs.borrow_mut();
        let all = specs.entry(registration.key.clone()).or_default();
        let pace = registration.pace();
        if all.last().is_none_or(|last| *last != pace) {
            all.push(pace);
        }
    }

    fn lease_changed(&self, change: &Change, by_operator: bool) {
        let Some(after) = &change.after else {
            if by_operator {
                self.was_swept(&change.latest().key());
            }
            return;
        };
        let Some(lease) = after.object().lease() else { return };
        let key = after.key();
        if is_operators(&key) {
            return;
        }
        let labelled = |object: &Rc<Stored>| object.label(REGISTRATION_LABEL).is_some();
        if change.before.as_ref().is_some_and(labelled) && !labelled(after) {
            self.stripped.borrow_mut().insert(key.clone(), self.now.get());
        }
        let token = Heartbeat::read(lease).token;
        let mut beats = self.beats.borrow_mut();
        let accepted = beats.entry(key).or_default();
        if accepted.last().is_none_or(|last| last.token != token) {
            accepted.push(Accepted { at: self.now.get(), token, by_backup: false });
        }
    }

    /// Records that the store has gone back. The state of a Lease in the restored store counts from now on. An
    /// instance that has lost a beat or its Lease by the rollback gets a ttl. An instance that was silent since
    /// before the backup has lost nothing.
    pub fn went_back(&self, store: &Store, now: u64) {
        self.now.set(now);
        self.went_back.set(true);
        for (key, accepted) in self.beats.borrow_mut().iter_mut() {
            let lease = store.get(LEASES, key);
            let Some(lease) = lease.and_then(|lease| lease.object().lease()) else {
                self.lost.borrow_mut().insert(key.clone(), now);
                continue;
            };
            let token = Heartbeat::read(lease).token;
            if accepted.last().is_none_or(|last| last.token != token) {
                accepted.push(Accepted { at: now, token, by_backup: true });
            }
        }
        let mut services: BTreeSet<Key> = self.published.borrow().keys().cloned().collect();
        for object in store.all(REGISTRATIONS) {
            let Some(object) = object.object().registration() else { continue };
            let registration = Registration::validate(object);
            let mut specs = self.specs.borrow_mut();
            specs.entry(registration.key.clone()).or_default().push(registration.pace());
            services.insert(registration.key);
        }
        services.iter().for_each(|service| self.union_changed(store, service, None, false));
    }

    /// When a beat of an instance was last accepted.
    pub fn last_beat(&self, lease: &Key) -> Option<u64> {
        self.beats.borrow().get(lease).and_then(|all| all.last()).map(|beat| beat.at)
    }
}
