//! A registration that misbehaves does not slow down others.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::AuditEntry;
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{Fixture, Operator, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

/// An admission policy that refuses the slices of one Service in a namespace. It is removed when
/// dropped.
struct Refusal<'a> {
    ns: &'a TestNamespace,
    name: String,
}

impl<'a> Refusal<'a> {
    async fn of(ns: &'a TestNamespace, service: &str) -> Self {
        let name = format!("{}-{service}", ns.name);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(ns.client.clone());
        let policy = json!({
            "metadata": { "name": name },
            "spec": {
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": ["discovery.k8s.io"], "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"], "resources": ["endpointslices"],
                }] },
                "validations": [{
                    "expression": format!(
                        "object.metadata.?labels[?'kubernetes.io/service-name'].orValue('') != '{service}'"
                    ),
                    "message": "a person says no",
                }],
            },
        });
        policies.create(&PostParams::default(), &from(policy)).await.unwrap();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(ns.client.clone());
        let binding = json!({
            "metadata": { "name": name },
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": { "matchLabels": {
                    "kubernetes.io/metadata.name": ns.name,
                } } },
            },
        });
        bindings.create(&PostParams::default(), &from(binding)).await.unwrap();
        let refusal = Self { ns, name };
        refusal.works(service).await;
        refusal
    }

    /// Waits until the policy is in force, because the API server needs a moment.
    async fn works(&self, service: &str) {
        let slice: EndpointSlice = from(json!({
            "metadata": { "name": "trial", "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "endpoints": [],
        }));
        let trial = PostParams { dry_run: true, ..PostParams::default() };
        eventually("the policy refuses", async || {
            let created = self.ns.api().create(&trial, &slice).await;
            created.is_err_and(|error| error.to_string().contains("a person says no")).then_some(())
        })
        .await;
    }

    async fn lift(self) {
        let policies: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.ns.client.clone());
        policies.delete(&self.name, &DeleteParams::default()).await.unwrap();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.ns.client.clone());
        policies.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}

fn from<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// The pauses between the logged refusals for a registration, in seconds.
fn pauses(operator: &Operator, registration: &str) -> Vec<f64> {
    let log = operator.logged();
    let lines = log.lines().filter(|line| {
        line.contains(" refused; the others are published ")
            && line.contains(&format!("/{registration} "))
    });
    let times: Vec<Timestamp> =
        lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_writes_are_refused_again_and_again_delays_no_prune_of_another() {
    let ns = TestNamespace::new("refused").await;
    let refusal = Refusal::of(&ns, "refused").await;
    // The least concurrency that can be set: a registration that kept it would delay the others.
    let operator = ns.operator_with(&["--concurrency=1", "--max-parallel-api-calls=2"]);
    let mut spec = TestNamespace::usual_spec();
    spec["ttl"] = json!("5m");
    ns.register("refused", spec).await;
    // From now on the operator sees each Lease appear, and counts it as a beat.
    ns.condition("refused", "Ready", "True", "Published").await;
    let troubled = ns.beats("refused");
    troubled.create(&troubled.outside("vm-1", "192.0.2.100")).await;
    let message = ns.condition("refused", "Ready", "False", "PublishFailed").await;
    assert!(message.contains("a person says no"), "{message}");

    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=2 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let mark = ns.plane.audit_mark().await.unwrap();
    beats.die("vm-2");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let is_slice = |entry: &AuditEntry| entry.resource == "endpointslices";
    let refused = |entry: &AuditEntry| is_slice(entry) && !entry.succeeded();
    let pruned = |entry: &AuditEntry| is_slice(entry) && entry.succeeded();
    let entries = eventually("it was tried again after the prune", async || {
        let entries = ns.written_since(mark).await;
        let prune = entries.iter().position(pruned)?;
        entries[prune..].iter().any(refused).then_some(entries)
    })
    .await;
    assert_eq!(entries.iter().filter(|entry| pruned(entry)).count(), 1, "{entries:?}");

    // The backoff starts at 2 s, and each pause is twice the one before. A busy machine makes any of them longer.
    let pauses = eventually("four tries have failed", async || {
        Some(pauses(&operator, "refused")).filter(|pauses| pauses.len() >= 3)
    })
    .await;
    assert!(pauses[0] >= 1.5 && pauses[1] >= 3.0 && pauses[2] >= 6.0, "{pauses:?}");
    assert!(self::pauses(&operator, "greeter").is_empty(), "the other has nothing to try again");

    refusal.lift().await;
    ns.published_as_ready("refused", &["192.0.2.100"]).await;
    ns.condition("refused", "Ready", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_changes_all_the_time_costs_few_status_writes_and_the_last_one_is_told() {
    let fixture = Fixture::new("notes", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.status("vm-1", "Ready", "Beating").await;
    let mark = fixture.settled(Duration::from_secs(1)).await;
    for n in 1..=20 {
        let note = format!("disk {n} %");
        fixture.beats.annotate("vm-1", "beatkeeper.dev/note", Some(&note)).await;
    }
    eventually("the last note is told", async || {
        let status = fixture.registration("greeter").await.status?;
        (status.instances[0].message == "disk 20 %").then_some(())
    })
    .await;
    let written = fixture.written_since(mark).await;
    assert!(written.iter().all(|entry| entry.subresource == "status"), "{written:?}");
    // One write may come at once, one after the minimum pause, and one more if the machine is slow.
    assert!((1..=3).contains(&written.len()), "{written:?}");

    // Urgent changes do not wait for the minimum pause, although a status was written a moment ago.
    fixture.beats.annotate("vm-1", "beatkeeper.dev/note", Some("disk 21 %")).await;
    let mark = fixture.plane.audit_mark().await.unwrap();
    fixture.beats.annotate("vm-1", "beatkeeper.dev/cordoned", Some("bad disk")).await;
    fixture.status("vm-1", "Cordoned", "Cordoned").await;
    let told: ServiceRegistration = fixture.registration("greeter").await;
    assert_eq!(told.status.unwrap().ready, 0);
    let statuses = fixture.written_since(mark).await;
    let statuses = statuses.iter().filter(|entry| entry.subresource == "status").count();
    assert_eq!(statuses, 1);
}
