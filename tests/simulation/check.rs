//! The promises, judged by an observer that sees everything.
//!
//! **ProvenTime time** (P1) is computed here as follows: the time that has passed, minus the stretches in which the
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

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use beatkeeper_api::{InstanceState, heartbeat::REGISTRATION_LABEL};
use beatkeeper_core::{
    decide::verdict::Verdict,
    liveness::{
        index::Record,
        proven_time::{Gap, ProvenTime},
    },
    objects::{
        heartbeat::Heartbeat,
        marks::{SERVICE_NAME_LABEL, label},
        registration::Registration,
    },
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence},
        version::Token,
    },
};

use crate::{
    api::{Api, Took},
    controller::{Controller, Explanation, millis},
    executor::ProcessId,
    network::{Caller, Mode, Network, Purpose},
    object::{Kind, Object},
    workload::Workload,
};

/// Stretches of time. The last one may still go on.
#[derive(Debug, Clone, Default)]
pub struct Stretches(Vec<(u64, Option<u64>)>);

impl Stretches {
    fn note(&mut self, now: u64, goes_on: bool) {
        match self.0.last_mut() {
            Some((_, end @ None)) if !goes_on => *end = Some(now),
            Some((_, None)) => {}
            _ if goes_on => self.0.push((now, None)),
            _ => {}
        }
    }

    /// Returns the parts of the stretches that lie between two moments.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().filter_map(move |&(begin, end)| {
            let (begin, end) = (begin.max(from), end.unwrap_or(to).min(to));
            (begin < end).then_some((begin, end))
        })
    }
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
#[derive(Debug, Default)]
struct Witnessed {
    /// The stretches in which the process could not have seen beats.
    blind: Stretches,
    /// When the process had read all Leases for the first time.
    listed: Option<u64>,
}

/// Each entry is the moment at which a ttl ended, and the ttl.
type Ttls = Vec<(u64, Duration)>;

/// A spec as it was written.
#[derive(Debug, Clone, Copy)]
struct Spec {
    pace: Pace,
}

#[derive(Default)]
pub struct Check {
    pub violation: RefCell<Option<String>>,
    pub trace: RefCell<Option<Vec<String>>>,
    now: Cell<u64>,
    closed: RefCell<Stretches>,
    processes: RefCell<BTreeMap<ProcessId, Witnessed>>,
    leaders: RefCell<BTreeSet<ProcessId>>,
    beats: RefCell<BTreeMap<Key, Vec<Accepted>>>,
    specs: RefCell<BTreeMap<Key, Vec<Spec>>>,
    workloads: RefCell<Vec<Rc<Workload>>>,
    skews: RefCell<BTreeMap<usize, i64>>,
    /// The instances that a process took for dead. The value is the number of beats accepted until then.
    dead: RefCell<BTreeMap<Key, usize>>,
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

    pub fn join(&self, workload: Rc<Workload>) {
        self.workloads.borrow_mut().push(workload);
    }

    pub fn workloads(&self) -> Vec<Rc<Workload>> {
        self.workloads.borrow().clone()
    }

    pub fn set_skew(&self, place: usize, millis: i64) {
        self.skews.borrow_mut().insert(place, millis);
    }

    /// Returns the error of a controller's wall clock, in milliseconds.
    pub fn skew(&self, place: usize) -> i64 {
        self.skews.borrow().get(&place).copied().unwrap_or(0)
    }

    pub fn born(&self, place: usize, process: ProcessId) {
        self.tell(|| format!("controller {place} starts as {process:?}"));
        self.processes.borrow_mut().insert(process, Witnessed::default());
    }

    /// Records that a process has read all Leases. Only the first time counts.
    pub fn has_listed(&self, process: ProcessId) {
        if let Some(witnessed) = self.processes.borrow_mut().get_mut(&process) {
            witnessed.listed.get_or_insert(self.now.get());
        }
    }

