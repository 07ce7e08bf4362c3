//! A namespace for one test, and operations in it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use beatkeeper_api::{InstanceStatus, ServiceRegistration};
use beatkeeper_cluster::ControlPlane;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{coordination::v1::Lease, core::v1::Pod},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Beats, Published};

/// The longest wait of a test. Events that tests await normally come within milliseconds. The limit
/// is high because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `look` until it returns a value. Panics after [`PATIENCE`] with the name of what was
/// awaited.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A namespace with a registration in it.
#[derive(Clone)]
pub struct TestNamespace {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub name: String,
}

impl TestNamespace {
    /// Creates a namespace on the shared control plane.
    pub async fn new(prefix: &str) -> Self {
        Self::new_on(super::crd::install().await, prefix).await
    }

    /// Creates a namespace on the given control plane.
    pub async fn new_on(plane: &'static ControlPlane, prefix: &str) -> Self {
        let name = plane.namespace(prefix).await.unwrap();
        Self { plane, client: plane.admin_client().unwrap(), name }
    }

    /// The outside ranges with which any documentation address may be published in this namespace.
    pub fn ranges(&self) -> Vec<String> {
        ["192.0.2.0/24", "198.51.100.0/24", "198.18.0.0/15", "2001:db8::/32"]
            .iter()
            .map(|range| format!("--outside-range={}={range}", self.name))
            .collect()
    }

    /// An operator for this namespace that allows documentation addresses.
    pub fn operator(&self) -> super::Operator {
        self.operator_with(&[])
    }

    pub fn operator_with(&self, flags: &[&str]) -> super::Operator {
        let ranges = self.ranges();
        let mut all: Vec<&str> = ranges.iter().map(String::as_str).collect();
        all.extend(flags);
        super::Operator::start(self.plane, &self.name, &all)
    }

    /// Creates a registration from its spec.
    pub async fn register(&self, name: &str, spec: Value) -> ServiceRegistration {
        let object = json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "name": name },
            "spec": spec,
        });
        self.api()
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap()
    }

    /// Creates the usual registration: ttl 3s, interval 1s, port grpc 80 → 8080, any Pod.
    pub async fn greeter(&self) -> ServiceRegistration {
        self.register("greeter", Self::usual_spec()).await
    }

    /// Like [`Self::greeter`], with a ttl of 1 h and an interval of 10 min. It is for instances
    /// that beat by hand or only once, because the next step may come late on a busy machine.
    /// Returns when an operator has seen the registration.
    pub async fn patient_greeter(&self) {
        let mut spec = Self::usual_spec();
        (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
        self.register("greeter", spec).await;
        self.looked_at("greeter").await;
    }

    pub fn usual_spec() -> Value {
        json!({
            "ttl": "3s",
            "interval": "1s",
            "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
            "podSelector": {},
        })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub async fn lease(&self, name: &str) -> Option<Lease> {
        self.api().get_opt(name).await.unwrap()
    }

    /// Creates any object from JSON.
    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Merge-patches any object.
    pub async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub fn beats(&self, registration: &str) -> Beats {
        Beats::new(self.client.clone(), &self.name, registration)
    }

    /// Starts two instances of `greeter` that beat, vm-1 at 192.0.2.1 and vm-2 at 192.0.2.2, and waits until both are
    /// published.
    pub async fn two_published(&self, interval: Duration) -> Beats {
        let mut beats = self.beats("greeter");
        beats.start(&beats.outside("vm-1", "192.0.2.1"), interval).await;
        beats.start(&beats.outside("vm-2", "192.0.2.2"), interval).await;
        self.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
        beats
    }

    /// Creates a Pod as an API object only. The test writes its status: ready, with these
    /// addresses. Returns the uid of the Pod. The label `app` tells the Pods of one test apart.
    pub async fn pod(&self, name: &str, ips: &[&str], spec: Value) -> String {
        let mut full =
            json!({ "containers": [{ "name": "main", "image": "none" }], "nodeName": "nowhere" });
        merge(&mut full, spec);
        let pod: Pod = self
            .create(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "labels": { "app": "greeter" } },
                "spec": full,
            }))
            .await;
        self.pod_status(name, ips, true, "Running").await;
        pod.metadata.uid.unwrap()
    }

    /// Writes the status of a Pod as its kubelet would.
    pub async fn pod_status(&self, name: &str, ips: &[&str], ready: bool, phase: &str) {
        let ready = if ready { "True" } else { "False" };
        let ips: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        let status = json!({ "status": {
            "phase": phase,
            "podIP": ips.first().map(|ip| ip["ip"].clone()),
            "podIPs": ips,
            "conditions": [
                { "type": "ContainersReady", "status": ready },
                { "type": "Ready", "status": ready },
            ],
        }});
        self.api::<Pod>()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub async fn published(&self, service: &str) -> Published {
        Published::read(&self.client, &self.name, service).await
    }

    /// Waits until exactly these addresses are ready in the slices and in Endpoints.
    pub async fn published_as_ready(&self, service: &str, addresses: &[&str]) -> Published {
        let wanted: BTreeSet<String> = addresses.iter().map(|&text| text.to_owned()).collect();
        let what = format!("{service} publishes {wanted:?} as ready, and nothing else");
        eventually(&what, async || {
            let published = self.published(service).await;
            (published.ready() == wanted && published.in_endpoints() == wanted).then_some(published)
        })
        .await
    }

    pub async fn registration(&self, name: &str) -> ServiceRegistration {
        self.api().get(name).await.unwrap()
    }

    /// Waits until an operator has seen a registration. A single beat before that would tell the
    /// operator nothing.
    pub async fn looked_at(&self, name: &str) {
        let what = format!("an operator looks at {name}");
        let status = async || self.registration(name).await.status;
        eventually(&what, async || status().await.filter(|it| it.is_reported())).await;
    }

    /// Waits until the status lists an instance in a state and with a reason.
    pub async fn instance(
        &self,
        registration: &str,
        instance: &str,
        state: &str,
        reason: &str,
    ) -> InstanceStatus {
        let what = format!("{instance} of {registration} is {state} ({reason})");
        eventually(&what, async || {
            let status = self.registration(registration).await.status?;
            status.instances.into_iter().find(|known| {
                known.name == instance && known.state == state && known.reason == reason
            })
        })
        .await
    }

    /// Waits until a condition has a status and a reason; returns its message.
    pub async fn condition(
        &self,
        registration: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("condition {type_} of {registration} is {status} ({reason})");
        eventually(&what, async || {
            let current = self.registration(registration).await.status?;
            current
                .conditions
                .into_iter()
                .find(|known| {
                    known.type_ == type_ && known.status == status && known.reason == reason
                })
                .map(|known| known.message)
        })
        .await
    }
}

fn merge(target: &mut Value, patch: Value) {
    if let (Some(target), Value::Object(patch)) = (target.as_object_mut(), patch) {
        target.extend(patch);
    }
}
