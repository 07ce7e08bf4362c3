//! Instances: processes that beat with the pauses and retries of the agent.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use beatkeeper_api::heartbeat::{ADDRESSES_ANNOTATION, REGISTRATION_LABEL, lease_name, renew_time};
use beatkeeper_client::schedule::{Backoff, Pace, RetryLimits};
use beatkeeper_core::{
    objects::heartbeat::{HeartbeatLease, HeartbeatSpec, Origin},
    vocabulary::key::Key,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodIP, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{
    api::{Answer, Call, Refusal},
    controller::millis,
    executor::ProcessId,
    network::{Caller, Network},
    object::{Kind, Object},
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
        if self.in_pod && self.network.api.borrow().get(Kind::Pod, &self.pod_key()).is_none() {
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

    fn make_pod(&self) {
        self.life.set(self.life.get() + 1);
        let ip = self.address();
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(BTreeMap::from([("app".to_owned(), self.registration.to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { node_name: Some("node-1".to_owned()), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: Some("Running".to_owned()),
                pod_ips: Some(vec![PodIP { ip }]),
                conditions: Some(vec![PodCondition {
                    type_: "ContainersReady".to_owned(),
                    status: "True".to_owned(),
                    ..PodCondition::default()
                }]),
                ..PodStatus::default()
            }),
        };
        let call = Call::Create(Object::Pod(Arc::new(pod)));
        if let Ok(Answer::Object(pod)) = self.network.execute(&Caller::Person, call, None) {
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
        let delete = |kind, key, uid| Call::Delete { kind, key, uid, version: None };
        let call = delete(Kind::Pod, self.pod_key(), None);
        let _ = self.network.execute(&Caller::Person, call, None);
        let lease = self.network.api.borrow().get(Kind::Lease, &self.lease()).cloned();
        if let Some(lease) = lease {
            let network = self.network.clone();
            let call = delete(Kind::Lease, self.lease(), Some(lease.uid().to_owned()));
            let pause = self.network.executor.random.between(0, COLLECTED_WITHIN);
            self.network.executor.after(pause, move || {
                let _ = network.execute(&Caller::Person, call, None);
            });
        }
    }

    /// Acts as the kubelet does after the store has gone back: if the Pod of a process no longer exists, it
    /// ends the process, and it starts a process for the Pod that exists.
    pub fn follow_pod(self: &Rc<Self>) {
        if !self.in_pod {
            return;
        }
        let known = self.network.api.borrow().get(Kind::Pod, &self.pod_key()).cloned();
        let Some(Object::Pod(pod)) = known else { return self.die() };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if uid == *self.pod_uid.borrow() {
            return;
        }
        let lived = self.lives();
        self.die();
        *self.pod_uid.borrow_mut() = uid;
        let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        let life = ips.filter_map(|ip| ip.ip.split('.').nth(1)?.parse().ok()).next();
        self.life.set(life.unwrap_or_default());
        if lived {
            self.start();
        }
    }

    /// Acts as the garbage collector: it deletes the Lease of a Pod that no longer exists.
    pub fn collect(&self) {
        let api = self.network.api.borrow();
        let Some(Object::Lease(lease)) = api.get(Kind::Lease, &self.lease()).cloned() else {
            return;
        };
        let owner = lease.metadata.owner_references.iter().flatten().next();
        let pod = api.get(Kind::Pod, &self.pod_key()).map(|pod| pod.uid().to_owned());
        if owner.is_none() || owner.map(|owner| &owner.uid) == pod.as_ref() {
            return;
        }
        let uid = lease.metadata.uid.clone();
        let call = Call::Delete { kind: Kind::Lease, key: self.lease(), uid, version: None };
        let (network, pause) =
            (self.network.clone(), self.network.executor.random.between(0, COLLECTED_WITHIN));
        self.network.executor.after(pause, move || {
            let _ = network.execute(&Caller::Person, call, None);
        });
    }

    fn pace(&self) -> Pace {
        let api = self.network.api.borrow();
        match api.get(Kind::Registration, &self.key) {
            Some(Object::Registration(object)) => Pace::of(object, None).expect("a pace"),
            _ => unreachable!("registrations stay"),
        }
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
            while self.beat(&pace).await.is_err() {
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
    fn renewed(&self) -> i64 {
        let now = i64::try_from(self.network.executor.now()).expect("small") + self.skew.get();
        let mut token = 1_800_000_000_000_000 + now * 1000;
        if token == self.last_token.get() {
            token += 1;
        }
        self.last_token.set(token);
        token
    }

    async fn call(&self, call: Call, timeout: Duration) -> Result<Answer, Refusal> {
        self.network.call(self.caller(), call, millis(timeout), None).await
    }

    async fn beat(&self, pace: &Pace) -> Result<(), Refusal> {
        let timeout = pace.request_timeout();
        // As in the SDK, the beat with which the instance begins to follow a new pace also carries
        // leaseDurationSeconds.
        let seconds = Some(pace.lease_duration_seconds());
        let (lease, renewed) = (self.lease(), self.renewed());
        let call = Call::Beat { lease, renewed, seconds, annotation: None, left: None };
        let answer = self.call(call, timeout).await;
        let stranger = match &answer {
            Ok(Answer::Object(Object::Lease(lease))) if !self.is_own(lease) => {
                lease.metadata.uid.clone()
            }
            Ok(_) => return Ok(()),
            Err(Refusal::Absent) => None,
            Err(refusal) => return Err(*refusal),
        };
        if let Some(uid) = stranger {
            // The Lease belongs to an earlier Pod of the same name.
            let (kind, key) = (Kind::Lease, self.lease());
            let call = Call::Delete { kind, key, uid: Some(uid), version: None };
            let _ = self.call(call, timeout).await?;
        }
        let lease = Object::Lease(Arc::new(self.new_lease(pace)));
        self.call(Call::Create(lease), timeout).await.map(drop)
    }

    pub fn is_own(&self, lease: &HeartbeatLease) -> bool {
        let beat = beatkeeper_core::objects::heartbeat::Heartbeat::read(lease);
        match beat.content.origin {
            Origin::Outside => !self.in_pod,
            Origin::Pod { uid, .. } => self.in_pod && uid == *self.pod_uid.borrow(),
        }
    }

    fn new_lease(&self, pace: &Pace) -> HeartbeatLease {
        let renewed = Timestamp::from_microsecond(self.renewed()).expect("in range");
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.name.clone(),
            uid: self.pod_uid.borrow().clone(),
            ..OwnerReference::default()
        };
        let addresses = [(ADDRESSES_ANNOTATION.to_owned(), self.address())];
        let labels = [(REGISTRATION_LABEL.to_owned(), self.registration.to_owned())];
        HeartbeatLease {
            metadata: ObjectMeta {
                name: Some(self.lease().name),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(labels.into()),
                annotations: (!self.in_pod).then(|| addresses.into()),
                owner_references: self.in_pod.then(|| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(HeartbeatSpec {
                holder_identity: Some(self.name.clone()),
                renew_time: Some(renew_time(renewed)),
                lease_duration_seconds: Some(pace.lease_duration_seconds()),
            }),
        }
    }
}
