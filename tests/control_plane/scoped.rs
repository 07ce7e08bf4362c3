//! An operator for one namespace does not publish what belongs to another (P5).

use std::path::Path;

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::EndpointSlice,
    rbac::v1::{ClusterRole, RoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{Operator, TestNamespace};

const SAY: &str = "info,beatkeeper=debug";

/// Declares a registration with instances at these addresses. Each name says what the address is.
async fn declare(ns: &TestNamespace, instances: &[(&str, &str)]) {
    let declared: Vec<Value> = instances
        .iter()
        .map(|(name, address)| json!({ "name": name, "addresses": [address] }))
        .collect();
    let mut spec = TestNamespace::usual_spec();
    (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
    spec["instances"] = declared.into();
    ns.register("greeter", spec).await;
}

/// A slice through which clients reach the API server, with this address.
async fn api_server_at(ns: &TestNamespace, address: &str) -> EndpointSlice {
    let default =
        TestNamespace { plane: ns.plane, client: ns.client.clone(), name: "default".to_owned() };
    default
        .create(json!({
            "metadata": {
                "name": ns.name,
                "labels": { "kubernetes.io/service-name": "kubernetes" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address] }],
        }))
        .await
}

/// A kubeconfig for an account that has all rights in the test's namespace, and none elsewhere.
async fn confined(ns: &TestNamespace) -> tempfile::NamedTempFile {
    let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let role = json!({ "metadata": { "name": ns.name }, "rules": all });
    let role = serde_json::from_value(role).unwrap();
    Api::<ClusterRole>::all(ns.client.clone()).create(&PostParams::default(), &role).await.unwrap();
    let binding = json!({
        "metadata": { "name": "operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ns.name },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": ns.name }],
    });
    let _: RoleBinding = ns.create(binding).await;
    let token = ns.plane.token(&ns.name, "default", None).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ns.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
    file
}

fn start(ns: &TestNamespace, kubeconfig: &Path, flags: &[&str]) -> Operator {
    let namespace = format!("--namespace={}", ns.name);
    let range = |range| format!("--outside-range={}={range}", ns.name);
    let ranges = ["0.0.0.0/0", "::/0"].map(range);
    let mut all = vec![namespace.as_str(), &ranges[0], &ranges[1]];
    all.extend(flags);
    Operator::start_saying(SAY, None, kubeconfig, "", &all)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_for_one_namespace_refuses_the_addresses_of_all_others() {
    let ns = TestNamespace::new("scoped").await;
    let elsewhere = ns.plane.namespace("scoped-other").await.unwrap();
    let away = TestNamespace { plane: ns.plane, client: ns.client.clone(), name: elsewhere };
    away.pod("cart", &["10.88.77.9"], json!({})).await;
    let service: Service = away
        .create(json!({ "metadata": { "name": "cart" }, "spec": { "ports": [{ "port": 80 }] } }))
        .await;
    let service = service.spec.unwrap().cluster_ip.unwrap();
    let of_api_server = api_server_at(&ns, "10.88.77.10").await;
    let all = [
        ("a-pod", "10.88.77.9"),
        ("a-service", service.as_str()),
        ("the-api-server", "10.88.77.10"),
        ("a-machine", "192.0.2.77"),
    ];
    declare(&ns, &all).await;
    let _operator = start(&ns, &ns.plane.kubeconfig(), &[]);
    ns.looked_at("greeter").await;
    let beats = ns.beats("greeter");
    for (name, address) in all {
        beats.create(&beats.outside(name, address)).await;
    }
    for (name, owner) in [
        ("a-pod", format!("Pod {}/cart", away.name)),
        ("a-service", format!("Service {}/cart", away.name)),
        ("the-api-server", "the API server".to_owned()),
    ] {
        let status = ns.instance("greeter", name, "Rejected", "AddressRefused").await;
        assert!(status.message.contains(&format!("belongs to {owner}")), "{}", status.message);
    }
    ns.published_as_ready("greeter", &["192.0.2.77"]).await;
    let slices: Api<EndpointSlice> = Api::namespaced(ns.client.clone(), "default");
    let name = of_api_server.metadata.name.unwrap();
    slices.delete(&name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_cannot_know_the_owners_of_addresses_says_so_and_publishes_none() {
    let ns = TestNamespace::new("confined").await;
    let kubeconfig = confined(&ns).await;
    let all = [("inside", "10.88.77.9"), ("a-machine", "192.0.2.78")];
    declare(&ns, &all).await;
    let mut blind = start(&ns, kubeconfig.path(), &[]);
    assert!(!blind.ended().await, "it ends with an error");
    let log = blind.logged();
    for told in ["--cluster-network", &ns.name, "pods", "clusterNetworks"] {
        assert!(log.contains(told), "{log}");
    }

    let networks = ["--cluster-network=10.0.0.0/8", "--cluster-network=fd00::/8"];
    let operator = start(&ns, kubeconfig.path(), &networks);
    ns.looked_at("greeter").await;
    let beats = ns.beats("greeter");
    for (name, address) in all {
        beats.create(&beats.outside(name, address)).await;
    }
    let status = ns.instance("greeter", "inside", "Rejected", "AddressRefused").await;
    assert!(status.message.contains("lies in 10.0.0.0/8"), "{}", status.message);
    ns.published_as_ready("greeter", &["192.0.2.78"]).await;
    assert!(!operator.logged().contains("forbidden"), "it asks for nothing that it may not have");
    let role = Api::<ClusterRole>::all(ns.client.clone());
    role.delete(&ns.name, &DeleteParams::default()).await.unwrap();
}
