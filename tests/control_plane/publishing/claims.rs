//! Which instance is published when several claim the same address, and which one stays when others
//! leave.

use serde_json::json;

use crate::support::{Published, Stage, Witness, witness::set};

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_address_are_two_endpoints() {
    let stage = Stage::set(
        "one-address",
        json!({ "instances": [
            { "name": "a", "addresses": ["192.0.2.1"], "ports": [{ "name": "grpc", "port": 9001 }] },
            { "name": "b", "addresses": ["192.0.2.1"], "ports": [{ "name": "grpc", "port": 9002 }] },
        ]}),
    )
    .await;
    stage.join("a", "").await;
    stage.join("b", "").await;
    stage.publishes_ports(&[("192.0.2.1", "grpc", 9001), ("192.0.2.1", "grpc", 9002)]).await;
    let in_endpoints = |published: &Published| -> Vec<i32> {
        let subsets = published.endpoints.iter().flat_map(|it| it.subsets.iter().flatten());
        let ready = subsets
            .filter(|subset| subset.addresses.iter().flatten().map(|it| &it.ip).eq(["192.0.2.1"]));
        let mut ports: Vec<i32> =
            ready.flat_map(|it| it.ports.iter().flatten()).map(|port| port.port).collect();
        ports.sort_unstable();
        ports
    };
    // The Endpoints object is written after the slices, and other changes delay it further.
    stage.publishes("both are in Endpoints", |it| in_endpoints(it) == [9001, 9002]).await;

    stage.quit("a").await;
    stage.publishes_ports(&[("192.0.2.1", "grpc", 9002)]).await;
    stage.publishes("the other one stays in Endpoints", |it| in_endpoints(it) == [9002]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_instances_claim_is_published_once_while_either_lives() {
    let stage = Stage::set("twins", json!({})).await;
    stage.join("a", "192.0.2.1").await;
    stage.join("b", "192.0.2.1").await;
    stage.status("a", "Ready", "Beating").await;
    stage.status("b", "Ready", "Beating").await;
    stage.publishes_ports(&[("192.0.2.1", "grpc", 8080)]).await;
    let witness = Witness::of(&stage, "greeter").await;

    stage.quit("a").await;
    stage.counts(1).await;
    stage.join("a", "192.0.2.1").await;
    stage.counts(2).await;
    stage.quit("b").await;
    stage.counts(1).await;
    witness.sees(&set(&["192.0.2.1"])).await;
    witness.never_missed(&set(&["192.0.2.1"]));

    // The instance that can serve decides for both.
    stage.join("b", "192.0.2.1").await;
    stage.beats.annotate("a", "beatkeeper.dev/health", Some("Failing")).await;
    stage.status("a", "NotReady", "HealthFailing").await;
    stage.published_as_ready("greeter", &["192.0.2.1"]).await;
    stage.quit("b").await;
    stage
        .publishes("nobody is ready", |published| {
            published.conditions()["192.0.2.1"] == (false, false, false)
                && published.in_endpoints().is_empty()
                && published.not_ready_in_endpoints() == set(&["192.0.2.1"])
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pods_on_one_address_the_other_takes_over_when_one_leaves() {
    let stage = Stage::set("host-network", json!({})).await;
    let first = stage.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    stage.published_as_ready("greeter", &["10.88.0.1"]).await;
    let second = stage.join_pod("greeter-2", &["10.88.0.1"], json!({})).await;
    stage.status("greeter-2", "Ready", "Beating").await;
    let published = stage.publishes_ports(&[("10.88.0.1", "grpc", 8080)]).await;
    let witness = Witness::of(&stage, "greeter").await;
    let target = |published: &crate::support::Published| {
        published.slices[0].endpoints[0].target_ref.clone().unwrap().uid.unwrap()
    };
    assert_eq!(target(&published), first);

    stage.quit("greeter-1").await;
    stage.publishes("the other Pod is published", |now| target(now) == second).await;
    witness.sees(&set(&["10.88.0.1"])).await;
    witness.never_missed(&set(&["10.88.0.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_takes_its_address_from_an_outside_instance_that_claims_it() {
    let stage = Stage::set("pod-first", json!({})).await;
    stage.join("vm-1", "192.0.2.1").await;
    stage.published_as_ready("greeter", &["192.0.2.1"]).await;

    let uid = stage.join_pod("greeter-1", &["192.0.2.1"], json!({})).await;
    let rejected = stage.status("vm-1", "Rejected", "AddressRefused").await;
    assert!(rejected.message.contains("Pod"), "{}", rejected.message);
    let published = stage
        .publishes("the Pod is published", |published| {
            published.in_endpoints() == set(&["192.0.2.1"])
                && published.slices[0].endpoints.iter().all(|endpoint| {
                    endpoint.target_ref.as_ref().is_some_and(|pod| pod.uid.as_ref() == Some(&uid))
                })
        })
        .await;
    assert_eq!(
        published.address_ports(),
        [("192.0.2.1".to_owned(), "grpc".to_owned(), 8080)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registrations_may_publish_the_same_address_and_port() {
    let stage = Stage::set("two-services", json!({})).await;
    stage.add_registration("other", json!({})).await;
    let uid = stage.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let others = stage.shop.beats("other");
    others.create(&others.in_pod("greeter-1", &uid)).await;
    stage.join("vm-1", "192.0.2.1").await;
    others.create(&others.outside("vm-1", "192.0.2.1")).await;

    for service in ["greeter", "other"] {
        stage.published_as_ready(service, &["10.88.0.1", "192.0.2.1"]).await;
    }
    let witness = Witness::of(&stage, "other").await;
    stage.quit("vm-1").await;
    stage.published_as_ready("greeter", &["10.88.0.1"]).await;
    stage.quit("greeter-1").await;
    stage.published_as_ready("greeter", &[]).await;
    witness.sees(&set(&["10.88.0.1", "192.0.2.1"])).await;
    witness.never_missed(&set(&["10.88.0.1", "192.0.2.1"]));
    assert_eq!(witness.states(), (1, 1), "what the other one does is no write here");
}

#[tokio::test(flavor = "multi_thread")]
async fn deregistering_one_leaves_its_siblings_where_they_are() {
    let stage = Stage::set("siblings", json!({})).await;
    for n in 1..=4 {
        stage.join(&format!("vm-{n}"), &format!("192.0.2.{n}")).await;
    }
    stage
        .published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"])
        .await;
    let witness = Witness::of(&stage, "greeter").await;
    // Names with a common prefix are different instances.
    stage.join("vm", "192.0.2.100").await;
    stage.join("vm-1.old", "192.0.2.101").await;
    stage.counts(6).await;
    stage.quit("vm").await;
    stage.quit("vm-1.old").await;
    stage.quit("vm-2").await;
    let left = ["192.0.2.1", "192.0.2.3", "192.0.2.4"];
    stage.published_as_ready("greeter", &left).await;
    witness.sees(&set(&left)).await;
    witness.never_missed(&set(&left));
    stage.counts(3).await;
}
