//! An admission plugin refuses to publish some endpoints. The others of their slice are published,
//! and the status says which are in the slices, with the plugin's words.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::ServiceRegistration;
use futures::StreamExt;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const WORDS: &str = "addresses of Pods need create on the subresource restricted";

/// Policies like the admission plugin of OpenShift, for one namespace.
struct Policies<'a> {
    ns: &'a TestNamespace,
    resources: Vec<&'static str>,
}

impl<'a> Policies<'a> {
    /// Installs the policies. Each rule is what must hold for an object of its resource that is
    /// created or updated.
    async fn install(ns: &'a TestNamespace, rules: &[(&'static str, &str, &str)]) -> Self {
        for (resource, group, rule) in rules {
            let name = format!("{}-{resource}", ns.name);
            create_cluster_wide::<ValidatingAdmissionPolicy>(ns, json!({
                "metadata": { "name": name },
                "spec": {
                    "failurePolicy": "Fail",
                    "matchConstraints": { "resourceRules": [{
                        "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
                        "operations": ["CREATE", "UPDATE"],
                    }]},
                    "validations": [{ "expression": rule, "message": WORDS, "reason": "Forbidden" }],
                },
            }))
            .await;
            create_cluster_wide::<ValidatingAdmissionPolicyBinding>(
                ns,
                json!({
                    "metadata": { "name": name },
                    "spec": {
                        "policyName": name,
                        "validationActions": ["Deny"],
                        "matchResources": { "namespaceSelector": { "matchLabels": {
                            "kubernetes.io/metadata.name": ns.name,
                        }}},
                    },
                }),
            )
            .await;
        }
        let policies = Self { ns, resources: rules.iter().map(|(it, ..)| *it).collect() };
        policies.are_in_force().await;
        policies
    }

    /// Waits until the policies are in force, because the API server needs a moment. The trial
    /// writes are dry runs.
    async fn are_in_force(&self) {
        let tried = PostParams { dry_run: true, ..PostParams::default() };
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": { "name": "tried" }, "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.88.0.99"] }],
        }))
        .unwrap();
        let endpoints: Endpoints = serde_json::from_value(json!({
            "metadata": { "name": "tried" }, "subsets": [{ "addresses": [{ "ip": "10.88.0.99" }] }],
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "tried" }, "spec": { "ports": [{ "port": 80 }] },
        }))
        .unwrap();
        eventually("the policies are in force", async || {
            let slices = !self.resources.contains(&"endpointslices")
                || self.ns.api().create(&tried, &slice).await.is_err();
            let endpoints = !self.resources.contains(&"endpoints")
                || self.ns.api().create(&tried, &endpoints).await.is_err();
            let services = !self.resources.contains(&"services")
                || self.ns.api().create(&tried, &service).await.is_err();
            (slices && endpoints && services).then_some(())
        })
        .await;
    }

    async fn remove(self) {
        for resource in &self.resources {
            let name = format!("{}-{resource}", self.ns.name);
            let client = || self.ns.client.clone();
            let params = DeleteParams::default();
            let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client());
            bindings.delete(&name, &params).await.unwrap();
            Api::<ValidatingAdmissionPolicy>::all(client()).delete(&name, &params).await.unwrap();
        }
    }
}

async fn create_cluster_wide<K>(ns: &TestNamespace, object: Value)
where
    K: kube::Resource<DynamicType = ()>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    Api::<K>::all(ns.client.clone()).create(&PostParams::default(), &object).await.unwrap();
}

