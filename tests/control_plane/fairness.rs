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

use crate::support::{Operator, Shop, Stage, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

/// An admission policy that refuses the slices of one Service in a shop. It is removed when
/// dropped.
struct Refusal<'a> {
    shop: &'a Shop,
    name: String,
}

impl<'a> Refusal<'a> {
    async fn of(shop: &'a Shop, service: &str) -> Self {
        let name = format!("{}-{service}", shop.namespace);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(shop.client.clone());
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
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(shop.client.clone());
        let binding = json!({
            "metadata": { "name": name },
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": { "matchLabels": {
                    "kubernetes.io/metadata.name": shop.namespace,
                } } },
            },
        });
        bindings.create(&PostParams::default(), &from(binding)).await.unwrap();
        let refusal = Self { shop, name };
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
            let created = self.shop.api().create(&trial, &slice).await;
            created.is_err_and(|error| error.to_string().contains("a person says no")).then_some(())
        })
        .await;
    }

    async fn lift(self) {
        let policies: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.shop.client.clone());
        policies.delete(&self.name, &DeleteParams::default()).await.unwrap();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.shop.client.clone());
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
    let shop = Shop::open("refused").await;
    let refusal = Refusal::of(&shop, "refused").await;
    // The least concurrency that can be set: a registration that kept it would delay the others.
    let operator = shop.operator_with(&["--concurrency=1", "--max-parallel-api-calls=2"]);
    let mut spec = Shop::usual_spec();
    spec["ttl"] = json!("5m");
    shop.register("refused", spec).await;
    // From now on the operator sees each Lease appear, and counts it as a beat.
    shop.condition("refused", "Ready", "True", "Published").await;
    let troubled = shop.beats("refused");
    troubled.create(&troubled.outside("vm-1", "192.0.2.100")).await;
    let message = shop.condition("refused", "Ready", "False", "PublishFailed").await;
    assert!(message.contains("a person says no"), "{message}");

    shop.greeter().await;
    let mut beats = shop.beats("greeter");
    for n in 1..=2 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let mark = shop.plane.audit_mark().await.unwrap();
    beats.die("vm-2");
    shop.published_as_ready("greeter", &["192.0.2.1"]).await;
    let is_slice = |entry: &AuditEntry| entry.resource == "endpointslices";
    let refused = |entry: &AuditEntry| is_slice(entry) && !entry.succeeded();
    let pruned = |entry: &AuditEntry| is_slice(entry) && entry.succeeded();
    let entries = eventually("it was tried again after the prune", async || {
        let entries = shop.written_since(mark).await;
        let prune = entries.iter().position(pruned)?;
        entries[prune..].iter().any(refused).then_some(entries)
    })
    .await;
    assert_eq!(entries.iter().filter(|entry| pruned(entry)).count(), 1, "{entries:?}");

    // The backoff starts at 2 s, and each pause is twice the one before.
    let pauses = eventually("four tries have failed", async || {
        Some(pauses(&operator, "refused")).filter(|pauses| pauses.len() >= 3)
    })
    .await;
    assert!(pauses[0] >= 1.5, "{pauses:?}");
    assert!(pauses[1] > 1.5 * pauses[0] && pauses[2] > 1.5 * pauses[1], "{pauses:?}");
    assert!(self::pauses(&operator, "greeter").is_empty(), "the other has nothing to try again");

    refusal.lift().await;
    shop.published_as_ready("refused", &["192.0.2.100"]).await;
    shop.condition("refused", "Ready", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_changes_all_the_time_costs_few_status_writes_and_the_last_one_is_told() {
    let stage = Stage::set("notes", json!({})).await;
    stage.join("vm-1", "192.0.2.1").await;
    stage.status("vm-1", "Ready", "Beating").await;
    let mark = stage.settled(Duration::from_secs(1)).await;
    for n in 1..=20 {
        let note = format!("disk {n} %");
        stage.beats.annotate("vm-1", "beatkeeper.dev/note", Some(&note)).await;
    }
    eventually("the last note is told", async || {
        let status = stage.registration("greeter").await.status?;
        (status.instances[0].message == "disk 20 %").then_some(())
    })
    .await;
    let written = stage.written_since(mark).await;
    assert!(written.iter().all(|entry| entry.subresource == "status"), "{written:?}");
    // One write may come at once, one after the minimum pause, and one more if the machine is slow.
    assert!((1..=3).contains(&written.len()), "{written:?}");

    // Urgent changes do not wait for the minimum pause, although a status was written a moment ago.
    stage.beats.annotate("vm-1", "beatkeeper.dev/note", Some("disk 21 %")).await;
    let mark = stage.plane.audit_mark().await.unwrap();
    stage.beats.annotate("vm-1", "beatkeeper.dev/cordoned", Some("bad disk")).await;
    stage.status("vm-1", "Cordoned", "Cordoned").await;
    let told: ServiceRegistration = stage.registration("greeter").await;
    assert_eq!(told.status.unwrap().ready, 0);
    let statuses = stage.written_since(mark).await;
    let statuses = statuses.iter().filter(|entry| entry.subresource == "status").count();
    assert_eq!(statuses, 1);
}
