//! Services that another party serves, now or later. The operator changes none of that party's
//! objects, and publishes nothing beside them.

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::{Shop, Stage, Witness, eventually, witness::set};

const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const SELECTING: &str = "endpointslice-controller.k8s.io";

async fn slices_of(shop: &Shop, manager: &str) -> Vec<EndpointSlice> {
    let mut slices = shop.published("greeter").await.slices;
    slices.retain(|slice| {
        slice.metadata.labels.as_ref().unwrap()["endpointslice.kubernetes.io/managed-by"] == manager
    });
    slices
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_written_by_hand_and_their_mirror_are_left_alone_until_they_are_deleted() {
    let shop = Shop::open("by-hand").await;
    shop.service("greeter", json!({})).await;
    let by_hand: Endpoints = shop
        .create(json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "greeter" },
            "subsets": [{
                "addresses": [{ "ip": "198.51.100.66" }], "ports": [{ "name": "grpc", "port": 1 }],
            }],
        }))
        .await;
    eventually("it is mirrored", async || {
        (slices_of(&shop, MIRROR).await.len() == 1).then_some(())
    })
    .await;
    let _operator = shop.operator();
    shop.register(
        "greeter",
        json!({ "ttl": "5m", "interval": "1m", "ports": [{ "name": "grpc", "port": 80 }] }),
    )
    .await;
    let message = shop.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    assert!(message.contains(MIRROR), "{message}");
    let beats = shop.beats("greeter");
    beats.create(&beats.outside("vm-1", "192.0.2.1")).await;
    shop.instance("greeter", "vm-1", "Waiting", "NotPublished").await;
    let published = shop.published("greeter").await;
    let hand = |endpoints: Option<Endpoints>| endpoints.map(|endpoints| endpoints.subsets);
    assert_eq!(hand(published.endpoints), hand(Some(by_hand)));
    assert_eq!(published.slices.len(), 1);

    let witness = Witness::of(&shop, "greeter").await;
    shop.api::<Endpoints>().delete("greeter", &DeleteParams::default()).await.unwrap();
    eventually("the mirror is gone", async || {
        slices_of(&shop, MIRROR).await.is_empty().then_some(())
    })
    .await;
    let published = shop.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert_eq!(published.slices.len(), 1);
    shop.condition("greeter", "Ready", "True", "Published").await;
    witness.sees(&set(&["192.0.2.1"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_is_added_later_stalls_and_its_removal_brings_us_back() {
    let stage = Stage::beside_service("selector-later", json!({}), json!({})).await;
    stage.join("vm-1", "192.0.2.1").await;
    stage.join("vm-2", "192.0.2.2").await;
    stage.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;

    let select = json!({ "spec": { "selector": { "app": "elsewhere" } } });
    stage.patch::<Service>("greeter", select).await;
    let message = stage.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    assert!(message.contains("remove spec.selector"), "{message}");
    eventually("the cluster publishes its own, empty slice", async || {
        (slices_of(&stage, SELECTING).await.len() == 1).then_some(())
    })
    .await;
    // No instance is added any more, while dead ones still leave.
    stage.quit("vm-2").await;
    stage.join("vm-3", "192.0.2.3").await;
    stage.publishes("vm-2 has left", |now| now.ready() == set(&["192.0.2.1"])).await;

    let unselect = json!({ "spec": { "selector": null } });
    stage.patch::<Service>("greeter", unselect).await;
    stage.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    eventually("what the cluster left is gone", async || {
        slices_of(&stage, SELECTING).await.is_empty().then_some(())
    })
    .await;
    stage.condition("greeter", "Ready", "True", "Published").await;
    assert!(slices_of(&stage, MIRROR).await.is_empty());
    let published = stage.published("greeter").await;
    let labels = published.endpoints.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["endpointslice.kubernetes.io/skip-mirror"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_of_another_owner_is_never_touched() {
    let stage = Stage::set("foreign-slice", json!({})).await;
    stage.join("vm-1", "192.0.2.1").await;
    stage.published_as_ready("greeter", &["192.0.2.1"]).await;
    let theirs: EndpointSlice = stage
        .create(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "theirs", "labels": {
                "kubernetes.io/service-name": "greeter",
                "endpointslice.kubernetes.io/managed-by": "somebody",
            }},
            "endpoints": [{ "addresses": ["198.51.100.66"], "conditions": {
                "ready": true, "serving": true, "terminating": false,
            }}],
            "ports": [{ "name": "grpc", "port": 1, "protocol": "TCP" }],
        }))
        .await;
    let message = stage.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    assert!(message.contains("EndpointSlice theirs"), "{message}");
    assert!(message.contains("somebody"), "{message}");
    stage.join("vm-2", "192.0.2.2").await;
    stage.status("vm-2", "Waiting", "NotPublished").await;
    let published = stage.published("greeter").await;
    assert_eq!(published.ready(), set(&["192.0.2.1", "198.51.100.66"]));
    assert_eq!(published.in_endpoints(), set(&["192.0.2.1"]));
    assert_eq!(stage.api::<EndpointSlice>().get("theirs").await.unwrap(), theirs);

    stage.api::<EndpointSlice>().delete("theirs", &DeleteParams::default()).await.unwrap();
    stage.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    stage.condition("greeter", "Ready", "True", "Published").await;
}