    fn listed(&self, process: ProcessId) -> Option<u64> {
        self.processes.borrow().get(&process)?.listed
    }

    pub fn leads(&self, place: usize, process: ProcessId) {
        self.tell(|| format!("controller {place} leads"));
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
        specs.values().flatten().map(|spec| millis(spec.pace.ttl)).max().unwrap_or(0)
    }

    /// The largest slack of any spec so far, in milliseconds.
    pub fn widest_slack(&self) -> u64 {
        let specs = self.specs.borrow();
        specs.values().flatten().map(|spec| millis(spec.pace.slack())).max().unwrap_or(0)
    }

    pub fn ended(&self, process: ProcessId) {
        self.leaders.borrow_mut().remove(&process);
    }

    /// Records what works and what does not. Call it after each step.
    pub fn look(&self, network: &Network, controllers: &[Option<Rc<Controller>>]) {
        let now = network.executor.now();
        self.now.set(now);
        self.closed.borrow_mut().note(now, network.mode.get() != Mode::Up);
        let mut processes = self.processes.borrow_mut();
        for controller in controllers.iter().flatten() {
            let process = controller.process;
            let sees = network.executor.runs(process) && network.delivers(process);
            if let Some(witnessed) = processes.get_mut(&process) {
                witnessed.blind.note(now, !sees);
            }
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
    pub fn took(&self, api: &Api, caller: &Caller, purpose: Option<&Purpose>, took: &Took) {
        let Some(object) = took.after.as_ref().or(took.before.as_ref()) else { return };
        let by_operator = matches!(caller, Caller::Controller(_));
        if by_operator && took.before.as_ref().is_some_and(|before| !before.is_operators()) {
            self.fail(|| format!("P6: {caller:?} wrote {} {}", kind_of(object), object.key()));
        }
        match object.kind() {
            Kind::Lease => self.lease_changed(took),
            Kind::Registration => {
                if let Some(Object::Registration(object)) = &took.after {
                    let registration = Registration::validate(object);
                    let mut specs = self.specs.borrow_mut();
                    let all = specs.entry(registration.key.clone()).or_default();
                    let pace = registration.pace();
                    if all.last().is_none_or(|last| last.pace != pace) {
                        all.push(Spec { pace });
                    }
                }
            }
            Kind::Slice => {
                let why =
                    purpose.and_then(|purpose| purpose.downcast_ref::<(Rc<Explanation>, u64)>());
                for object in [&took.before, &took.after].into_iter().flatten() {
                    let service = label(object.meta(), SERVICE_NAME_LABEL);
                    let service = service.map(|name| Key::new(object.key().namespace, name));
                    service
                        .into_iter()
                        .for_each(|service| self.union_changed(api, &service, why, by_operator));
                }
            }
            _ => {}
        }
    }

    fn lease_changed(&self, took: &Took) {
        let Some(lease) = took.after.as_ref().and_then(Object::lease) else { return };
        let beat = Heartbeat::read(lease);
        let key = Key::of(&lease.metadata);
        if key.namespace == "beatkeeper" {
            return;
        }
        let labelled = |object: &Object| label(object.meta(), REGISTRATION_LABEL).is_some();
        let had = took.before.as_ref().is_some_and(labelled);
        if had && !took.after.as_ref().is_some_and(labelled) {
            self.stripped.borrow_mut().insert(key.clone(), self.now.get());
        }
        let mut beats = self.beats.borrow_mut();
        let accepted = beats.entry(key).or_default();
        if accepted.last().is_none_or(|last| last.token != beat.token) {
            accepted.push(Accepted { at: self.now.get(), token: beat.token, by_backup: false });
        }
    }

    /// Records that the store has gone back. The state of a Lease in the restored store counts from now on. An
    /// instance that has lost a beat or its Lease by the rollback gets a ttl. An instance that was silent since
    /// before the backup has lost nothing.
    pub fn went_back(&self, api: &Api, now: u64) {
        self.now.set(now);
        self.went_back.set(true);
        for (key, accepted) in self.beats.borrow_mut().iter_mut() {
            let Some(Object::Lease(lease)) = api.get(Kind::Lease, key) else {
                self.lost.borrow_mut().insert(key.clone(), now);
                continue;
            };
            let token = Heartbeat::read(lease).token;
            if accepted.last().is_none_or(|last| last.token != token) {
                accepted.push(Accepted { at: now, token, by_backup: true });
            }
        }
        let mut services: BTreeSet<Key> = self.published.borrow().keys().cloned().collect();
        for object in api.all(Kind::Registration) {
            let Object::Registration(object) = object else { continue };
            let registration = Registration::validate(object);
            let pace = registration.pace();
            self.specs
                .borrow_mut()
                .entry(registration.key.clone())
                .or_default()
                .push(Spec { pace });
            services.insert(registration.key);
        }
        services.iter().for_each(|service| self.union_changed(api, service, None, false));
    }

    /// Checks which addresses have left the union of the slices, and why: P3, P5, and the part of P1 that
    /// concerns how late a decision is carried out.
    fn union_changed(
        &self,
        api: &Api,
        service: &Key,
        why: Option<&(Rc<Explanation>, u64)>,
        by_operator: bool,
    ) {
        let (mut after, mut ours) = (BTreeSet::new(), BTreeSet::new());
        for object in api.all(Kind::Slice) {
            let Some(slice) = object.slice() else { continue };
            let meta = &slice.metadata;
            if meta.namespace.as_deref() != Some(&service.namespace)
                || label(meta, SERVICE_NAME_LABEL) != Some(&service.name)
            {
                continue;
            }
            let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            let addresses: Vec<IpAddr> =
                addresses.filter_map(|address| address.parse().ok()).collect();
            if object.is_operators() {
                ours.extend(&addresses);
            }
            after.extend(addresses);
        }
        let before =
            self.published.borrow_mut().insert(service.clone(), after.clone()).unwrap_or_default();
        if before != after {
            self.tell(|| {
                let gone: Vec<_> = before.difference(&after).collect();
                let come: Vec<_> = after.difference(&before).collect();
                format!("published {service}: +{come:?} -{gone:?}")
            });
        }
        if !by_operator {
            return;
        }
        for address in &ours {
            let proper = self.owner(*address).is_some_and(|owner| !owner.impostor);
            if !proper {
                self.fail(|| format!("P5: {address} is published for {service}"));
            }
        }
        for address in before.difference(&after) {
            let Some((why, sent)) = why else {
                return self.fail(|| format!("P3: {address} left {service} without a plan"));
            };
            self.has_left(api, *address, after.len(), why, *sent);
        }
    }

    fn has_left(&self, api: &Api, address: IpAddr, left: usize, why: &Explanation, sent: u64) {
        if why.wanted.contains(&address) {
            return self.fail(|| format!("P3: {address} is wanted and has left"));
        }
        let Some(owner) = self.owner(address) else { return };
        let lease = owner.lease();
        match why.unwanted.get(&address) {
            Some((InstanceState::Expired, _, token)) => {
                self.prunes.set(self.prunes.get() + 1);
                let beats = self.beats.borrow();
                let since = beats.get(&lease).and_then(|all| all.last());
                // A decision must be carried out within the time of a call.
                if let Some(beat) = since
                    && Some(&beat.token) != token.as_ref()
                    && beat.at > why.decided
                    && beat.at + 5000 < sent
                {
                    self.fail(|| {
                        format!(
                            "P1: {lease} has left at a decision of {}, sent at {sent}, but beat at {}",
                            why.decided, beat.at
                        )
                    });
                }
                if left < why.min_ready {
                    self.fail(|| format!("L7: {address} has left, {left} are there"));
                }
            }
            Some((InstanceState::Cordoned | InstanceState::Rejected, ..)) => {}
            Some((state, reason, _)) => {
                self.fail(|| format!("P1: {lease} has left although it is {state:?} ({reason:?})"));
            }
            None => {
                // The instance left because its Lease or its Pod is gone.
                let Some(Object::Lease(known)) = api.get(Kind::Lease, &lease) else { return };
                // An instance that had left can come back with a backup. It counts as gone all the same.
                if self.went_back.get() && !owner.lives() {
                    return;
                }
                let here = !owner.in_pod
                    || owner.address() == address.to_string()
                        && api.get(Kind::Pod, &owner.pod_key()).is_some();
                let beats = self.beats.borrow();
                let uid = known.metadata.uid.as_deref().unwrap_or_default();
                let first = beats
                    .get(&lease)
                    .and_then(|all| all.iter().find(|beat| &*beat.token.uid == uid));
                let own = !owner.in_pod || owner.is_own(known);
                // A Lease without its label is known only to a process that saw it with the label.
                let labelled = label(&known.metadata, REGISTRATION_LABEL).is_some();
                let listed = self.listed(why.process);
                let stripped = self.stripped.borrow().get(&lease).copied();
                let stripped_before = stripped <= listed;
                if !labelled && stripped_before {
                    return;
                }
                if here && own && first.is_some_and(|first| first.at < why.decided) {
                    self.fail(|| {
                        format!("P1: {lease} has left as if it were gone, but it is there")
                    });
                }
            }
        }
    }

    /// Records a decision that stands. Checks P1 for the instances that the decision takes for dead, and P7.
    pub fn decided(
        &self,
        controller: &Controller,
        registration: &Registration,
        records: &[Record],
        verdicts: &[Verdict],
        now: MonotonicTime,
    ) {
        self.tell(|| {
            let states: Vec<String> = verdicts
                .iter()
                .map(|one| format!("{} {}", one.instance, one.reason.as_str()))
                .collect();
            format!("controller {} decides: {states:?}", controller.place)
        });
        for verdict in verdicts {
            let told = !verdict.message.is_empty()
                || matches!(
                    verdict.state,
                    InstanceState::Ready | InstanceState::NotReady | InstanceState::Draining
                );
            if !told {
                self.fail(|| format!("P7: no message: {verdict:?}"));
            }
            let Some(judged) = &verdict.lease else { continue };
            let record = records.iter().find(|record| record.lease == judged.decision.lease);
            if let Some(record) = record
                && judged.decision.outcome.is_expired()
                && record.expired_at.is_none()
            {
                self.taken_for_dead(controller, registration, record, controller.absolute(now));
            }
        }
    }

    fn taken_for_dead(
        &self,
        controller: &Controller,
        registration: &Registration,
        record: &Record,
        decided: u64,
    ) {
        let key = Key::new(&registration.key.namespace, &*record.lease);
        self.tell(|| format!("controller {} takes {key} for dead", controller.place));
        let beats = self.beats.borrow();
        let accepted = beats.get(&key).map(Vec::as_slice).unwrap_or_default();
        let Some(read) = record.silent_at.map(|at| controller.absolute(at)) else {
            return self.fail(|| format!("L2: {key} was not read"));
        };
        let Some(place) = accepted.iter().rposition(|beat| beat.token == record.token) else {
            return self.fail(|| format!("{key} never had the token {:?}", record.token));
        };
        let Accepted { at: beat, by_backup, .. } = accepted[place];
        // An instance that has deregistered since the store went back cannot be distinguished from an instance
        // that lost its Lease because of that.
        let has_left = record.is_unshown()
            && self.workloads().iter().any(|it| it.lease() == key && !it.lives());
        if let Some(next) = accepted.get(place + 1)
            && next.at < read
            && !has_left
        {
            return self.fail(|| {
                format!("P1 (1): {key} beat at {}, unseen by the read of {read}", next.at)
            });
        }
        // L8 and the gaps use the moment at which the beat was seen. The closures of the API server, which use
        // the moment at which the beat was accepted, cover the time before that.
        let seen = controller.absolute(record.seen).max(beat);
        let pace = Pace { ttl: self.ttl(controller, registration, seen), ..registration.pace() };
        // A process that first read all Leases after the store went back cannot know that it went back.
        // According to the backup, the instance may have been silent for its whole ttl. Then only the least
        // time that is left after a remembered silence is promised (L5).
        let is_unaware = by_backup && self.listed(controller.process).is_none_or(|it| it >= beat);
        let ttl = match is_unaware {
            true => millis(pace.ttl).min(millis(pace.interval) * 11 / 10),
            false => millis(pace.ttl),
        };
        if read < beat + ttl {
            return self.fail(|| {
                format!(
                    "P1 (2): {key} beat at {beat}, ttl {ttl}, taken for dead by a read at {read}"
                )
            });
        }
        if let Some(lost) = self.lost.borrow().get(&key).copied()
            && (beat..read).contains(&lost)
            && beat + ttl > lost
            && read < lost + ttl
        {
            return self.fail(|| {
                format!(
                    "P1 (5): {key} lost its Lease at {lost}, ttl {ttl}, taken for dead by a read at {read}"
                )
            });
        }
        let tolerance = millis(pace.tolerance());
        let closed = self.closed.borrow();
        let long = |(from, to): &(u64, u64)| to - from > tolerance;
        let shut: u64 = closed.between(beat, read).filter(long).map(|(from, to)| to - from).sum();
        if read - beat - shut < ttl {
            return self.fail(|| {
                format!(
                    "P1 (2): {key} beat at {beat}, the API server was closed for {shut} since, ttl {ttl}, \
                     taken for dead by a read at {read}"
                )
            });
        }
        if beat >= controller.born && !is_unaware {
            let processes = self.processes.borrow();
            let blind = processes.get(&controller.process).map(|seen| seen.blind.clone());
            let of = |stretches: &Stretches| {
                let gaps = stretches.between(seen, read).filter(long);
                let gap = |(from, to)| Gap {
                    from: MonotonicTime::from_millis(from),
                    to: MonotonicTime::from_millis(to),
                };
                ProvenTime::with_gaps(gaps.map(gap).collect())
            };
            let gaps = of(&closed).and(&of(&blind.unwrap_or_default()));
            let since = MonotonicTime::from_millis(seen);
            let deadline = gaps.deadline(Silence { since, before: Duration::ZERO }, pace);
            // The 50 ms are a tolerance: a list that shows the probe shows the other Leases within a moment.
            if MonotonicTime::from_millis(read + 50) < deadline {
                return self.fail(|| {
                    format!("P1 (3): {key} beat at {beat}, taken for dead by a read at {read}, {gaps:?}, {pace:?}")
                });
            }
        }
        self.path_was_whole(controller, registration, &key, beat, decided, pace, &beats);
        self.dead.borrow_mut().insert(key, accepted.len());
        self.deaths.set(self.deaths.get() + 1);
    }

    /// Returns the longest ttl that the process has known since an instance beat (L8). The process cannot use a
    /// ttl that only an earlier process knew.
    fn ttl(&self, controller: &Controller, registration: &Registration, beat: u64) -> Duration {
        let ttls = self.ttls.borrow();
        let known = ttls.get(&(controller.process, registration.key.clone()));
        let since = known.into_iter().flatten().filter(|(ends, _)| *ends > beat);
        since.map(|(_, ttl)| *ttl).fold(registration.ttl, Duration::max)
    }

    /// Records that the watch has delivered the ttl of a registration to a process.
    pub fn knows_ttl(&self, process: ProcessId, registration: &Registration, now: u64) {
        let mut ttls = self.ttls.borrow_mut();
        let known = ttls.entry((process, registration.key.clone())).or_default();
        if let Some((ends, ttl)) = known.last_mut() {
            if *ttl == registration.ttl {
                return;
            }
            *ends = now;
        }
        known.push((u64::MAX, registration.ttl));
    }

    /// L6: fails if many beats were due and none of them arrived.
    #[expect(clippy::too_many_arguments, reason = "all that is known")]
    fn path_was_whole(
        &self,
        controller: &Controller,
        registration: &Registration,
        key: &Key,
        beat: u64,
        decided: u64,
        pace: Pace,
        beats: &BTreeMap<Key, Vec<Accepted>>,
    ) {
        let window = millis(registration.pace().slack());
        let here = self.published(&registration.key);
        let of = |workload: &&Rc<Workload>| workload.lease() == *key;
        let address = self.workloads.borrow().iter().find(of).map(|workload| workload.ip());
        if !address.is_some_and(|address| here.contains(&address)) {
            return;
        }
        if decided >= beat + millis(pace.ttl) * 9 || decided < window + 2000 {
            return;
        }
        // Beats that a stalled watch held back arrive all at once, and then look like a flow.
        let lately = decided.saturating_sub(window + millis(registration.interval) + 2000);
        let processes = self.processes.borrow();
        let blind = processes.get(&controller.process).map(|witnessed| &witnessed.blind);
        if blind.is_some_and(|blind| blind.between(lately, decided).next().is_some()) {
            return;
        }
        let specs = self.specs.borrow();
        // By namespace: how many beats are due, and how many have arrived.
        let mut flows: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for workload in self.workloads.borrow().iter() {
            let lease = workload.lease();
            if !self.published(&workload.key).contains(&workload.ip()) {
                continue;
            }
            let pace = specs.get(&workload.key).and_then(|all| all.last());
            let Some(last) = beats.get(&lease).and_then(|all| all.last()) else { continue };
            // No beat is expected from an instance that is decided to be dead.
            let beaten = beats.get(&lease).map_or(0, Vec::len);
            if self.dead.borrow().get(&lease) == Some(&beaten) {
                continue;
            }
            let quiet = decided.saturating_sub(last.at);
            // An instance that was late long before that is no sign of a broken path.
            let together = |interval: u64| quiet <= interval + (decided - beat) * 3 / 2;
            let is_due = |interval| quiet > interval + 2000 && together(interval);
            let (due, arrived) = flows.entry(lease.namespace).or_default();
            *arrived += usize::from(quiet <= window + 2000);
            *due += usize::from(pace.is_some_and(|spec| is_due(millis(spec.pace.interval))));
        }
        let (here, _) = flows.get(&key.namespace).copied().unwrap_or_default();
        // Another namespace counts for at most eight.
        let elsewhere = flows.iter().filter(|(namespace, _)| **namespace != key.namespace);
        let elsewhere: usize = elsewhere.map(|(_, (due, _))| (*due).min(8)).sum();
        let arrived_here = flows.get(&key.namespace).map_or(0, |(_, arrived)| *arrived);
        let arrived: usize = flows.values().map(|(_, arrived)| arrived).sum();
        // The check requires two more due beats than the guard, because the guard rounds down what it remembers
        // of an earlier process.
        let broken = [(here, arrived_here), (here + elsewhere, arrived)];
        if let Some((due, _)) = broken.iter().find(|(due, arrived)| *due >= 12 && *arrived == 0) {
            self.fail(|| {
                format!(
                    "L6: {key} taken for dead at {decided}, while of {due} beats due none arrived"
                )
            });
        }
    }

    /// When a beat of an instance was last accepted.
    pub fn last_beat(&self, lease: &Key) -> Option<u64> {
        self.beats.borrow().get(lease).and_then(|all| all.last()).map(|beat| beat.at)
    }
}

fn kind_of(object: &Object) -> String {
    format!("{:?}", object.kind())
}
