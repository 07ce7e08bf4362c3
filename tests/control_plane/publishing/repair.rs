//! The operator repairs everything that others delete or edit.

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::support::{Fixture, Published, ServiceObserver, eventually, observer::set};

const OWNED_BY: &str = "beatkeeper.dev/owned-by";
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const ALL: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];

async fn three(prefix: &str) -> (Fixture, ServiceObserver) {
    let fixture = Fixture::new(prefix, json!({})).await;
    fill(fixture).await
}

async fn fill(fixture: Fixture) -> (Fixture, ServiceObserver) {
    for n in 1..=3 {
        fixture.join(&format!("vm-{n}"), &format!("192.0.2.{n}")).await;
    }
    right(&fixture).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;
    (fixture, observer)
}

/// Waits until one slice and the Endpoints are correct, including labels and owners.
async fn right(fixture: &Fixture) -> Published {
    let owner = fixture.registration("greeter").await.metadata.uid.unwrap();
    let owned = |metadata: &kube::core::ObjectMeta| {
        metadata.owner_references.is_none()
            && metadata.annotations.as_ref().and_then(|all| all.get(OWNED_BY))
                == Some(&format!("{}:greeter/{owner}", fixture.name))
    };
    let labelled = |metadata: &kube::core::ObjectMeta, name: &str, value: &str| {
        metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str)
            == Some(value)
    };
    fixture
        .publishes("all is as it should be", |now| {
            let [slice] = now.slices.as_slice() else { return false };
            let Some(endpoints) = &now.endpoints else { return false };
            let explicit = slice.endpoints.iter().all(|endpoint| {
                serde_json::to_value(&endpoint.conditions).unwrap()
                    == json!({ "ready": true, "serving": true, "terminating": false })
            });
            explicit
                && now.ready() == set(&ALL)
                && slice.endpoints.len() == ALL.len()
                && now.in_endpoints() == set(&ALL)
                && owned(&slice.metadata)
                && owned(&endpoints.metadata)
                && labelled(
                    &slice.metadata,
                    "endpointslice.kubernetes.io/managed-by",
                    "beatkeeper.dev",
                )
                && labelled(&endpoints.metadata, "endpointslice.kubernetes.io/skip-mirror", "true")
        })
        .await
}

