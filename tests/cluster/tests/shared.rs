//! What the shared control plane offers to tests.
#![allow(clippy::unwrap_used)]

use beatkeeper_cluster::{AuditEntry, Part, shared};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str) -> Pod {
    object(json!({
        "metadata": { "name": name },
        "spec": { "nodeName": "nowhere", "containers": [{ "name": "c", "image": "none" }] },
    }))
}

async fn create_lease(client: Client, namespace: &str, name: &str) -> kube::Result<Lease> {
    Api::namespaced(client, namespace)
        .create(&PostParams::default(), &object(json!({ "metadata": { "name": name } })))
        .await
}

#[tokio::test]
async fn the_audit_log_names_the_writer_of_each_object() {
    let plane = shared().await;
    let namespace = plane.namespace("audit").await.unwrap();
    let writer = plane.client_with_user_agent("the-writer/1.0").unwrap();
    let nobody = plane.client_as(&namespace, "default", None).await.unwrap();
    create_lease(writer.clone(), &namespace, "before").await.unwrap();

    let mark = plane.audit_mark().await.unwrap();
    let leases: Api<Lease> = Api::namespaced(writer.clone(), &namespace);
    create_lease(writer.clone(), &namespace, "beat").await.unwrap();
    leases.get("beat").await.unwrap();
    let patch = Patch::Merge(json!({ "spec": { "holderIdentity": "me" } }));
    leases.patch("beat", &PatchParams::default(), &patch).await.unwrap();
    leases.delete("beat", &DeleteParams::default()).await.unwrap();
    create_lease(nobody, &namespace, "refused").await.unwrap_err();

    let ours = |entry: &AuditEntry| entry.namespace == namespace && entry.resource == "leases";
    let entries = plane.audit_since(mark).await.unwrap();
    let told: Vec<_> = entries
        .iter()
        .filter(|entry| ours(entry))
        .map(|entry| {
            (
                entry.user.as_str(),
                entry.user_agent.as_str(),
                entry.verb.as_str(),
                entry.name.as_str(),
                entry.code,
            )
        })
        .collect();
    let account = format!("system:serviceaccount:{namespace}:default");
    let admin = "beatkeeper-admin";
    assert_eq!(
        told,
        [
            (admin, "the-writer/1.0", "create", "beat", 201),
            (admin, "the-writer/1.0", "patch", "beat", 200),
            (admin, "the-writer/1.0", "delete", "beat", 200),
            (&account, "beatkeeper-cluster", "create", "", 403),
        ]
    );
    assert_eq!(plane.audit(ours).await.unwrap().len(), 5);
}

#[tokio::test]
async fn the_last_write_is_in_the_audit_log_as_soon_as_it_is_answered() {
    let plane = shared().await;
    let namespace = plane.namespace("prompt").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(plane.admin_client().unwrap(), &namespace);
    for number in 0..50 {
        let mark = plane.audit_mark().await.unwrap();
        let name = format!("map-{number}");
        // An answer that is too large for the server's buffer is on its way before the entry is written.
        let map = json!({ "metadata": { "name": name }, "data": { "key": "x".repeat(100_000) } });
        maps.create(&PostParams::default(), &object(map)).await.unwrap();
        let entries = plane.audit_since(mark).await.unwrap();
        assert!(entries.iter().any(|entry| entry.name == name), "{name}");
    }
}

#[tokio::test]
async fn a_token_bound_to_a_pod_names_it() {
    let plane = shared().await;
    let namespace = plane.namespace("token").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(plane.admin_client().unwrap(), &namespace);
    let made = pods.create(&PostParams::default(), &pod("greeter")).await.unwrap();

    let client = plane.client_as(&namespace, "default", Some("greeter")).await.unwrap();
    let review = Api::<SelfSubjectReview>::all(client)
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .unwrap();

    let user = review.status.unwrap().user_info.unwrap();
    assert_eq!(user.username, Some(format!("system:serviceaccount:{namespace}:default")));
    let extra = user.extra.unwrap();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["greeter"]);
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [made.metadata.uid.unwrap()]);
}

#[tokio::test]
async fn a_service_is_ipv4_alone_unless_it_asks_for_both_families() {
    let plane = shared().await;
    let namespace = plane.namespace("families").await.unwrap();
    let services: Api<Service> = Api::namespaced(plane.admin_client().unwrap(), &namespace);
    for (policy, families) in
        [(Value::Null, vec!["IPv4"]), (json!("PreferDualStack"), vec!["IPv4", "IPv6"])]
    {
        let service = object(json!({
            "metadata": { "generateName": "s-" },
            "spec": { "ports": [{ "port": 80 }], "ipFamilyPolicy": policy },
        }));
        let made = services.create(&PostParams::default(), &service).await.unwrap();
        assert_eq!(made.spec.unwrap().ip_families.unwrap(), families);
    }
}

#[tokio::test]
async fn a_declared_resource_can_be_used_at_once() {
    let plane = shared().await;
    let namespace = plane.namespace("declare").await.unwrap();
    let group = format!("{namespace}.example.com");
    let crd: CustomResourceDefinition = object(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("drums.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "plural": "drums", "singular": "drum", "kind": "Drum" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        },
    }));
    plane.declare(&crd).await.unwrap();

    let resource = kube::core::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk(&group, "v1", "Drum"),
        "drums",
    );
    let client = plane.admin_client().unwrap();
    let drums: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let drum = DynamicObject::new("snare", &resource);
    drums.create(&PostParams::default(), &drum).await.unwrap();
    let found = drums.list(&ListParams::default()).await.unwrap();
    assert_eq!(found.items.len(), 1);
}

#[tokio::test]
async fn kubectl_and_the_metrics_know_the_version() {
    let plane = shared().await;
    let output = plane.kubectl().args(["version", "-o", "json"]).output().unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["serverVersion"]["gitVersion"], "v1.37.1");
    assert_eq!(version["clientVersion"]["gitVersion"], "v1.37.1");
    let metrics = plane.metrics().await.unwrap();
    assert!(metrics.contains("kubernetes_build_info{"));
}

#[tokio::test]
async fn a_pod_on_no_node_is_left_alone() {
    // Being taken takes 40 s; that the takers are switched off can be seen at once.
    let plane = shared().await;
    let log = std::fs::read_to_string(plane.log(Part::ControllerManager)).unwrap();
    for controller in [
        "pod-garbage-collector-controller",
        "node-lifecycle-controller",
        "taint-eviction-controller",
    ] {
        let off = format!("controller is disabled\" controller=\"{controller}\"");
        assert!(log.contains(&off), "{controller}");
    }
}