const NO_PODS_IN_SLICES: &str = "!has(object.endpoints) || object.endpoints.all(e, e.addresses.all(a, !a.startsWith('10.88.')))";
const NO_PODS_IN_ENDPOINTS: &str = "!has(object.subsets) || object.subsets.all(s, \
     !has(s.addresses) || s.addresses.all(a, !a.ip.startsWith('10.88.')))";

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_address_keeps_no_other_out_and_is_told_with_the_servers_words() {
    let ns = TestNamespace::new("refused").await;
    let policies = Policies::install(
        &ns,
        &[
            ("endpointslices", "discovery.k8s.io", NO_PODS_IN_SLICES),
            ("endpoints", "", NO_PODS_IN_ENDPOINTS),
        ],
    )
    .await;
    let _operator = ns.operator();
    let mut spec = TestNamespace::usual_spec();
    (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
    ns.register("greeter", spec).await;
    ns.looked_at("greeter").await;
    let beats = ns.beats("greeter");
    for pod in ["greeter-1", "greeter-2"] {
        let uid = ns.pod(pod, &[&format!("10.88.0.{}", &pod[8..])], json!({})).await;
        beats.create(&beats.in_pod(pod, &uid)).await;
    }
    for (name, address) in [("vm-1", "192.0.2.1"), ("vm-2", "192.0.2.2")] {
        beats.create(&beats.outside(name, address)).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    for pod in ["greeter-1", "greeter-2"] {
        let status = ns.instance("greeter", pod, "Waiting", "PublishFailed").await;
        assert!(status.message.contains(WORDS), "{}", status.message);
    }
    let message = ns.condition("greeter", "Ready", "False", "PublishFailed").await;
    assert!(message.contains(WORDS), "{message}");
    ns.instance("greeter", "vm-1", "Ready", "Beating").await;
    eventually("the status counts both outside instances", async || {
        (ns.registration("greeter").await.status?.ready == 2).then_some(())
    })
    .await;

    // The operator retries it, without writing a status or a slice. The pauses between the tries are longer.
    let mark = ns.settled(INTERVAL).await;
    eventually("it was tried again", async || {
        let written = ns.written_since(mark).await;
        let refused = written.iter().filter(|it| it.resource == "endpointslices" && it.code == 403);
        (refused.count() >= 2).then_some(())
    })
    .await;
    let written = ns.written_since(mark).await;
    let told = written.iter().filter(|it| it.resource == "serviceregistrations");
    assert_eq!(told.count(), 0, "{written:?}");
    assert!(written.len() < 100, "no hot loop: {}", written.len());

    policies.remove().await;
    let all = ["192.0.2.1", "192.0.2.2", "10.88.0.1", "10.88.0.2"];
    ns.published_as_ready("greeter", &all).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let events = ns.published("greeter").await;
    assert_eq!(events.slices.len(), 1, "nothing is left of the tries");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_among_many_that_is_refused_is_found() {
    let ns = TestNamespace::new("refused-one").await;
    let rule = "!has(object.endpoints) || object.endpoints.all(e, !('192.0.2.17' in e.addresses))";
    let always =
        "!has(object.endpoints) || object.endpoints.all(e, !('10.88.0.99' in e.addresses))";
    let rule = format!("({rule}) && ({always})");
    let _policies = Policies::install(&ns, &[("endpointslices", "discovery.k8s.io", &rule)]).await;
    let beats = ns.beats("greeter");
    let addresses: Vec<String> = (1..=30).map(|n| format!("192.0.2.{n}")).collect();
    let mut spec = TestNamespace::usual_spec();
    (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
    let _operator = ns.operator();
    ns.register("greeter", spec).await;
    ns.looked_at("greeter").await;
    for address in &addresses {
        beats.create(&beats.outside(&address.replace('.', "-"), address)).await;
    }
    let wanted: BTreeSet<String> =
        addresses.iter().filter(|it| *it != "192.0.2.17").cloned().collect();
    eventually("all others are published", async || {
        (ns.published("greeter").await.ready() == wanted).then_some(())
    })
    .await;
    ns.instance("greeter", "192-0-2-17", "Waiting", "PublishFailed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_removal_is_refused_is_told_to_be_published_still() {
    let ns = TestNamespace::new("refused-removal").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    let observer = ns.observe("greeter").await;
    let policies = Policies::install(&ns, &[("endpointslices", "discovery.k8s.io", "false")]).await;
    beats.die("vm-1");
    let status = ns.instance("greeter", "vm-1", "Expired", "PublishFailed").await;
    assert!(status.message.contains("still published") && status.message.contains(WORDS));
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    ns.instance("greeter", "vm-3", "Waiting", "PublishFailed").await;
    ns.instance("greeter", "vm-2", "Ready", "Beating").await;
    assert_eq!(observer.left(), [""; 0]);
    policies.remove().await;
    observer.leaves("192.0.2.1").await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
}

/// The addresses in every state of a Service's Endpoints since a resource version.
async fn listed_since(ns: &TestNamespace, service: &str, version: &str) -> Vec<Vec<String>> {
    let params = WatchParams::default().fields(&format!("metadata.name={service}")).timeout(2);
    let mut events = std::pin::pin!(ns.api::<Endpoints>().watch(&params, version).await.unwrap());
    let mut states = Vec::new();
    while let Some(event) = events.next().await {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event.unwrap() else {
            continue;
        };
        let subsets = object.subsets.iter().flatten();
        let both = subsets.flat_map(|it| [&it.addresses, &it.not_ready_addresses]).flatten();
        states.push(both.flatten().map(|address| address.ip.clone()).collect());
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_slices_may_not_have_is_in_no_endpoints_either_and_no_removal_waits() {
    let ns = TestNamespace::new("refused-listed").await;
    let policies =
        Policies::install(&ns, &[("endpointslices", "discovery.k8s.io", NO_PODS_IN_SLICES)]).await;
    let _operator = ns.operator();
    ns.patient_greeter().await;
    let mut beats = ns.beats("greeter");
    for (name, address) in [("vm-1", "192.0.2.1"), ("vm-2", "192.0.2.2")] {
        beats.start(&beats.outside(name, address), Duration::from_secs(3600)).await;
    }
    let published = ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let version = published.endpoints.unwrap().metadata.resource_version.unwrap();
    let uid = ns.pod("greeter-1", &["10.88.0.1"], json!({})).await;
    beats.create(&beats.in_pod("greeter-1", &uid)).await;
    ns.instance("greeter", "greeter-1", "Waiting", "PublishFailed").await;
    // Other instances come and go in the same write in which the refused one is left out.
    let mark = ns.plane.audit_mark().await.unwrap();
    beats.create(&beats.outside("vm-3", "192.0.2.3")).await;
    beats.leave("vm-2").await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    eventually("it was tried again", async || {
        let written = ns.written_since(mark).await;
        let refused = written.iter().filter(|it| it.resource == "endpointslices" && it.code == 403);
        (refused.count() >= 4).then_some(())
    })
    .await;
    let states = listed_since(&ns, "greeter", &version).await;
    assert!(!states.is_empty());
    assert!(states.iter().flatten().all(|it| !it.starts_with("10.88.")), "{states:?}");
    policies.remove().await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3", "10.88.0.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_replaced_while_its_writes_are_refused_empties_nothing() {
    let ns = TestNamespace::new("refused-replaced").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    let observer = ns.observe("greeter").await;
    let all = [
        ("endpointslices", "discovery.k8s.io", "false"),
        ("endpoints", "", "false"),
        ("services", "", "false"),
    ];
    let policies = Policies::install(&ns, &all).await;
    let registrations = ns.api::<ServiceRegistration>();
    registrations.delete("greeter", &DeleteParams::default()).await.unwrap();
    let mark = ns.plane.audit_mark().await.unwrap();
    ns.greeter().await;
    // The writes of the Service and of the slice alternate, so the reason is WriteFailed or
    // PublishFailed.
    eventually("the refusal is told in the registration's condition", async || {
        let status = ns.registration("greeter").await.status?;
        let ready = status.conditions.into_iter().find(|it| it.type_ == "Ready")?;
        (ready.status == "False" && ready.message.contains(WORDS)).then_some(())
    })
    .await;
    // This takes longer than anything that outlives a deleted registration, because the backoff
    // between retries of a slice is 2 s and more.
    eventually("the Service and a slice were tried again and again", async || {
        let written = ns.written_since(mark).await;
        let refused =
            |kind: &str| written.iter().filter(|it| it.resource == kind && it.code == 403).count();
        (refused("services") >= 8).then_some(())
    })
    .await;
    assert_eq!(observer.left(), [""; 0]);
    let published = ns.published("greeter").await;
    assert_eq!(published.ready(), ["192.0.2.1".to_owned(), "192.0.2.2".to_owned()].into());
    assert_eq!(published.in_endpoints(), published.ready());
    policies.remove().await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    assert_eq!(observer.left(), [""; 0]);
    beats.die("vm-2");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
}
