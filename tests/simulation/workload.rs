//! Instances: processes that beat with the pauses and retries of the agent.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use beatkeeper_api::heartbeat::{ADDRESSES_ANNOTATION, REGISTRATION_LABEL, lease_name, renew_time};
use beatkeeper_client::schedule::{Backoff, Pace, RetryLimits};
use beatkeeper_core::{
    objects::heartbeat::{Heartbeat, HeartbeatLease, Origin},
    vocabulary::key::Key,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    check::millis,
    executor::ProcessId,
    network::{Caller, Network, Reply},
    object::{LEASES, Object, PODS, REGISTRATIONS},
    server::Answer,
    store::{Preconditions, Stored},
    wire::{Ask, Asked},
};

/// The longest time that the garbage collector may need, in milliseconds.
pub const COLLECTED_WITHIN: u64 = 2000;

pub struct Workload {
    pub network: Rc<Network>,
    pub number: usize,
    pub namespace: &'static str,
    pub registration: &'static str,
    /// The key of the registration.
    pub key: Key,
    pub name: String,
    pub in_pod: bool,
    /// How often a new Pod has replaced an earlier one.
    pub life: Cell<usize>,
    /// The error of the workload's wall clock, in milliseconds.
    pub skew: Cell<i64>,
    pub process: Cell<Option<ProcessId>>,
    pub pod_uid: RefCell<String>,
    last_token: Cell<i64>,
    /// True if it claims an address that may not be published.
    pub impostor: bool,
}

impl Workload {
    pub fn new(
        network: &Rc<Network>,
        number: usize,
        namespace: &'static str,
        registration: &'static str,
        in_pod: bool,
        impostor: bool,
        skew: i64,
    ) -> Rc<Self> {
        Rc::new(Self {
            network: network.clone(),
            number,
            namespace,
            registration,
            key: Key::new(namespace, registration),
            name: format!("{}-{number}", if in_pod { "pod" } else { "vm" }),
            in_pod,
            life: Cell::new(0),
            skew: Cell::new(skew),
            process: Cell::new(None),
            pod_uid: RefCell::default(),
            last_token: Cell::new(0),
            impostor,
        })
    }

    pub fn lease(&self) -> Key {
        Key::new(self.namespace, lease_name(self.registration, &self.name))
    }

    pub fn caller(&self) -> Caller {
        Caller::Workload { namespace: self.namespace, number: self.number }
    }

    pub fn address(&self) -> String {
        self.ip().to_string()
    }

    pub fn ip(&self) -> IpAddr {
        match (self.impostor, self.in_pod, u8::try_from(self.number + 1)) {
            (true, ..) | (.., Err(_)) => [127, 0, 0, 1].into(),
            (_, true, Ok(number)) => {
                [10, u8::try_from(self.life.get()).unwrap_or(u8::MAX), 0, number].into()
            }
            (_, false, Ok(number)) => [192, 0, 2, number].into(),
        }
    }

    pub fn lives(&self) -> bool {
        self.process.get().is_some()
    }

    /// Starts the process. If the workload runs in Pods and there is no Pod, this also makes a new Pod.
    pub fn start(self: &Rc<Self>) {
        if self.lives() {
            return;
        }
        if self.in_pod && self.stored(PODS, &self.pod_key()).is_none() {
            self.make_pod();
        }
        let executor = &self.network.executor;
        let process = executor.start();
        self.process.set(Some(process));
        executor.spawn(process, self.clone().live());
    }

    /// Ends the process, so it sends no further beat. The objects that it wrote stay.
    pub fn die(&self) {
        if let Some(process) = self.process.take() {
            self.network.executor.crash(process);
        }
    }

    pub fn pod_key(&self) -> Key {
        Key::new(self.namespace, self.name.clone())
    }

    fn stored(&self, resource: &'static str, key: &Key) -> Option<Rc<Stored>> {
        self.network.server.store.borrow().get(resource, key).cloned()
    }

