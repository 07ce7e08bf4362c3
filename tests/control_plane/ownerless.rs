//! A namespace that was restored from a backup as most tools do it: without owner references, with
//! new uids, and with the objects that the operator and the instances had created.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;

use crate::support::{TestNamespace, eventually};

const OLD: &str = "00000000-0000-4000-8000-000000000000";

/// Creates the objects of an earlier registration `greeter` with the uid [`OLD`], as a restore without owner references
/// does.
async fn restore_without_owners(ns: &TestNamespace) {
    let made = |service: bool| {
        let service = if service { "/greeter" } else { "" };
        json!({ "beatkeeper.dev/owned-by": format!("greeter/{OLD}{service}") })
    };
    ns.create::<Service>(json!({
        "metadata": {
            "name": "greeter", "annotations": made(true),
            "labels": { "app.kubernetes.io/managed-by": "beatkeeper.dev" },
        },
        "spec": { "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }] },
    }))
    .await;
    ns.create::<EndpointSlice>(json!({
        "metadata": { "name": "greeter-x7k2p", "annotations": made(false), "labels": {
            "kubernetes.io/service-name": "greeter",
            "endpointslice.kubernetes.io/managed-by": "beatkeeper.dev",
        }},
        "addressType": "IPv4",
        "ports": [{ "name": "grpc", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["192.0.2.9"], "conditions": {
            "ready": true, "serving": true, "terminating": false,
        }}],
    }))
    .await;
    ns.create::<Endpoints>(json!({
        "metadata": { "name": "greeter", "annotations": made(false), "labels": {
            "endpoints.kubernetes.io/managed-by": "beatkeeper.dev",
            "endpointslice.kubernetes.io/skip-mirror": "true",
        }},
        "subsets": [{
            "addresses": [{ "ip": "192.0.2.9" }], "ports": [{ "name": "grpc", "port": 8080 }],
        }],
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_restored_without_owners_is_the_registrations_again() {
    let ns = TestNamespace::new("restored").await;
    restore_without_owners(&ns).await;
    ns.pod("web-0", &["10.88.0.1"], json!({})).await;
    let mut beats = ns.beats("greeter");
    let mut lease = beats.outside("web-0", "");
    lease.metadata.annotations =
        Some([("beatkeeper.dev/pod-uid".to_owned(), OLD.to_owned())].into());
    beats.create(&lease).await;

    let mut spec = TestNamespace::usual_spec();
    spec["ports"] = json!([{ "name": "grpc", "port": 81, "targetPort": 8080 }]);
    let registration = ns.register("greeter", spec).await;
    let _operator = ns.operator();
    beats.start(&beats.outside("vm-1", "192.0.2.1"), Duration::from_secs(1)).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.instance("greeter", "web-0", "Rejected", "PodReplaced").await;
    eventually("the Service has the new port and the new owner", async || {
        let service: Service = ns.api().get("greeter").await.unwrap();
        let owner = service.annotations().get("beatkeeper.dev/owned-by")?;
        let ports = service.spec.as_ref()?.ports.as_ref()?;
        let is_ours = owner.contains(&registration.uid().unwrap());
        (is_ours && ports[0].port == 81).then_some(())
    })
    .await;

    ns.api::<ServiceRegistration>().delete("greeter", &DeleteParams::default()).await.unwrap();
    eventually("nothing outlives the registration", async || {
        let published = ns.published("greeter").await;
        let service = ns.api::<Service>().get_opt("greeter").await.unwrap();
        (service.is_none() && published.slices.is_empty() && published.endpoints.is_none())
            .then_some(())
    })
    .await;
}
