//! The readiness gate: a Pod with the gate becomes ready only after it is published.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, registration::PUBLISHED_GATE};
use k8s_openapi::api::core::v1::{Pod, PodCondition, Service};
use serde_json::{Value, json};

use crate::support::{Shop, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

fn asks() -> Value {
    json!({ "readinessGates": [{ "conditionType": PUBLISHED_GATE }] })
}

impl Shop {
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
    let shop = Shop::open("gate").await;
    let operator = shop.operator();
    shop.service("greeter", json!({ "selector": { "app": "nothing-has-this" } })).await;
    shop.greeter().await;
    let uid = shop.pod("asks", &["10.88.5.1"], asks()).await;
    let silent = shop.pod("silent", &["10.88.5.2"], json!({})).await;
    let mut beats = shop.beats("greeter");
    beats.start(&beats.in_pod("asks", &uid), INTERVAL).await;
    beats.start(&beats.in_pod("silent", &silent), INTERVAL).await;
    let gate = shop.told("asks", "False", "ServiceHasSelector").await;
    assert!(gate.message.unwrap().contains("ServiceRegistration greeter"));

    // The Pod's own gate does not prevent it from being published as ready. Publishing it opens the
    // gate.
    shop.patch::<Service>("greeter", json!({ "spec": { "selector": null } })).await;
    shop.published_as_ready("greeter", &["10.88.5.1", "10.88.5.2"]).await;
    let told = shop.told("asks", "True", "Published").await;
    assert_eq!(shop.gate("silent").await, None, "it does not ask");

    // Nothing is written while the operator is away or when it starts again.
    drop(operator);
    let before = shop.api::<Pod>().get("asks").await.unwrap().metadata.resource_version;
    let _operator = shop.operator();
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    shop.published_as_ready("greeter", &["10.88.5.1", "10.88.5.2", "192.0.2.1"]).await;
    shop.settled(Duration::from_secs(2)).await;
    let pod = shop.api::<Pod>().get("asks").await.unwrap();
    assert_eq!(pod.metadata.resource_version, before);
    assert_eq!(shop.gate("asks").await, Some(told));

    beats.annotate("asks", "beatkeeper.dev/cordoned", Some("bad disk")).await;
    shop.told("asks", "False", "Cordoned").await;
    beats.annotate("asks", "beatkeeper.dev/cordoned", None).await;
    shop.told("asks", "True", "Published").await;
    // A new Pod with the same name gets its own condition.
    shop.delete_pod("asks", 0).await;
    let anew = shop.pod("asks", &["10.88.5.3"], asks()).await;
    assert_eq!(shop.gate("asks").await, None);
    eventually("the Lease of the earlier Pod is gone", async || {
        shop.lease("greeter.asks").await.is_none().then_some(())
    })
    .await;
    beats.start(&beats.in_pod("asks", &anew), INTERVAL).await;
    shop.told("asks", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_two_registrations_waits_for_both() {
    let shop = Shop::open("gate-two").await;
    let _operator = shop.operator();
    shop.greeter().await;
    let mut spec = Shop::usual_spec();
    spec["podSelector"] = json!({ "matchLabels": { "app": "greeter" } });
    shop.register("metrics", spec).await;
    let uid = shop.pod("asks", &["10.88.6.1"], asks()).await;
    let mut beats = shop.beats("greeter");
    beats.start(&beats.in_pod("asks", &uid), INTERVAL).await;
    let gate = shop.told("asks", "False", "NeverBeat").await;
    assert!(gate.message.unwrap().contains("ServiceRegistration metrics"));
    let mut others = shop.beats("metrics");
    others.start(&others.in_pod("asks", &uid), INTERVAL).await;
    shop.told("asks", "True", "Published").await;
    // Health that the instance reports as failing has its own reason. Health that only its kubelet
    // reports is no reason.
    others.annotate("asks", "beatkeeper.dev/health", Some("Failing")).await;
    shop.told("asks", "False", "HealthFailing").await;
    shop.api::<ServiceRegistration>().delete("metrics", &Default::default()).await.unwrap();
    shop.told("asks", "True", "Published").await;
}
