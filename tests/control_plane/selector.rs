//! A Service whose selector is removed. The operator takes over what the cluster's own controllers
//! leave.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::{Shop, Vigil, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const ALL: [&str; 3] = ["10.88.9.1", "10.88.9.2", "10.88.9.3"];

impl Shop {
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
    let shop = Shop::open("selector").await;
    let _operator = shop.operator();
    let uids = shop.selecting_service().await;
    shop.greeter().await;
    shop.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    let mut beats = shop.beats("greeter");
    // Two Pods beat, and one has no agent yet.
    for n in [1, 2] {
        let name = format!("web-{n}");
        beats.start(&beats.in_pod(&name, &uids[n - 1]), INTERVAL).await;
        shop.instance("greeter", &name, "Waiting", "NotPublished").await;
    }
    let vigil = Vigil::keep(&shop, "greeter").await;
    shop.select(json!(null)).await;
    shop.condition("greeter", "Ready", "True", "Published").await;
    shop.ours_alone(&ALL).await;
    shop.instance("greeter", "adopted/10.88.9.3", "Ready", "Adopted").await;
    assert_eq!(vigil.left(), [""; 0]);

    // For the Pod without an agent the readiness from its kubelet counts, until its first beat.
    shop.pod_status("web-3", &["10.88.9.3"], false, "Running").await;
    shop.published_as_ready("greeter", &ALL[..2]).await;
    shop.pod_status("web-3", &["10.88.9.3"], true, "Running").await;
    shop.published_as_ready("greeter", &ALL).await;
    assert_eq!(vigil.left(), [""; 0]);
    shop.delete_pod("web-3", 0).await;
    beats.die("web-2");
    shop.ours_alone(&ALL[..1]).await;

    // The selector is added again and then removed again.
    shop.select(json!({ "app": "web" })).await;
    shop.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    eventually("the cluster publishes again", async || {
        (shop.published("greeter").await.slices.len() > 1).then_some(())
    })
    .await;
    shop.select(json!(null)).await;
    shop.condition("greeter", "Ready", "True", "Published").await;
    let left = vigil.left();
    assert!(!left.contains(&"10.88.9.1".to_owned()), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_after_the_selector_was_removed_leaves() {
    let shop = Shop::open("selector-dead").await;
    // No operator runs yet, so what the cluster leaves grows old.
    let uids = shop.selecting_service().await;
    shop.select(json!(null)).await;
    shop.delete_pod("web-3", 0).await;
    shop.greeter().await;
    let _operator = shop.operator();
    let mut beats = shop.beats("greeter");
    beats.start(&beats.in_pod("web-1", &uids[0]), INTERVAL).await;
    shop.ours_alone(&ALL[..2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_people_have_published_too_nothing_is_taken_over_without_their_consent() {
    let shop = Shop::open("selector-people").await;
    shop.selecting_service().await;
    let by_hand: k8s_openapi::api::discovery::v1::EndpointSlice = shop
        .create(json!({
            "metadata": {
                "name": "by-hand", "labels": { "kubernetes.io/service-name": "greeter" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["192.0.2.99"] }],
            "ports": [{ "name": "grpc", "port": 8080 }],
        }))
        .await;
    shop.select(json!(null)).await;
    shop.greeter().await;
    let _operator = shop.operator();
    shop.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    let now: k8s_openapi::api::discovery::v1::EndpointSlice =
        shop.api().get("by-hand").await.unwrap();
    assert_eq!(now.metadata.resource_version, by_hand.metadata.resource_version);
}