    fn make_pod(&self) {
        self.life.set(self.life.get() + 1);
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": self.name, "labels": { "app": self.registration } },
            "spec": { "nodeName": "node-1", "containers": [] },
            "status": {
                "phase": "Running",
                "podIPs": [{ "ip": self.address() }],
                "conditions": [{ "type": "ContainersReady", "status": "True" }],
            },
        });
        if let Answer::Object(pod) = self.network.create(PODS, self.namespace, pod) {
            *self.pod_uid.borrow_mut() = pod.uid().to_owned();
        }
    }

    /// Deletes the Pod and makes a new Pod with the same name, possibly before the garbage collector deletes
    /// the Lease.
    pub fn replace_pod(self: &Rc<Self>) {
        self.lose_pod();
        let this = self.clone();
        let pause = self.network.executor.random.between(0, 500);
        self.network.executor.after(pause, move || this.start());
    }

    /// Deletes the Pod. The garbage collector deletes the Lease some time later.
    pub fn lose_pod(&self) {
        self.die();
        self.network.delete(PODS, &self.pod_key(), None);
        if let Some(lease) = self.stored(LEASES, &self.lease()) {
            self.collect_later(&lease);
        }
    }

    fn collect_later(&self, lease: &Stored) {
        let (network, key, uid) = (self.network.clone(), self.lease(), lease.uid().to_owned());
        let pause = self.network.executor.random.between(0, COLLECTED_WITHIN);
        self.network.executor.after(pause, move || network.delete(LEASES, &key, Some(uid)));
    }

    /// Acts as the kubelet does after the store has gone back: if the Pod of a process no longer exists, it
    /// ends the process, and it starts a process for the Pod that exists.
    pub fn follow_pod(self: &Rc<Self>) {
        if !self.in_pod {
            return;
        }
        let Some(stored) = self.stored(PODS, &self.pod_key()) else { return self.die() };
        if stored.uid() == *self.pod_uid.borrow() {
            return;
        }
        let lived = self.lives();
        self.die();
        stored.uid().clone_into(&mut self.pod_uid.borrow_mut());
        let Object::Pod(pod) = stored.object() else { return };
        let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        let life = ips.filter_map(|ip| ip.ip.split('.').nth(1)?.parse().ok()).next();
        self.life.set(life.unwrap_or_default());
        if lived {
            self.start();
        }
    }

    /// Acts as the garbage collector: it deletes the Lease of a Pod that no longer exists.
    pub fn collect(&self) {
        let Some(lease) = self.stored(LEASES, &self.lease()) else { return };
        let owners = &lease.object().meta().owner_references;
        let owner = owners.iter().flatten().next().map(|owner| owner.uid.as_str());
        let pod = self.stored(PODS, &self.pod_key());
        if owner.is_some() && owner != pod.as_ref().map(|pod| pod.uid()) {
            self.collect_later(&lease);
        }
    }

    fn pace(&self) -> Pace {
        let stored = self.stored(REGISTRATIONS, &self.key).expect("registrations stay");
        let object = stored.object().registration().expect("it is a registration");
        Pace::of(object, None).expect("a pace")
    }

    fn roll(&self) -> f64 {
        let thousandth =
            u32::try_from(self.network.executor.random.between(0, 999)).expect("small");
        f64::from(thousandth) / 1000.0
    }

    async fn live(self: Rc<Self>) {
        let executor = self.network.executor.clone();
        let mut pace = self.pace();
        let stagger = executor.random.between(0, millis(pace.interval()) / 2);
        executor.sleep(stagger).await;
        loop {
            let mut backoff = Backoff::default();
            let mut sent = executor.now();
            while !self.beat(&pace).await {
                let pause =
                    backoff.pause(RetryLimits::between_beats(&pace, None), None, self.roll());
                executor.sleep(millis(pause).max(1)).await;
                sent = executor.now();
            }
            pace = self.pace();
            let next = sent + millis(pace.pause(self.roll()));
            executor.sleep(next.saturating_sub(executor.now())).await;
        }
    }

    /// Returns a renewTime from the workload's own wall clock. No renewTime is returned twice.
    fn renewed(&self) -> String {
        let now = i64::try_from(self.network.executor.now()).expect("small") + self.skew.get();
        let mut token = 1_800_000_000_000_000 + now * 1000;
        if token == self.last_token.get() {
            token += 1;
        }
        self.last_token.set(token);
        renew_time(Timestamp::from_microsecond(token).expect("in range"))
    }

    /// Sends a request, and waits for its answer. None if there is no useful answer in time.
    async fn ask(&self, asked: Asked, timeout: Duration) -> Option<Answer> {
        let executor = &self.network.executor;
        let (task, slot) = (executor.current(), Rc::new(RefCell::new(None)));
        let (waiting, awake) = (slot.clone(), executor.clone());
        self.network.send(self.caller(), asked, move |reply| {
            *waiting.borrow_mut() = Some(reply);
            awake.wake(task, 0);
        });
        let ends = executor.now() + millis(timeout);
        executor.wake(task, millis(timeout));
        let answer = std::future::poll_fn(|_| match slot.borrow_mut().take() {
            Some(reply) => Poll::Ready(Some(reply)),
            None if executor.now() >= ends => Poll::Ready(None),
            None => Poll::Pending,
        });
        match answer.await {
            Some(Reply::Answer(answer)) => Some(answer),
            _ => None,
        }
    }

    /// Sends a beat. Returns whether the API server has accepted it.
    async fn beat(&self, pace: &Pace) -> bool {
        let timeout = pace.request_timeout();
        // As in the SDK, the beat with which the instance begins to follow a new pace also carries
        // leaseDurationSeconds.
        let patch = json!({ "spec": {
            "renewTime": self.renewed(),
            "leaseDurationSeconds": pace.lease_duration_seconds(),
        } });
        let lease = self.lease();
        let stranger =
            match self.ask(Asked::object(Ask::Patch(patch), LEASES, &lease), timeout).await {
                Some(Answer::Object(lease)) => match lease.object().lease() {
                    Some(known) if !self.is_own(known) => Some(lease.uid().to_owned()),
                    _ => return true,
                },
                Some(Answer::Refused(refusal)) if refusal.code == 404 => None,
                _ => return false,
            };
        if let Some(uid) = stranger {
            // The Lease belongs to an earlier Pod of the same name.
            let delete = Ask::Delete(Preconditions { uid: Some(uid), version: None });
            match self.ask(Asked::object(delete, LEASES, &lease), timeout).await {
                Some(Answer::Object(_)) => {}
                _ => return false,
            }
        }
        let create = Asked::object(Ask::Create(self.new_lease(pace)), LEASES, &lease);
        matches!(self.ask(create, timeout).await, Some(Answer::Object(_)))
    }

    pub fn is_own(&self, lease: &HeartbeatLease) -> bool {
        match Heartbeat::read(lease).content.origin {
            Origin::Outside => !self.in_pod,
            Origin::Pod { uid, .. } => self.in_pod && uid == *self.pod_uid.borrow(),
        }
    }

    fn new_lease(&self, pace: &Pace) -> Value {
        let mut metadata = json!({
            "name": self.lease().name,
            "labels": { REGISTRATION_LABEL: self.registration },
        });
        if self.in_pod {
            let uid = self.pod_uid.borrow().clone();
            let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": uid });
            metadata["ownerReferences"] = json!([owner]);
        } else {
            metadata["annotations"] = json!({ ADDRESSES_ANNOTATION: self.address() });
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.name,
                "renewTime": self.renewed(),
                "leaseDurationSeconds": pace.lease_duration_seconds(),
            },
        })
    }
}
