//! Instances that beat from within the test, many at a time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

/// The beating instances of one registration. When this is dropped, they stop beating and do not
/// deregister.
pub struct Beats {
    client: Client,
    namespace: String,
    registration: String,
    hearts: HashMap<String, JoinHandle<()>>,
}

impl Beats {
    pub fn new(client: Client, namespace: &str, registration: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            registration: registration.to_owned(),
            hearts: HashMap::new(),
        }
    }

    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Lease of an outside instance. The Lease contains the address of the instance.
    pub fn outside(&self, instance: &str, addresses: &str) -> Lease {
        let lease = json!({
            "metadata": {
                "name": heartbeat::lease_name(&self.registration, instance),
                "labels": { heartbeat::REGISTRATION_LABEL: self.registration },
                "annotations": { heartbeat::ADDRESSES_ANNOTATION: addresses },
            },
            "spec": {
                "holderIdentity": instance,
                "leaseDurationSeconds": 3,
                "renewTime": heartbeat::renew_time(Timestamp::now()),
            },
        });
        serde_json::from_value(lease).unwrap()
    }

    /// The Lease of an instance in a Pod.
    pub fn in_pod(&self, pod: &str, uid: &str) -> Lease {
        let mut lease = self.outside(pod, "");
        lease.metadata.annotations = None;
        lease.metadata.owner_references = serde_json::from_value(json!([
            { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid }
        ]))
        .unwrap();
        lease
    }

    /// Creates a Lease. No further beat follows.
    pub async fn create(&self, lease: &Lease) -> Lease {
        self.leases().create(&PostParams::default(), lease).await.unwrap()
    }

    /// Creates a Lease and renews it at an interval until the instance is stopped.
    pub async fn start(&mut self, lease: &Lease, interval: Duration) {
        self.create(lease).await;
        self.keep_beating(lease.spec.as_ref().unwrap().holder_identity.as_ref().unwrap(), interval);
    }

    /// Renews an existing Lease at an interval.
    pub fn keep_beating(&mut self, instance: &str, interval: Duration) {
        let leases = self.leases();
        let name = heartbeat::lease_name(&self.registration, instance);
        let heart = tokio::spawn(async move {
            let mut ticker = tokio::time::interval(interval);
            ticker.tick().await;
            loop {
                ticker.tick().await;
                let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
                let _ = leases.patch(&name, &PatchParams::default(), &patch).await;
            }
        });
        self.hearts.insert(instance.to_owned(), heart);
    }

    /// Sends one beat with the given renewTime.
    pub async fn beat_at(&self, instance: &str, claimed: Timestamp) -> Lease {
        let name = heartbeat::lease_name(&self.registration, instance);
        let patch = Patch::Merge(heartbeat::beat_patch(claimed));
        self.leases().patch(&name, &PatchParams::default(), &patch).await.unwrap()
    }

    /// Stops the beats of an instance without deregistering it, as SIGKILL does. Returns when they
    /// stopped.
    pub fn die(&mut self, instance: &str) -> Instant {
        self.hearts.remove(instance).unwrap().abort();
        Instant::now()
    }

    /// Deregisters the instance, as on SIGTERM.
    pub async fn leave(&mut self, instance: &str) {
        self.die(instance);
        let name = heartbeat::lease_name(&self.registration, instance);
        self.leases().delete(&name, &DeleteParams::default()).await.unwrap();
    }

    /// Sets or removes an annotation of a Lease.
    pub async fn annotate(&self, instance: &str, annotation: &str, value: Option<&str>) {
        let name = heartbeat::lease_name(&self.registration, instance);
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        let params = PatchParams::default();
        self.leases().patch(&name, &params, &Patch::Merge(patch)).await.unwrap();
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.hearts.values().for_each(JoinHandle::abort);
    }
}
