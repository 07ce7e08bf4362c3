//! Which registration owns a slice when registrations come, go and share a Service (P3, P6).

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_registration_takes_over_what_the_old_one_left_without_a_gap() {
    let ns = TestNamespace::new("anew").await;
    let _operator = ns.operator();
    let old = ns.greeter().await;
    let _beats = ns.two_published(INTERVAL).await;
    let observer = ns.observe("greeter").await;

    let registrations: Api<ServiceRegistration> = ns.api();
    registrations.delete("greeter", &DeleteParams::orphan()).await.unwrap();
    eventually("the registration is gone", async || {
        registrations.get_opt("greeter").await.unwrap().is_none().then_some(())
    })
    .await;
    let new = ns.greeter().await;
    assert_ne!(old.metadata.uid, new.metadata.uid);
    ns.condition("greeter", "Ready", "True", "Published").await;
    eventually("all slices are owned by the new registration", async || {
        let published = ns.published("greeter").await;
        let owners: BTreeSet<_> = published
            .slices
            .iter()
            .map(|slice| slice.annotations().get("beatkeeper.dev/owned-by").cloned())
            .collect();
        let uid = new.metadata.uid.clone().unwrap();
        let owner = format!("{}:greeter/{uid}", ns.name);
        (owners == BTreeSet::from([Some(owner)])).then_some(())
    })
    .await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    assert_eq!(observer.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registrations_made_at_once_one_publishes_and_the_other_says_why_it_does_not() {
    let ns = TestNamespace::new("twins").await;
    let _operator = ns.operator();
    let mut spec = TestNamespace::usual_spec();
    spec["serviceName"] = json!("greeter");
    // The registration with the later name is created first. Within one second the age is equal,
    // and the name decides.
    ns.register("zeta", spec.clone()).await;
    ns.register("alpha", spec).await;
    let reasons = eventually("one publishes and the other is stalled", async || {
        let mut reasons = Vec::new();
        for name in ["alpha", "zeta"] {
            let status = ns.registration(name).await.status?;
            let ready = status.conditions.into_iter().find(|known| known.type_ == "Ready")?;
            reasons.push(ready.reason);
        }
        reasons.sort();
        (reasons == ["Published", "ServiceTaken"]).then_some(reasons)
    })
    .await;
    let mark = ns.settled(Duration::from_millis(800)).await;
    assert_eq!(ns.written_since(mark).await, [], "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_only_wants_to_be_cleaned_up_with_the_registration_is_not_ours() {
    let ns = TestNamespace::new("foreign").await;
    ns.create::<k8s_openapi::api::core::v1::Service>(json!({
        "metadata": { "name": "greeter" },
        "spec": { "ports": [{ "name": "grpc", "port": 80 }] },
    }))
    .await;
    let registration = ns.greeter().await;
    let slice = json!({
        "metadata": {
            "name": "by-hand",
            "labels": {
                "kubernetes.io/service-name": "greeter",
                "endpointslice.kubernetes.io/managed-by": "hand",
            },
            "ownerReferences": [{
                "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
                "name": "greeter", "uid": registration.metadata.uid,
            }],
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["192.0.2.99"] }],
        "ports": [{ "name": "grpc", "port": 8080 }],
    });
    let made: EndpointSlice = ns.create(slice).await;
    let _operator = ns.operator();
    ns.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    let now: EndpointSlice = ns.api().get("by-hand").await.unwrap();
    assert_eq!(now.metadata.resource_version, made.metadata.resource_version);
}
