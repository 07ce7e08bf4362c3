//! An adoption that is not allowed is refused. The message has the object and the remedy, and
//! nothing is changed.

use beatkeeper_api::registration::ADOPT_ANNOTATION;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Endpoints},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use serde_json::json;

use super::{MANAGED_BY, QUIET};
use crate::support::{ServiceObserver, TestNamespace, observer::set};

impl TestNamespace {
    /// Waits until the adoption is refused, and checks that nothing but status and events has been
    /// written. Returns the message.
    async fn refused(&self) -> String {
        let before = self.published("greeter").await;
        let mark = self.plane.audit_mark().await.unwrap();
        self.annotated_greeter(ADOPT_ANNOTATION, "true").await;
        let message = self.condition("greeter", "Stalled", "True", "AdoptionRefused").await;
        assert_eq!(self.condition("greeter", "Ready", "False", "AdoptionRefused").await, message);
        self.settled(QUIET).await;
        self.nothing_but_told(mark).await;
        let after = self.published("greeter").await;
        assert_eq!((after.slices, after.endpoints), (before.slices, before.endpoints));
        assert_eq!(self.adopted().await, []);
        message
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_allowed_ranges_is_refused_until_it_is_removed() {
    let ns = TestNamespace::new("adopt-range").await;
    ns.hand_written(&["192.0.2.1", "203.0.113.9"]).await;
    let _operator = ns.operator();
    let message = ns.refused().await;
    assert!(
        message.starts_with(
            "Endpoints greeter cannot be taken over, so nothing is: 203.0.113.9 lies outside the \
             ranges allowed for namespace"
        ),
        "{message}"
    );
    let fewer = json!({ "subsets": [{
        "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "name": "grpc", "port": 9001 }],
    }]});
    ns.patch::<Endpoints>("greeter", fewer).await;
    ns.all_ours().await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_other_names_are_refused() {
    let ns = TestNamespace::new("adopt-ports").await;
    ns.hand_written_with_port(&["192.0.2.1"], "http").await;
    let _operator = ns.operator();
    let message = ns.refused().await;
    assert!(message.contains("subsets[0].ports has \"http\" (TCP)"), "{message}");
    assert!(message.contains("make them agree"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_that_a_program_manages_and_names_in_place_of_addresses_are_refused() {
    for (prefix, changes, told) in [
        (
            "adopt-program",
            json!({ "metadata": { "labels": { MANAGED_BY: "edge-controller.example.com" }}}),
            "label endpointslice.kubernetes.io/managed-by says that edge-controller.example.com \
             manages it",
        ),
        (
            "adopt-owned",
            json!({ "metadata": { "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "edge", "controller": true,
            }]}}),
            "metadata.ownerReferences says that ConfigMap edge controls it",
        ),
    ] {
        let ns = TestNamespace::new(prefix).await;
        ns.service("greeter", json!({})).await;
        ns.hand_written_slice("a-hand", &["192.0.2.1"], 9001).await;
        let mut changes = changes;
        if let Some(owner) = changes.pointer_mut("/metadata/ownerReferences/0") {
            let map: ConfigMap = ns.create(json!({ "metadata": { "name": "edge" } })).await;
            owner["uid"] = json!(map.uid());
        }
        ns.patch::<EndpointSlice>("a-hand", changes).await;
        let _operator = ns.operator();
        let message = ns.refused().await;
        assert!(message.contains(told), "{message}");
    }
    let ns = TestNamespace::new("adopt-names").await;
    ns.service("greeter", json!({})).await;
    ns.create::<EndpointSlice>(json!({
        "metadata": { "name": "by-hand", "labels": { "kubernetes.io/service-name": "greeter" } },
        "addressType": "FQDN",
        "ports": [{ "name": "grpc", "port": 9001, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["vm-1.example.com"] }],
    }))
    .await;
    let _operator = ns.operator();
    let message = ns.refused().await;
    assert!(message.contains("EndpointSlice by-hand"), "{message}");
    assert!(message.contains("its addressType is FQDN"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_on_the_list_is_refused_until_it_is() {
    let ns = TestNamespace::new("adopt-list").await;
    ns.hand_written(&["192.0.2.1", "192.0.2.2"]).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    let _operator = ns.operator();
    ns.annotated_greeter(ADOPT_ANNOTATION, "192.0.2.1").await;
    let message = ns.condition("greeter", "Stalled", "True", "AdoptionRefused").await;
    assert_eq!(
        message,
        "Endpoints greeter cannot be taken over, so nothing is: 192.0.2.2 is not in the list of \
         annotation beatkeeper.dev/adopt; add it there, or remove it from Endpoints greeter"
    );
    assert_eq!(ns.adopted().await, []);
    ns.annotate(ADOPT_ANNOTATION, Some("192.0.2.1,192.0.2.2")).await;
    ns.all_ours().await;
    observer.always_saw(&set(&["192.0.2.1", "192.0.2.2"]));
}
