//! A Service whose selector is removed. The operator takes over what the cluster's own controllers
//! leave.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const ALL: [&str; 3] = ["10.88.9.1", "10.88.9.2", "10.88.9.3"];

impl TestNamespace {
    /// Pods web-1 to web-3 behind a Service greeter that selects them, published by the cluster itself.
    async fn selecting_service(&self) -> Vec<String> {
        let mut uids = Vec::new();
        for (n, ip) in ALL.iter().enumerate() {
            uids.push(self.pod_on_a_node(&format!("web-{}", n + 1), ip, "web").await);
        }
        self.service("greeter", json!({ "selector": { "app": "web" } })).await;
        self.published_as_ready("greeter", &ALL).await;
        uids
    }

    async fn select(&self, selector: Value) {
        self.patch::<Service>("greeter", json!({ "spec": { "selector": selector } })).await;
    }

    /// Waits until all slices belong to the operator and contain each of these addresses once.
    async fn ours_alone(&self, addresses: &[&str]) {
        let mut wanted = addresses.to_vec();
        wanted.sort_unstable();
        eventually(&format!("our slices alone hold {wanted:?}, each once"), async || {
            let published = self.published("greeter").await;
            let managers: BTreeSet<_> = published
                .slices
                .iter()
                .map(|it| it.labels()["endpointslice.kubernetes.io/managed-by"].clone())
                .collect();
            let endpoints = published.slices.iter().flat_map(|slice| &slice.endpoints);
            let mut held: Vec<_> = endpoints.flat_map(|endpoint| &endpoint.addresses).collect();
            held.sort();
            (managers == BTreeSet::from(["beatkeeper.dev".to_owned()]) && held == wanted)
                .then_some(())
        })
        .await;
        self.published_as_ready("greeter", addresses).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_selector_is_removed_is_taken_over_without_a_gap_a_duplicate_or_the_dead() {
    let ns = TestNamespace::new("selector").await;
    let _operator = ns.operator();
    let uids = ns.selecting_service().await;
    ns.greeter().await;
    ns.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    let mut beats = ns.beats("greeter");
    // Two Pods beat, and one has no agent yet.
    for n in [1, 2] {
        let name = format!("web-{n}");
        beats.start(&beats.in_pod(&name, &uids[n - 1]), INTERVAL).await;
        ns.instance("greeter", &name, "Waiting", "NotPublished").await;
    }
    let observer = ns.observe("greeter").await;
    ns.select(json!(null)).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    ns.ours_alone(&ALL).await;
    ns.instance("greeter", "adopted/10.88.9.3", "Ready", "Adopted").await;
    assert_eq!(observer.left(), [""; 0]);

    // For the Pod without an agent the readiness from its kubelet counts, until its first beat.
    ns.pod_status("web-3", &["10.88.9.3"], false, "Running").await;
    ns.published_as_ready("greeter", &ALL[..2]).await;
    ns.pod_status("web-3", &["10.88.9.3"], true, "Running").await;
    ns.published_as_ready("greeter", &ALL).await;
    assert_eq!(observer.left(), [""; 0]);
    ns.delete_pod("web-3", 0).await;
    beats.die("web-2");
    ns.ours_alone(&ALL[..1]).await;

    // The selector is added again and then removed again.
    ns.select(json!({ "app": "web" })).await;
    ns.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    eventually("the cluster publishes again", async || {
        (ns.published("greeter").await.slices.len() > 1).then_some(())
    })
    .await;
    ns.select(json!(null)).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let left = observer.left();
    assert!(!left.contains(&"10.88.9.1".to_owned()), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_after_the_selector_was_removed_leaves() {
    let ns = TestNamespace::new("selector-dead").await;
    // No operator runs yet, so what the cluster leaves grows old.
    let uids = ns.selecting_service().await;
    ns.select(json!(null)).await;
    ns.delete_pod("web-3", 0).await;
    ns.greeter().await;
    let _operator = ns.operator();
    let mut beats = ns.beats("greeter");
    beats.start(&beats.in_pod("web-1", &uids[0]), INTERVAL).await;
    ns.ours_alone(&ALL[..2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_people_have_published_too_nothing_is_taken_over_without_their_consent() {
    let ns = TestNamespace::new("selector-people").await;
    ns.selecting_service().await;
    let by_hand: k8s_openapi::api::discovery::v1::EndpointSlice = ns
        .create(json!({
            "metadata": {
                "name": "by-hand", "labels": { "kubernetes.io/service-name": "greeter" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["192.0.2.99"] }],
            "ports": [{ "name": "grpc", "port": 8080 }],
        }))
        .await;
    ns.select(json!(null)).await;
    ns.greeter().await;
    let _operator = ns.operator();
    ns.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    let now: k8s_openapi::api::discovery::v1::EndpointSlice =
        ns.api().get("by-hand").await.unwrap();
    assert_eq!(now.metadata.resource_version, by_hand.metadata.resource_version);
}
