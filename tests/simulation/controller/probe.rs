//! The probe of a replica. Mirrors probe.rs.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, task::Poll};

use beatkeeper_api::heartbeat::{REGISTRATION_LABEL, renew_time};
use beatkeeper_core::{
    liveness::{probe_tracker, rollback::OurLease, silence_log::SilenceLog},
    objects::heartbeat::{Heartbeat, HeartbeatLease, HeartbeatSpec},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{CALL_TIMEOUT, Controller};
use crate::{
    api::{Answer, Call, Refusal},
    executor::ProcessId,
    object::{Kind, Object},
};

const PROBE_LABEL: &str = "probe.beatkeeper.dev";
const MEMORY_ANNOTATION: &str = "beatkeeper.dev/proven-time";
const NAMESPACE: &str = "beatkeeper";
const ANSWER_WITHIN: u64 = 1000;
const PAUSE_AFTER_FAILURE: u64 = 250;
const PATIENCE_IN_DOUBT: u64 = 250;
const MEMORY_PERIOD: u64 = 1000;
/// The same value as `SHORTEST_GAP` in pace.rs.
const SHORTEST_GAP: u64 = 500;

#[derive(Default)]
pub struct Probes {
    /// True if a task waits for a renewal.
    wanted: bool,
    /// True if the next renewal may be due sooner than before.
    sooner: bool,
    failures: u64,
    /// The tasks that wait for the result of a renewal.
    waiting: Vec<(ProcessId, u64)>,
    others: BTreeMap<String, (Version, Option<SilenceLog>)>,
}

impl Probes {
    /// Returns the memory of the last process that ran before this one.
    pub fn newest_memory(&self) -> Option<SilenceLog> {
        self.others
            .values()
            .max_by_key(|(version, _)| *version)
            .and_then(|(_, memory)| memory.clone())
    }
}

impl Controller {
    pub(super) fn hurry(&self) {
        self.probes.borrow_mut().wanted = true;
        if let Some(task) = self.probe_task.get() {
            self.executor().wake(task, 0);
        }
    }

    /// Mirrors `Probe::await_deadline`.
    pub(super) fn await_deadline(&self, registration: &Key, deadline: Option<MonotonicTime>) {
        self.path.borrow_mut().await_deadline(registration, deadline);
        if deadline.is_some() {
            self.probes.borrow_mut().sooner = true;
            if let Some(task) = self.probe_task.get() {
                self.executor().wake(task, 0);
            }
        }
    }

    fn tell_the_waiting(&self) {
        let waiting = std::mem::take(&mut self.probes.borrow_mut().waiting);
        waiting.into_iter().for_each(|task| self.executor().wake(task, 0));
    }

    fn probe_key(&self) -> Key {
        Key::new(NAMESPACE, format!("beatkeeper-probe-{}", self.identity))
    }

    /// Mirrors `Probe::prove_up_to`.
    pub(super) async fn prove_up_to(&self, deadline: MonotonicTime) -> Result<(), String> {
        let reached = || {
            let proof = self.path.borrow().proof();
            proof.is_some_and(|sent| probe_tracker::reaches(sent, deadline, self.now()))
        };
        if self.path.borrow().is_under_way_for(deadline, self.now()) {
            self.wait_for_proof(&reached, SHORTEST_GAP).await;
        }
        if reached() { Ok(()) } else { self.prove(deadline).await }
    }

    /// Waits until `enough` holds, a renewal has failed, or `patience` milliseconds have passed. Returns true
    /// only if the patience has ended.
    async fn wait_for_proof(&self, enough: &impl Fn() -> bool, patience: u64) -> bool {
        let failures = self.probes.borrow().failures;
        let mut sleep = std::pin::pin!(self.executor().sleep(patience));
        std::future::poll_fn(|context| {
            if enough() || self.probes.borrow().failures != failures {
                return Poll::Ready(false);
            }
            self.probes.borrow_mut().waiting.push(self.executor().current());
            sleep.as_mut().poll(context).map(|()| true)
        })
        .await
    }

    /// Mirrors `Probe::prove`.
    pub(super) async fn prove(&self, after: MonotonicTime) -> Result<(), String> {
        let proven = || self.path.borrow().proof().is_some_and(|sent| sent >= after);
        if proven() {
            return Ok(());
        }
        let doubt = self.path.borrow().failure().is_some();
        let patience = if doubt { PATIENCE_IN_DOUBT } else { CALL_TIMEOUT };
        self.hurry();
        if self.wait_for_proof(&proven, patience).await {
            let mut path = self.path.borrow_mut();
            if path.failure().is_none() {
                path.failed("the watch of Leases does not bring the probe back".to_owned());
            }
        }
        if proven() {
            return Ok(());
        }
        let why = self.path.borrow().failure().map(str::to_owned);
        Err(why.unwrap_or_else(|| "it takes too long".to_owned()))
    }

    /// Mirrors `run`.
    pub(super) async fn renew_for_ever(self: Rc<Self>) {
        self.probe_task.set(Some(self.executor().current()));
        let mut memory_written: Option<u64> = None;
        loop {
            let now = self.now();
            let pause = super::millis_up(self.path.borrow().next(now).since(now));
            if !self.wait_for_renewal(pause).await {
                continue;
            }
            let now = self.now();
            let at = self.executor().now();
            let (token, memory, left) = {
                let mut path = self.path.borrow_mut();
                let due = memory_written.is_none_or(|written| at - written >= MEMORY_PERIOD);
                let left = path.rollback_detector().left().cloned();
                let memory = left.as_ref().filter(|_| due);
                let memory = memory.map(|left| path.silence_log().written_into(&left.uid));
                let token = path.send(now, self.wall().as_microsecond());
                (token, memory, left)
            };
            let with_memory = memory.is_some();
            let renewed = self.renew(token, memory, left).await;
            self.setup
                .check
                .tell(|| format!("controller {} renewed its probe: {renewed:?}", self.place));
            match renewed {
                Ok(()) if with_memory => memory_written = Some(at),
                Ok(()) => {}
                Err(refusal) => {
                    self.path.borrow_mut().failed(format!("{refusal:?}"));
                    self.probes.borrow_mut().failures += 1;
                    self.tell_the_waiting();
                    self.executor().sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Waits for the time of the next renewal. Returns true if a renewal must be sent now, and false if the
    /// next one may be due sooner than before.
    async fn wait_for_renewal(&self, pause: u64) -> bool {
        let sleep = self.executor().sleep(pause);
        let mut sleep = std::pin::pin!(sleep);
        std::future::poll_fn(|context| {
            let mut probes = self.probes.borrow_mut();
            if std::mem::take(&mut probes.wanted) {
                return Poll::Ready(true);
            }
            if std::mem::take(&mut probes.sooner) {
                return Poll::Ready(false);
            }
            sleep.as_mut().poll(context).map(|()| true)
        })
        .await
    }

    /// Mirrors `Renewal` in probe/renewal.rs.
    async fn renew(
        self: &Rc<Self>,
        token: i64,
        memory: Option<String>,
        left: Option<OurLease>,
    ) -> Result<(), Refusal> {
        let newest = self.index().newest();
        let seen = left.as_ref().map_or(newest, |left| newest.max(left.version));
        let annotation = memory.map(|memory| (MEMORY_ANNOTATION, memory));
        let (lease, version) = (self.probe_key(), left.as_ref().map(|it| it.version.0.to_string()));
        let beat = Call::Beat { lease, renewed: token, seconds: None, annotation, left: version };
        match self.call_within(ANSWER_WITHIN, beat, None).await {
            Ok(Answer::Object(Object::Lease(lease))) => self.renewed(&lease, seen),
            Err(Refusal::Absent) if left.is_some() => self.refused(None),
            Err(Refusal::Absent) => {
                let create = Call::Create(Object::Lease(Arc::new(self.new_probe(token))));
                let answer = self.call_within(ANSWER_WITHIN, create, None).await?;
                if let Answer::Object(Object::Lease(lease)) = answer {
                    self.renewed(&lease, seen);
                }
            }
            Err(Refusal::Conflict) if left.is_some() => {
                let read = Call::Get(Kind::Lease, self.probe_key());
                match self.call_within(ANSWER_WITHIN, read, None).await {
                    Ok(Answer::Object(Object::Lease(found))) => {
                        self.refused(our_lease(&Heartbeat::read(&found)));
                    }
                    Err(Refusal::Absent) => self.refused(None),
                    Err(refusal) => return Err(refusal),
                    Ok(_) => {}
                }
            }
            Err(refusal) => return Err(refusal),
            Ok(_) => {}
        }
        Ok(())
    }

    fn renewed(self: &Rc<Self>, lease: &HeartbeatLease, seen: Version) {
        let Some(lease) = our_lease(&Heartbeat::read(lease)) else { return };
        let answered = self.path.borrow_mut().rollback_detector().answered(lease, seen);
        if let Err(why) = answered {
            self.begin_anew(&why.to_string());
            self.probes.borrow_mut().failures += 1;
            self.tell_the_waiting();
        }
    }

    fn refused(self: &Rc<Self>, found: Option<OurLease>) {
        let refused = self.path.borrow_mut().rollback_detector().refused(found);
        if let Err(why) = refused {
            self.begin_anew(&why.to_string());
            self.probes.borrow_mut().failures += 1;
            self.tell_the_waiting();
        }
        self.hurry();
    }

    pub(super) fn forget_probes(&self) {
        self.probes.borrow_mut().others.clear();
    }

    fn new_probe(&self, token: i64) -> HeartbeatLease {
        let key = self.probe_key();
        let renewed = Timestamp::from_microsecond(token).expect("in range");
        HeartbeatLease {
            metadata: ObjectMeta {
                namespace: Some(key.namespace),
                name: Some(key.name.clone()),
                labels: Some([(REGISTRATION_LABEL.to_owned(), PROBE_LABEL.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(HeartbeatSpec {
                holder_identity: Some(key.name),
                renew_time: Some(renew_time(renewed)),
                lease_duration_seconds: Some(60),
            }),
        }
    }

    /// Mirrors `take_in`.
    pub(super) fn take_in_probe(
        self: &Rc<Self>,
        lease: &HeartbeatLease,
        beat: &Heartbeat,
        now: MonotonicTime,
    ) -> bool {
        if beat.registration.as_deref() != Some(PROBE_LABEL) {
            return false;
        }
        let key = Key::of(&lease.metadata);
        if key == self.probe_key() {
            let back = our_lease(beat)
                .and_then(|lease| self.path.borrow_mut().shown(lease, now))
                .is_some();
            if back {
                self.tell_the_waiting();
                let waiting = std::mem::take(&mut *self.unproven.borrow_mut());
                self.wake(waiting);
            }
        } else {
            let annotations = lease.metadata.annotations.as_ref();
            let (uid, version) = (&beat.token.uid, beat.version);
            let memory = annotations.and_then(|all| {
                SilenceLog::read_from(uid, version, all.get(MEMORY_ANNOTATION)?).ok()
            });
            self.probes.borrow_mut().others.insert(key.name, (beat.version, memory));
        }
        true
    }

    pub(super) fn lose_probe(&self, lease: &Key) {
        if *lease == self.probe_key() {
            self.path.borrow_mut().rollback_detector().deleted();
        }
        self.probes.borrow_mut().others.remove(&lease.name);
    }
}

fn our_lease(beat: &Heartbeat) -> Option<OurLease> {
    let Heartbeat { token, version, .. } = beat;
    Some(OurLease { uid: token.uid.clone(), version: *version, token: token.renewed? })
}