async fn slice(fixture: &Fixture) -> EndpointSlice {
    fixture.published("greeter").await.slices.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_slice_is_made_again() {
    let (fixture, observer) = three("slice-deleted").await;
    let old = slice(&fixture).await.metadata;
    fixture
        .api::<EndpointSlice>()
        .delete(old.name.as_deref().unwrap(), &DeleteParams::default())
        .await
        .unwrap();
    let now = right(&fixture).await;
    assert_ne!(now.slices[0].metadata.uid, old.uid);
    assert_eq!(observer.managers(), set(&["beatkeeper.dev"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_endpoints_of_a_slice_are_put_right() {
    let (fixture, observer) = three("slice-edited").await;
    let name = slice(&fixture).await.metadata.name.unwrap();
    let endpoint = |address: &str| {
        json!({
            "addresses": [address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
        })
    };
    let silent = |address: &str| json!({ "addresses": [address] });
    let edits = [
        (
            "a foreign address",
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.66"].map(endpoint).to_vec(),
        ),
        ("one too few", ["192.0.2.1", "192.0.2.3"].map(endpoint).to_vec()),
        ("none", Vec::new()),
        ("no conditions", ALL.map(silent).to_vec()),
        ("one twice", ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(endpoint).to_vec()),
    ];
    for (what, endpoints) in edits {
        println!("{what}");
        fixture.patch::<EndpointSlice>(&name, json!({ "endpoints": endpoints })).await;
        let now = right(&fixture).await;
        assert_eq!(now.slices[0].metadata.name.as_ref(), Some(&name), "repaired in place");
    }
    // Its ports, too.
    let port = json!({ "ports": [{ "name": "grpc", "port": 6666, "protocol": "TCP" }] });
    fixture.patch::<EndpointSlice>(&name, port).await;
    fixture.publishes_ports(&ALL.map(|address| (address, "grpc", 8080))).await;
    right(&fixture).await;
    assert_eq!(observer.managers(), set(&["beatkeeper.dev"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_owners_of_a_slice_come_back() {
    let (fixture, observer) = three("slice-labels").await;
    let name = slice(&fixture).await.metadata.name.unwrap();
    let label =
        |name: &str, value: Option<&str>| json!({ "metadata": { "labels": { name: value } } });
    let edits: [Value; 6] = [
        label("kubernetes.io/service-name", None),
        label("kubernetes.io/service-name", Some("other")),
        label("endpointslice.kubernetes.io/managed-by", None),
        label("endpointslice.kubernetes.io/managed-by", Some("somebody")),
        label("service.kubernetes.io/headless", Some("")),
        json!({ "metadata": { "annotations": { OWNED_BY: null } } }),
    ];
    for edit in edits {
        println!("{edit}");
        let version =
            fixture.patch::<EndpointSlice>(&name, edit).await.metadata.resource_version.unwrap();
        eventually("the slice was written after the edit", async || {
            let slice = fixture.api::<EndpointSlice>().get_opt(&name).await.unwrap();
            slice
                .is_none_or(|slice| slice.metadata.resource_version != Some(version.clone()))
                .then_some(())
        })
        .await;
        let now = right(&fixture).await;
        let labels = now.slices[0].metadata.labels.clone().unwrap();
        assert!(!labels.contains_key("service.kubernetes.io/headless"));
    }
    assert!(!observer.managers().contains(MIRROR));

    // Labels that others add stay.
    let theirs = label("example.com/theirs", Some("stays"));
    let name = slice(&fixture).await.metadata.name.unwrap();
    fixture.patch::<EndpointSlice>(&name, theirs).await;
    fixture.quit("vm-3").await;
    let now = fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    assert_eq!(now.slices[0].metadata.labels.as_ref().unwrap()["example.com/theirs"], "stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_edited_endpoints_come_back() {
    let (fixture, observer) = three("endpoints").await;
    fixture.api::<Endpoints>().delete("greeter", &DeleteParams::default()).await.unwrap();
    right(&fixture).await;
    let addresses = |all: &[&str]| {
        let all: Vec<Value> = all.iter().map(|ip| json!({ "ip": ip })).collect();
        json!({ "subsets": [{
            "addresses": all, "ports": [{ "name": "grpc", "port": 8080, "protocol": "TCP" }],
        }]})
    };
    let edits = [
        addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.66"]),
        addresses(&["192.0.2.1"]),
        json!({ "subsets": null }),
        json!({ "metadata": { "labels": { "endpoints.kubernetes.io/managed-by": null } } }),
    ];
    for edit in edits {
        println!("{edit}");
        fixture.patch::<Endpoints>("greeter", edit).await;
        right(&fixture).await;
    }
    assert_eq!(observer.managers(), set(&["beatkeeper.dev"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn mirroring_stays_switched_off() {
    let (fixture, observer) = three("mirror").await;
    let unlabel =
        json!({ "metadata": { "labels": { "endpointslice.kubernetes.io/skip-mirror": null } } });
    for _ in 0..3 {
        fixture.patch::<Endpoints>("greeter", unlabel.clone()).await;
        // There is exactly one slice, which is the operator's. A mirror that was made meanwhile is
        // gone again.
        right(&fixture).await;
    }
    observer.sees(&set(&ALL)).await;
    fixture.condition("greeter", "Ready", "True", "Published").await;
    fixture.join("vm-4", "192.0.2.4").await;
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    fixture.published_as_ready("greeter", &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_service_of_ours_is_made_again_with_its_endpoints() {
    let (fixture, observer) = three("own-service").await;
    for _ in 0..3 {
        let old: Service = fixture.api().get("greeter").await.unwrap();
        fixture.api::<Service>().delete("greeter", &DeleteParams::default()).await.unwrap();
        let new = eventually("the Service is made again", async || {
            let service: Service = fixture.api().get_opt("greeter").await.unwrap()?;
            (service.metadata.uid != old.metadata.uid).then_some(service)
        })
        .await;
        assert_eq!(new.annotations().get(OWNED_BY), old.annotations().get(OWNED_BY));
        stays_right(&fixture).await;
    }
    assert_eq!(observer.managers(), set(&["beatkeeper.dev"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_service_that_is_deleted_is_replaced_by_one_of_ours() {
    let fixture = Fixture::beside_service("users-service", json!({}), json!({})).await;
    let (fixture, observer) = fill(fixture).await;
    fixture.api::<Service>().delete("greeter", &DeleteParams::default()).await.unwrap();
    let service = eventually("a Service is made", async || {
        let service: Option<Service> = fixture.api().get_opt("greeter").await.unwrap();
        service.filter(|service| service.annotations().contains_key(OWNED_BY))
    })
    .await;
    assert_eq!(service.spec.unwrap().selector, None);
    stays_right(&fixture).await;
    assert_eq!(observer.managers(), set(&["beatkeeper.dev"]));
}

/// Waits until the published state is correct and stays so. The cluster's own controller deletes
/// the Endpoints of a deleted Service shortly after the operator sees the deletion. It looks up the
/// Service first. Once it has seen the new Service, it deletes nothing more.
async fn stays_right(fixture: &Fixture) {
    right(fixture).await;
    // A further change shows that both controllers have caught up.
    fixture.join("vm-9", "192.0.2.9").await;
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9"];
    fixture.published_as_ready("greeter", &all).await;
    fixture.quit("vm-9").await;
    right(fixture).await;
}
