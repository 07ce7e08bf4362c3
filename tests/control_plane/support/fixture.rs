//! A [`TestNamespace`] with its operator and a registration `greeter` whose instances need no further beat
//! for a long time. It is for tests of what is published, where beats would only add load.

use std::{collections::BTreeSet, ops::Deref};

use beatkeeper_api::{InstanceStatus, ServiceRegistration};
use beatkeeper_cluster::Options;
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Beats, Operator, Published, TestNamespace, eventually};

/// How many requests of a test run at once.
const SIDE_BY_SIDE: usize = 8;

/// A namespace whose operator has seen the registration. The operator therefore counts a Lease that is
/// created from now on as a beat.
pub struct Fixture {
    pub ns: TestNamespace,
    pub operator: Operator,
    pub beats: Beats,
}

impl Fixture {
    /// Prepares a fixture on the shared control plane. `changes` replace fields of the spec: ttl 5m,
    /// interval 1m, port grpc 80 → 8080, any Pod.
    pub async fn new(prefix: &str, changes: Value) -> Self {
        let ns = TestNamespace::new(prefix).await;
        let operator = ns.operator();
        Self::open(ns, operator, changes).await
    }

    /// Like [`Self::new`], with a Service that exists before the registration.
    pub async fn beside_service(prefix: &str, service: Value, changes: Value) -> Self {
        let ns = TestNamespace::new(prefix).await;
        ns.service("greeter", service).await;
        let operator = ns.operator();
        Self::open(ns, operator, changes).await
    }

    /// Like [`Self::new`], on a separate control plane, which ends with the test. The
    /// operator watches all namespaces.
    pub async fn on_own_plane(prefix: &str, options: Options) -> Self {
        let plane = super::crd::install_on_own(options).await;
        let ns = TestNamespace::new_on(plane, prefix).await;
        let ranges = ns.ranges();
        let flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
        let operator = Operator::start(plane, "", &flags);
        Self::open(ns, operator, json!({})).await
    }

    async fn open(ns: TestNamespace, operator: Operator, changes: Value) -> Self {
        let beats = ns.beats("greeter");
        let fixture = Self { ns, operator, beats };
        fixture.add_registration("greeter", changes).await;
        fixture
    }

    /// Creates a further registration like the first one. Waits until the operator has published
    /// it.
    pub async fn add_registration(&self, name: &str, changes: Value) -> ServiceRegistration {
        let mut spec = json!({
            "ttl": "5m",
            "interval": "1m",
            "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
            "podSelector": {},
        });
        if let (Some(spec), Value::Object(changes)) = (spec.as_object_mut(), changes) {
            spec.extend(changes);
        }
        let registration = self.ns.register(name, spec).await;
        self.condition(name, "Ready", "True", "Published").await;
        registration
    }

    /// Registers an outside instance.
    pub async fn join(&self, instance: &str, addresses: &str) -> Lease {
        self.beats.create(&self.beats.outside(instance, addresses)).await
    }

    /// Registers many outside instances, given as names and addresses.
    pub async fn join_all(&self, instances: impl IntoIterator<Item = (String, String)>) {
        let join = |(instance, address): (String, String)| async move {
            self.join(&instance, &address).await;
        };
        stream::iter(instances).for_each_concurrent(SIDE_BY_SIDE, join).await;
    }

    /// Creates a Pod with these addresses and registers its instance. Returns the uid of the Pod.
    pub async fn join_pod(&self, pod: &str, ips: &[&str], spec: Value) -> String {
        let uid = self.pod(pod, ips, spec).await;
        self.beats.create(&self.beats.in_pod(pod, &uid)).await;
        uid
    }

    /// Deregisters an instance, in a Pod or outside.
    pub async fn quit(&self, instance: &str) {
        let name = format!("greeter.{instance}");
        self.api::<Lease>().delete(&name, &DeleteParams::default()).await.unwrap();
    }

    /// Deregisters many instances.
    pub async fn quit_all(&self, instances: impl IntoIterator<Item = String>) {
        let quit = |instance: String| async move { self.quit(&instance).await };
        stream::iter(instances).for_each_concurrent(SIDE_BY_SIDE, quit).await;
    }

    /// Waits until the slices and Endpoints satisfy a predicate, and returns them.
    pub async fn publishes(&self, what: &str, right: impl Fn(&Published) -> bool) -> Published {
        eventually(what, async || {
            let published = self.published("greeter").await;
            right(&published).then_some(published)
        })
        .await
    }

    /// Waits until `greeter` publishes exactly these addresses with these port names and ports.
    pub async fn publishes_ports(&self, wanted: &[(&str, &str, i32)]) -> Published {
        let wanted: BTreeSet<(String, String, i32)> = wanted
            .iter()
            .map(|(address, name, port)| ((*address).to_owned(), (*name).to_owned(), *port))
            .collect();
        let what = format!("exactly {wanted:?} is published");
        self.publishes(&what, |published| published.address_ports() == wanted).await
    }

    /// Waits until an instance of `greeter` is in a state with a reason.
    pub async fn status(&self, instance: &str, state: &str, reason: &str) -> InstanceStatus {
        self.instance("greeter", instance, state, reason).await
    }

    /// Waits until the status of `greeter` counts this many instances in total.
    pub async fn counts(&self, total: i32) {
        let what = format!("the status counts {total} instances");
        eventually(&what, async || {
            let status = self.registration("greeter").await.status?;
            (status.total == total).then_some(())
        })
        .await;
    }
}

impl TestNamespace {
    /// Creates a Service without a selector. `changes` replace fields of its spec.
    pub async fn service(&self, name: &str, changes: Value) {
        let mut spec = json!({ "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }] });
        if let (Some(spec), Value::Object(changes)) = (spec.as_object_mut(), changes) {
            spec.extend(changes);
        }
        self.create::<k8s_openapi::api::core::v1::Service>(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec,
        }))
        .await;
    }

    /// Creates a Pod with this label `app` on an existing Node, so that the cluster's own
    /// controllers publish it. Returns the uid of the Pod.
    pub async fn pod_on_a_node(&self, name: &str, ip: &str, app: &str) -> String {
        let node = format!("node-of-{}", self.name);
        let nodes = kube::Api::<Node>::all(self.client.clone());
        if nodes.get_opt(&node).await.unwrap().is_none() {
            let object = json!({ "metadata": { "name": node } });
            let object = serde_json::from_value(object).unwrap();
            nodes.create(&kube::api::PostParams::default(), &object).await.unwrap();
        }
        let uid = self.pod(name, &[ip], json!({ "nodeName": node })).await;
        self.patch::<Pod>(name, json!({ "metadata": { "labels": { "app": app } } })).await;
        uid
    }

    /// Writes the conditions of a Pod. Each type becomes True or False.
    pub async fn pod_conditions(&self, name: &str, conditions: &[(&str, bool)]) {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(type_, holds)| {
                json!({ "type": type_, "status": if *holds { "True" } else { "False" } })
            })
            .collect();
        let status = json!({ "status": { "conditions": conditions } });
        let params = PatchParams::default();
        self.api::<Pod>().patch_status(name, &params, &Patch::Merge(status)).await.unwrap();
    }

    /// Deletes a Pod with a grace period in seconds. With 0 the Pod is gone at once, as after
    /// `--force`.
    pub async fn delete_pod(&self, name: &str, grace_seconds: u32) {
        let params = DeleteParams::default().grace_period(grace_seconds);
        self.api::<Pod>().delete(name, &params).await.unwrap();
    }
}

impl Deref for Fixture {
    type Target = TestNamespace;

    fn deref(&self) -> &TestNamespace {
        &self.ns
    }
}
