//! The readiness gate: a Pod with the gate becomes ready only after it is published.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, registration::PUBLISHED_GATE};
use k8s_openapi::api::core::v1::{Pod, PodCondition, Service};
use serde_json::{Value, json};

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

fn asks() -> Value {
    json!({ "readinessGates": [{ "conditionType": PUBLISHED_GATE }] })
}

impl TestNamespace {
    async fn gate(&self, pod: &str) -> Option<PodCondition> {
        let pod: Pod = self.api().get(pod).await.unwrap();
        let conditions = pod.status?.conditions?;
        conditions.into_iter().find(|condition| condition.type_ == PUBLISHED_GATE)
    }

    /// Waits until the gate condition of a Pod has this status and reason.
    async fn told(&self, pod: &str, status: &str, reason: &str) -> PodCondition {
        eventually(&format!("{pod} is told {status} ({reason})"), async || {
            let gate = self.gate(pod).await?;
            (gate.status == status && gate.reason.as_deref() == Some(reason)).then_some(gate)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_is_told_once_it_is_published_and_before_that_why_it_is_not() {
    let ns = TestNamespace::new("gate").await;
    let operator = ns.operator();
    ns.service("greeter", json!({ "selector": { "app": "nothing-has-this" } })).await;
    ns.greeter().await;
    let uid = ns.pod("asks", &["10.88.5.1"], asks()).await;
    let silent = ns.pod("silent", &["10.88.5.2"], json!({})).await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.in_pod("asks", &uid), INTERVAL).await;
    beats.start(&beats.in_pod("silent", &silent), INTERVAL).await;
    let gate = ns.told("asks", "False", "ServiceHasSelector").await;
    assert!(gate.message.unwrap().contains("ServiceRegistration greeter"));

    // The Pod's own gate does not prevent it from being published as ready. Publishing it opens the
    // gate.
    ns.patch::<Service>("greeter", json!({ "spec": { "selector": null } })).await;
    ns.published_as_ready("greeter", &["10.88.5.1", "10.88.5.2"]).await;
    let told = ns.told("asks", "True", "Published").await;
    assert_eq!(ns.gate("silent").await, None, "it does not ask");

    // Nothing is written while the operator is away or when it starts again.
    drop(operator);
    let before = ns.api::<Pod>().get("asks").await.unwrap().metadata.resource_version;
    let _operator = ns.operator();
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["10.88.5.1", "10.88.5.2", "192.0.2.1"]).await;
    ns.settled(Duration::from_secs(2)).await;
    let pod = ns.api::<Pod>().get("asks").await.unwrap();
    assert_eq!(pod.metadata.resource_version, before);
    assert_eq!(ns.gate("asks").await, Some(told));

    beats.annotate("asks", "beatkeeper.dev/cordoned", Some("bad disk")).await;
    ns.told("asks", "False", "Cordoned").await;
    beats.annotate("asks", "beatkeeper.dev/cordoned", None).await;
    ns.told("asks", "True", "Published").await;
    // A new Pod with the same name gets its own condition.
    ns.delete_pod("asks", 0).await;
    let anew = ns.pod("asks", &["10.88.5.3"], asks()).await;
    // It may be told already that it is not published.
    let gate = ns.gate("asks").await;
    assert!(gate.as_ref().is_none_or(|gate| gate.status == "False"), "{gate:?}");
    eventually("the Lease of the earlier Pod is gone", async || {
        ns.lease("greeter.asks").await.is_none().then_some(())
    })
    .await;
    beats.start(&beats.in_pod("asks", &anew), INTERVAL).await;
    ns.told("asks", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_two_registrations_waits_for_both() {
    let ns = TestNamespace::new("gate-two").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut spec = TestNamespace::usual_spec();
    spec["podSelector"] = json!({ "matchLabels": { "app": "greeter" } });
    ns.register("metrics", spec).await;
    let uid = ns.pod("asks", &["10.88.6.1"], asks()).await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.in_pod("asks", &uid), INTERVAL).await;
    let gate = ns.told("asks", "False", "NeverBeat").await;
    assert!(gate.message.unwrap().contains("ServiceRegistration metrics"));
    let mut others = ns.beats("metrics");
    others.start(&others.in_pod("asks", &uid), INTERVAL).await;
    ns.told("asks", "True", "Published").await;
    // Health that the instance reports as failing has its own reason. Health that only its kubelet
    // reports is no reason.
    others.annotate("asks", "beatkeeper.dev/health", Some("Failing")).await;
    ns.told("asks", "False", "HealthFailing").await;
    ns.api::<ServiceRegistration>().delete("metrics", &Default::default()).await.unwrap();
    ns.told("asks", "True", "Published").await;
}
