//! A stalled registration never empties a Service. Living instances stay as published, dead ones
//! leave, and edits that were made meanwhile take effect when the stall ends.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const ALL: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];

impl TestNamespace {
    /// Edits the registration, and waits until an operator has seen the edit.
    async fn edit_spec(&self, spec: Value) {
        let edit = json!({ "spec": spec });
        let edited: ServiceRegistration = self.patch("greeter", edit).await;
        let generation = edited.metadata.generation;
        eventually("the operator has seen the edit", async || {
            let status = self.registration("greeter").await.status?;
            (status.observed_generation == generation).then_some(())
        })
        .await;
    }

    /// The ports of all endpoints in slices, and those of the Endpoints object.
    async fn ports(&self) -> (BTreeSet<i32>, BTreeSet<i32>) {
        let published = self.published("greeter").await;
        let endpoints = published.endpoints.iter().flat_map(|it| it.subsets.iter().flatten());
        let listed = endpoints.flat_map(|subset| subset.ports.iter().flatten().map(|it| it.port));
        let ports = published.address_ports().into_iter().map(|(.., port)| port);
        (ports.collect(), listed.collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_during_a_stall_take_no_living_address_out_and_the_dead_leave() {
    let ns = TestNamespace::new("stalled").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for (n, address) in ALL.iter().enumerate() {
        beats.start(&beats.outside(&format!("vm-{}", n + 1), address), INTERVAL).await;
    }
    ns.published_as_ready("greeter", &ALL).await;
    let observer = ns.observe("greeter").await;

    // A typing error: the value should be "true".
    let slip = |value: Value| json!({ "metadata": { "annotations": { "beatkeeper.dev/dry-run": value } } });
    ns.patch::<ServiceRegistration>("greeter", slip("True".into())).await;
    ns.condition("greeter", "Stalled", "True", "InvalidSpec").await;
    let old = (BTreeSet::from([8080]), BTreeSet::from([8080]));
    for target in [json!(9090), json!("no-such-port"), json!(9090)] {
        let ports = json!([{ "name": "grpc", "port": 80, "targetPort": target }]);
        ns.edit_spec(json!({ "ports": ports, "podSelector": { "matchLabels": { "a": "b" } } }))
            .await;
        ns.published_as_ready("greeter", &ALL).await;
        assert_eq!(ns.ports().await, old, "{target}");
    }
    beats.die("vm-1");
    observer.leaves(ALL[0]).await.unwrap();
    ns.published_as_ready("greeter", &ALL[1..]).await;
    assert_eq!(ns.ports().await, old);

    ns.patch::<ServiceRegistration>("greeter", slip(Value::Null)).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    ns.published_as_ready("greeter", &ALL[1..]).await;
    eventually("the edit is carried out", async || {
        let new = (BTreeSet::from([9090]), BTreeSet::from([9090]));
        (ns.ports().await == new).then_some(())
    })
    .await;
    assert_eq!(observer.left(), [ALL[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_during_a_stall_empties_nothing_either() {
    let ns = TestNamespace::new("stalled-start").await;
    let operator = ns.operator();
    let mut spec = TestNamespace::usual_spec();
    spec["instances"] = json!([{ "name": "vm-1", "addresses": [ALL[0]] }]);
    ns.register("greeter", spec).await;
    let mut beats = ns.beats("greeter");
    for (n, address) in ALL.iter().enumerate() {
        beats.start(&beats.outside(&format!("vm-{}", n + 1), address), INTERVAL).await;
    }
    ns.published_as_ready("greeter", &ALL).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let observer = ns.observe("greeter").await;
    operator.stop().await;

    let select = json!({ "spec": { "selector": { "app": "elsewhere" } } });
    ns.patch::<Service>("greeter", select).await;
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 9090 }]);
    let moved = json!([{ "name": "vm-1", "addresses": ["192.0.2.9"] }]);
    let edit = json!({ "spec": { "ports": ports, "instances": moved } });
    ns.patch::<ServiceRegistration>("greeter", edit).await;
    let _operator = ns.operator();
    ns.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    beats.leave("vm-3").await;
    observer.leaves(ALL[2]).await.unwrap();
    assert_eq!(ns.ports().await.0, BTreeSet::from([8080]));
    assert_eq!(observer.left(), [ALL[2]]);
}
