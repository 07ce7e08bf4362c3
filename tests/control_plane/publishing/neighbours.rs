//! Services that another party serves, now or later. The operator changes none of that party's
//! objects, and publishes nothing beside them.

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::{Fixture, ServiceObserver, TestNamespace, eventually, observer::set};

const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const SELECTING: &str = "endpointslice-controller.k8s.io";

async fn slices_of(ns: &TestNamespace, manager: &str) -> Vec<EndpointSlice> {
    let mut slices = ns.published("greeter").await.slices;
    slices.retain(|slice| {
        slice.metadata.labels.as_ref().unwrap()["endpointslice.kubernetes.io/managed-by"] == manager
    });
    slices
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_written_by_hand_and_their_mirror_are_left_alone_until_they_are_deleted() {
    let ns = TestNamespace::new("by-hand").await;
    ns.service("greeter", json!({})).await;
    let by_hand: Endpoints = ns
        .create(json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "greeter" },
            "subsets": [{
                "addresses": [{ "ip": "198.51.100.66" }], "ports": [{ "name": "grpc", "port": 1 }],
            }],
        }))
        .await;
    eventually("it is mirrored", async || (slices_of(&ns, MIRROR).await.len() == 1).then_some(()))
        .await;
    let _operator = ns.operator();
    ns.register(
        "greeter",
        json!({ "ttl": "5m", "interval": "1m", "ports": [{ "name": "grpc", "port": 80 }] }),
    )
    .await;
    let message = ns.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    assert!(message.contains(MIRROR), "{message}");
    let beats = ns.beats("greeter");
    beats.create(&beats.outside("vm-1", "192.0.2.1")).await;
    ns.instance("greeter", "vm-1", "Waiting", "NotPublished").await;
    let published = ns.published("greeter").await;
    let hand = |endpoints: Option<Endpoints>| endpoints.map(|endpoints| endpoints.subsets);
    assert_eq!(hand(published.endpoints), hand(Some(by_hand)));
    assert_eq!(published.slices.len(), 1);

    let observer = ServiceObserver::of(&ns, "greeter").await;
    ns.api::<Endpoints>().delete("greeter", &DeleteParams::default()).await.unwrap();
    eventually("the mirror is gone", async || {
        slices_of(&ns, MIRROR).await.is_empty().then_some(())
    })
    .await;
    let published = ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert_eq!(published.slices.len(), 1);
    ns.condition("greeter", "Ready", "True", "Published").await;
    observer.sees(&set(&["192.0.2.1"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_is_added_later_stalls_and_its_removal_brings_us_back() {
    let fixture = Fixture::beside_service("selector-later", json!({}), json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.join("vm-2", "192.0.2.2").await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;

    let select = json!({ "spec": { "selector": { "app": "elsewhere" } } });
    fixture.patch::<Service>("greeter", select).await;
    let message = fixture.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    assert!(message.contains("remove spec.selector"), "{message}");
    eventually("the cluster publishes its own, empty slice", async || {
        (slices_of(&fixture, SELECTING).await.len() == 1).then_some(())
    })
    .await;
    // No instance is added any more, while dead ones still leave.
    fixture.quit("vm-2").await;
    fixture.join("vm-3", "192.0.2.3").await;
    fixture.publishes("vm-2 has left", |now| now.ready() == set(&["192.0.2.1"])).await;

    let unselect = json!({ "spec": { "selector": null } });
    fixture.patch::<Service>("greeter", unselect).await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    eventually("what the cluster left is gone", async || {
        slices_of(&fixture, SELECTING).await.is_empty().then_some(())
    })
    .await;
    fixture.condition("greeter", "Ready", "True", "Published").await;
    assert!(slices_of(&fixture, MIRROR).await.is_empty());
    let published = fixture.published("greeter").await;
    let labels = published.endpoints.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["endpointslice.kubernetes.io/skip-mirror"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_of_another_owner_is_never_touched() {
    let fixture = Fixture::new("foreign-slice", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
    let theirs: EndpointSlice = fixture
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
    let message = fixture.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    assert!(message.contains("EndpointSlice theirs"), "{message}");
    assert!(message.contains("somebody"), "{message}");
    fixture.join("vm-2", "192.0.2.2").await;
    fixture.status("vm-2", "Waiting", "NotPublished").await;
    let published = fixture.published("greeter").await;
    assert_eq!(published.ready(), set(&["192.0.2.1", "198.51.100.66"]));
    assert_eq!(published.in_endpoints(), set(&["192.0.2.1"]));
    assert_eq!(fixture.api::<EndpointSlice>().get("theirs").await.unwrap(), theirs);

    fixture.api::<EndpointSlice>().delete("theirs", &DeleteParams::default()).await.unwrap();
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    fixture.condition("greeter", "Ready", "True", "Published").await;
}
