//! What is published of a Pod: ports, readiness, node and zone.

use beatkeeper_cluster::Options;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::support::{Fixture, ServiceObserver, observer::set};

#[tokio::test(flavor = "multi_thread")]
async fn a_named_target_port_is_resolved_for_each_pod() {
    let fixture = Fixture::new(
        "named-ports",
        json!({ "ports": [{ "name": "grpc", "port": 80, "targetPort": "serve" }] }),
    )
    .await;
    let container = |port: Value| json!({ "name": "main", "image": "none", "ports": [port] });
    let on = |port: i32| container(json!({ "name": "serve", "containerPort": port }));
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({ "containers": [on(8080)] })).await;
    fixture.join_pod("greeter-2", &["10.88.0.2"], json!({ "containers": [on(9090)] })).await;
    let sidecar = json!({ "initContainers": [{
        "name": "proxy", "image": "none", "restartPolicy": "Always",
        "ports": [{ "name": "serve", "containerPort": 7070 }],
    }]});
    fixture.join_pod("greeter-3", &["10.88.0.3"], sidecar).await;
    let init = json!({ "initContainers": [{
        "name": "setup", "image": "none",
        "ports": [{ "name": "serve", "containerPort": 6060 }],
    }]});
    fixture.join_pod("greeter-4", &["10.88.0.4"], init).await;
    let other = container(json!({ "name": "serve", "containerPort": 8080, "protocol": "UDP" }));
    fixture.join_pod("greeter-5", &["10.88.0.5"], json!({ "containers": [other] })).await;
    fixture.join("vm-1", "192.0.2.1").await;

    let published = fixture
        .publishes_ports(&[
            ("10.88.0.1", "grpc", 8080),
            ("10.88.0.2", "grpc", 9090),
            ("10.88.0.3", "grpc", 7070),
        ])
        .await;
    assert_eq!(published.slices.len(), 3);
    for pod in ["greeter-4", "greeter-5"] {
        let status = fixture.status(pod, "Rejected", "PortUnresolved").await;
        assert_eq!(status.message, format!("Pod {pod} has no TCP port named serve"));
    }
    let status = fixture.status("vm-1", "Rejected", "PortUnresolved").await;
    assert_eq!(
        status.message,
        "port \"grpc\" has targetPort \"serve\", a name that only Pods can resolve; declare the \
         instance with a number for that port"
    );
    fixture.published_as_ready("greeter", &["10.88.0.1", "10.88.0.2", "10.88.0.3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelets_word_decides_and_the_node_controllers_guess_does_not() {
    let fixture = Fixture::new("readiness", json!({})).await;
    fixture.join_pod("guessed", &["10.88.0.1"], json!({})).await;
    fixture.join_pod("told", &["10.88.0.2"], json!({})).await;
    fixture.published_as_ready("greeter", &["10.88.0.1", "10.88.0.2"]).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;

    // The node controller changes only the condition Ready when a node is silent.
    fixture.pod_conditions("guessed", &[("ContainersReady", true), ("Ready", false)]).await;
    fixture.pod_conditions("told", &[("ContainersReady", false), ("Ready", false)]).await;
    let status = fixture.status("told", "NotReady", "PodNotReady").await;
    assert_eq!(
        status.message,
        "its Pod's ContainersReady condition or a readiness gate is not true"
    );
    let published = fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    assert_eq!(published.conditions()["10.88.0.2"], (false, false, false));
    assert_eq!(published.not_ready_in_endpoints(), set(&["10.88.0.2"]));
    fixture.status("guessed", "Ready", "Beating").await;
    observer.sees_in_endpoints(&set(&["10.88.0.1"])).await;
    observer.never_missed(&set(&["10.88.0.1"]));

    fixture.pod_conditions("told", &[("ContainersReady", true), ("Ready", true)]).await;
    fixture.published_as_ready("greeter", &["10.88.0.1", "10.88.0.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readiness_gate_keeps_a_pod_out_until_it_opens() {
    let fixture = Fixture::new("gates", json!({})).await;
    let gated = json!({ "readinessGates": [{ "conditionType": "example.com/warm" }] });
    fixture.join_pod("greeter-1", &["10.88.0.1"], gated).await;
    fixture.status("greeter-1", "NotReady", "PodNotReady").await;
    fixture
        .publishes("it is not ready", |now| {
            now.conditions().get("10.88.0.1") == Some(&(false, false, false))
                && now.not_ready_in_endpoints() == set(&["10.88.0.1"])
        })
        .await;
    let open = [("ContainersReady", true), ("Ready", true), ("example.com/warm", true)];
    fixture.pod_conditions("greeter-1", &open).await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    let shut = [("ContainersReady", true), ("Ready", true), ("example.com/warm", false)];
    fixture.pod_conditions("greeter-1", &shut).await;
    fixture.published_as_ready("greeter", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_endpoint_names_its_pod_and_node() {
    let fixture = Fixture::new("target-ref", json!({})).await;
    let uid = fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let published = fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    let pod = json!({
        "kind": "Pod", "namespace": fixture.name, "name": "greeter-1", "uid": uid,
    });
    assert_eq!(
        serde_json::to_value(&published.slices[0].endpoints).unwrap(),
        json!([{
            "addresses": ["10.88.0.1"],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": "nowhere",
            "targetRef": pod,
        }])
    );
    assert_eq!(
        serde_json::to_value(&published.endpoints.unwrap().subsets).unwrap()[0]["addresses"],
        json!([{ "ip": "10.88.0.1", "nodeName": "nowhere", "targetRef": pod }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_endpoint_has_the_zone_of_its_node() {
    // Nodes belong to no namespace, so only an operator that watches all namespaces reads them.
    let fixture = Fixture::on_own_plane("zones", Options::default()).await;
    let nodes = Api::<Node>::all(fixture.client.clone());
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "node-1", "labels": { "topology.kubernetes.io/zone": "eu-1a" } },
    });
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({ "nodeName": "node-1" })).await;
    fixture.join_pod("greeter-2", &["10.88.0.2"], json!({})).await;

    fixture.published_as_ready("greeter", &["10.88.0.1", "10.88.0.2"]).await;
    // The operator may learn of the Pod before it learns of the Node.
    fixture
        .publishes("one endpoint has the zone of its Node, and the other none", |published| {
            let endpoints = published.slices.iter().flat_map(|slice| &slice.endpoints);
            let mut zones: Vec<_> = endpoints
                .map(|endpoint| (endpoint.node_name.as_deref(), endpoint.zone.as_deref()))
                .collect();
            zones.sort_unstable();
            zones == [(Some("node-1"), Some("eu-1a")), (Some("nowhere"), None)]
        })
        .await;
}
