//! Services that users made are used as they are.

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::{Fixture, Published, observer::set};

const HEADLESS: &str = "service.kubernetes.io/headless";

fn headless(published: &Published) -> Vec<bool> {
    let slices = published.slices.iter().map(|slice| &slice.metadata);
    let endpoints = published.endpoints.iter().map(|endpoints| &endpoints.metadata);
    slices
        .chain(endpoints)
        .map(|metadata| {
            metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HEADLESS))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_headless_service_labels_what_is_published_until_it_is_headless_no_more() {
    let fixture =
        Fixture::beside_service("headless", json!({ "clusterIP": "None" }), json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    let in_domain = json!({ "hostname": "first", "subdomain": "greeter" });
    fixture.join_pod("greeter-1", &["10.88.0.1"], in_domain).await;
    let elsewhere = json!({ "hostname": "second", "subdomain": "other" });
    fixture.join_pod("greeter-2", &["10.88.0.2"], elsewhere).await;

    let all = ["192.0.2.1", "10.88.0.1", "10.88.0.2"];
    let published = fixture.published_as_ready("greeter", &all).await;
    assert_eq!(headless(&published), [true, true]);
    let mut hostnames: Vec<_> = published.slices[0]
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.addresses[0].as_str(), endpoint.hostname.as_deref()))
        .collect();
    hostnames.sort_unstable();
    assert_eq!(hostnames, [("10.88.0.1", Some("first")), ("10.88.0.2", None), ("192.0.2.1", None)]);
    let subsets = serde_json::to_value(published.endpoints.unwrap().subsets).unwrap();
    assert_eq!(subsets[0]["addresses"][0]["hostname"], "first");

    // A cluster IP cannot be added to a Service. The Service must be created again, which the test
    // does here.
    fixture.api::<Service>().delete("greeter", &DeleteParams::default()).await.unwrap();
    fixture
        .publishes("the label is gone", |now| {
            headless(now) == [false, false] && now.in_endpoints() == set(&all)
        })
        .await;
    assert_eq!(fixture.published("greeter").await.ready(), set(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_headless_service_without_ports_has_the_ports_of_the_registration() {
    let bare = json!({ "clusterIP": "None", "ports": [] });
    let fixture = Fixture::beside_service("portless", bare, json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 8080)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_not_ready_addresses_is_honoured_as_it_comes_and_goes() {
    let eager = json!({ "publishNotReadyAddresses": true });
    let fixture = Fixture::beside_service("not-ready", eager, json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.beats.annotate("vm-1", "beatkeeper.dev/health", Some("Failing")).await;
    fixture.status("vm-1", "NotReady", "HealthFailing").await;
    fixture
        .publishes("it is not serving", |published| {
            published.conditions()["192.0.2.1"] == (true, false, false)
                && published.in_endpoints() == set(&["192.0.2.1"])
                && published.not_ready_in_endpoints().is_empty()
        })
        .await;

    let strict = json!({ "spec": { "publishNotReadyAddresses": false } });
    fixture.patch::<Service>("greeter", strict).await;
    fixture
        .publishes("it is not ready", |published| {
            published.conditions()["192.0.2.1"] == (false, false, false)
                && published.in_endpoints().is_empty()
                && published.not_ready_in_endpoints() == set(&["192.0.2.1"])
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_ports_that_a_users_service_has_by_name_are_published() {
    let fixture = Fixture::beside_service(
        "common-ports",
        json!({ "ports": [{ "name": "grpc", "port": 8000 }, { "name": "own", "port": 8001 }] }),
        json!({ "ports": [
            { "name": "grpc", "port": 80, "targetPort": 8080 },
            { "name": "metrics", "port": 90, "targetPort": 9090 },
        ]}),
    )
    .await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 8080)]).await;
    let before: Service = fixture.api().get("greeter").await.unwrap();
    assert_eq!(before.metadata.owner_references, None);
    assert_eq!(before.spec.clone().unwrap().ports.unwrap().len(), 2);

    // The user adds the port. It is published, and the Service remains the user's.
    let more = json!({ "spec": { "ports": [
        { "name": "grpc", "port": 8000 }, { "name": "metrics", "port": 8002 },
    ]}});
    let patched: Service = fixture.patch("greeter", more).await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 8080), ("192.0.2.1", "metrics", 9090)]).await;
    let after: Service = fixture.api().get("greeter").await.unwrap();
    assert_eq!(after, patched);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_come_and_go_in_the_spec_come_and_go_in_a_service_of_ours() {
    let fixture = Fixture::new("own-ports", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 8080)]).await;
    let two = json!({ "spec": { "ports": [
        { "name": "web", "port": 443, "targetPort": 8443, "appProtocol": "https" },
        { "name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP" },
    ]}});
    fixture.patch::<ServiceRegistration>("greeter", two).await;
    fixture.publishes_ports(&[("192.0.2.1", "web", 8443), ("192.0.2.1", "dns", 5353)]).await;
    let service: Service = fixture.api().get("greeter").await.unwrap();
    let ports = service.spec.unwrap().ports.unwrap();
    let named: Vec<_> = ports
        .iter()
        .map(|port| (port.name.as_deref().unwrap(), port.port, port.protocol.as_deref().unwrap()))
        .collect();
    assert_eq!(named, [("web", 443, "TCP"), ("dns", 53, "UDP")]);
    assert_eq!(ports[0].app_protocol.as_deref(), Some("https"));
}
