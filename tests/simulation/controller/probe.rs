//! The probe of a replica. Mirrors probe.rs.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, task::Poll};

use beatkeeper::core::{
    heartbeat::{Heartbeat, HeartbeatLease, HeartbeatSpec, Version},
    index::Key,
    memory::Memory,
    moment::Moment,
    path,
};
use beatkeeper_api::heartbeat::{REGISTRATION_LABEL, renew_time};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{CALL_TIMEOUT, Controller};
use crate::{
    api::{Call, Refusal},
    executor::ProcessId,
    object::Object,
};

const PROBE_LABEL: &str = "probe.beatkeeper.dev";
const MEMORY_ANNOTATION: &str = "beatkeeper.dev/proven-time";
const NAMESPACE: &str = "beatkeeper";
const ANSWER_WITHIN: u64 = 1000;
const PAUSE_AFTER_FAILURE: u64 = 250;
const PATIENCE_IN_DOUBT: u64 = 250;
const MEMORY_PERIOD: u64 = 1000;
/// As `SHORTEST_GAP` in proven.rs.
const SHORTEST_GAP: u64 = 500;

#[derive(Default)]
pub struct Probes {
    /// Somebody waits for a renewal.
    wanted: bool,
    /// The next renewal may be due sooner than it was.
    sooner: bool,
    failures: u64,
    /// The tasks that wait for what becomes of it.
    waiting: Vec<(ProcessId, u64)>,
    others: BTreeMap<String, (Version, Option<Memory>)>,
}

impl Probes {
    /// What the last process knew that ran before this one.
    pub fn newest_memory(&self) -> Option<Memory> {
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
    pub(super) fn await_deadline(&self, registration: &Key, deadline: Option<Moment>) {
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
    pub(super) async fn prove_up_to(&self, deadline: Moment) -> Result<(), String> {
        let reached = || {
            let proof = self.path.borrow().proof();
            proof.is_some_and(|sent| path::reaches(sent, deadline, self.now()))
        };
        if self.path.borrow().is_under_way_for(deadline, self.now()) {
            self.wait_for_proof(&reached, SHORTEST_GAP).await;
        }
        if reached() { Ok(()) } else { self.prove(deadline).await }
    }

    /// Waits until a proof is enough, a renewal has failed, or patience has ended, which it returns.
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
    pub(super) async fn prove(&self, after: Moment) -> Result<(), String> {
        let proven = || self.path.borrow().proof().is_some_and(|sent| sent >= after);
        if proven() {
            return Ok(());
        }
        let doubt = self.path.borrow().doubt().is_some();
        let patience = if doubt { PATIENCE_IN_DOUBT } else { CALL_TIMEOUT };
        self.hurry();
        if self.wait_for_proof(&proven, patience).await {
            let mut path = self.path.borrow_mut();
            if path.doubt().is_none() {
                path.failed("the watch of Leases does not bring the probe back".to_owned());
            }
        }
        if proven() {
            return Ok(());
        }
        let why = self.path.borrow().doubt().map(str::to_owned);
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
            let (token, memory) = {
                let mut path = self.path.borrow_mut();
                let due = memory_written.is_none_or(|written| at - written >= MEMORY_PERIOD);
                let token = path.send(now, self.wall().as_microsecond());
                (token, due.then(|| path.memory().to_string()))
            };
            let with_memory = memory.is_some();
            let renewed = self.renew(token, memory).await;
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

    /// Whether one is to be sent now; otherwise the next one may be due sooner than it was.
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

    async fn renew(&self, token: i64, memory: Option<String>) -> Result<(), Refusal> {
        let annotation = memory.clone().map(|memory| (MEMORY_ANNOTATION, memory));
        let lease = self.probe_key();
        let beat = Call::Beat { lease, renewed: token, annotation };
        match self.call_within(ANSWER_WITHIN, beat, None).await {
            Ok(_) => Ok(()),
            Err(Refusal::Absent) => {
                let lease = self.new_probe(token, memory);
                let create = Call::Create(Object::Lease(Arc::new(lease)));
                self.call_within(ANSWER_WITHIN, create, None).await.map(drop)
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn new_probe(&self, token: i64, memory: Option<String>) -> HeartbeatLease {
        let key = self.probe_key();
        let renewed = Timestamp::from_microsecond(token).expect("in range");
        HeartbeatLease {
            metadata: ObjectMeta {
                namespace: Some(key.namespace),
                name: Some(key.name.clone()),
                labels: Some([(REGISTRATION_LABEL.to_owned(), PROBE_LABEL.to_owned())].into()),
                annotations: memory.map(|memory| [(MEMORY_ANNOTATION.to_owned(), memory)].into()),
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
        now: Moment,
    ) -> bool {
        if beat.registration.as_deref() != Some(PROBE_LABEL) {
            return false;
        }
        let key = Key::of(&lease.metadata);
        if key == self.probe_key() {
            let back = beat
                .token
                .renewed
                .and_then(|token| self.path.borrow_mut().came_back(token, beat.version, now))
                .is_some();
            if back {
                self.tell_the_waiting();
                let waiting = std::mem::take(&mut *self.unproven.borrow_mut());
                self.wake(waiting);
            }
        } else {
            let annotations = lease.metadata.annotations.as_ref();
            let memory = annotations.and_then(|all| all.get(MEMORY_ANNOTATION)?.parse().ok());
            self.probes.borrow_mut().others.insert(key.name, (beat.version, memory));
        }
        true
    }

    pub(super) fn lose_probe(&self, lease: &Key) {
        self.probes.borrow_mut().others.remove(&lease.name);
    }
}
