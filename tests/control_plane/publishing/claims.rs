//! Which instance is published when several claim the same address, and which one stays when others
//! leave.

use serde_json::json;

use crate::support::{Fixture, Published, ServiceObserver, observer::set};

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_address_are_two_endpoints() {
    let fixture = Fixture::new(
        "one-address",
        json!({ "instances": [
            { "name": "a", "addresses": ["192.0.2.1"], "ports": [{ "name": "grpc", "port": 9001 }] },
            { "name": "b", "addresses": ["192.0.2.1"], "ports": [{ "name": "grpc", "port": 9002 }] },
        ]}),
    )
    .await;
    fixture.join("a", "").await;
    fixture.join("b", "").await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 9001), ("192.0.2.1", "grpc", 9002)]).await;
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
    fixture.publishes("both are in Endpoints", |it| in_endpoints(it) == [9001, 9002]).await;

    fixture.quit("a").await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 9002)]).await;
    fixture.publishes("the other one stays in Endpoints", |it| in_endpoints(it) == [9002]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_instances_claim_is_published_once_while_either_lives() {
    let fixture = Fixture::new("twins", json!({})).await;
    fixture.join("a", "192.0.2.1").await;
    fixture.join("b", "192.0.2.1").await;
    fixture.status("a", "Ready", "Beating").await;
    fixture.status("b", "Ready", "Beating").await;
    fixture.publishes_ports(&[("192.0.2.1", "grpc", 8080)]).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;

    fixture.quit("a").await;
    fixture.counts(1).await;
    fixture.join("a", "192.0.2.1").await;
    fixture.counts(2).await;
    fixture.quit("b").await;
    fixture.counts(1).await;
    observer.sees(&set(&["192.0.2.1"])).await;
    observer.never_missed(&set(&["192.0.2.1"]));

    // The instance that can serve decides for both.
    fixture.join("b", "192.0.2.1").await;
    fixture.beats.annotate("a", "beatkeeper.dev/health", Some("Failing")).await;
    fixture.status("a", "NotReady", "HealthFailing").await;
    fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
    fixture.quit("b").await;
    fixture
        .publishes("no instance is ready", |published| {
            published.conditions()["192.0.2.1"] == (false, false, false)
                && published.in_endpoints().is_empty()
                && published.not_ready_in_endpoints() == set(&["192.0.2.1"])
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pods_on_one_address_the_other_takes_over_when_one_leaves() {
    let fixture = Fixture::new("host-network", json!({})).await;
    let first = fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    let second = fixture.join_pod("greeter-2", &["10.88.0.1"], json!({})).await;
    fixture.status("greeter-2", "Ready", "Beating").await;
    let published = fixture.publishes_ports(&[("10.88.0.1", "grpc", 8080)]).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;
    let target = |published: &crate::support::Published| {
        published.slices[0].endpoints[0].target_ref.clone().unwrap().uid.unwrap()
    };
    assert_eq!(target(&published), first);

    fixture.quit("greeter-1").await;
    fixture.publishes("the other Pod is published", |now| target(now) == second).await;
    observer.sees(&set(&["10.88.0.1"])).await;
    observer.never_missed(&set(&["10.88.0.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_takes_its_address_from_an_outside_instance_that_claims_it() {
    let fixture = Fixture::new("pod-first", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.published_as_ready("greeter", &["192.0.2.1"]).await;

    let uid = fixture.join_pod("greeter-1", &["192.0.2.1"], json!({})).await;
    let rejected = fixture.status("vm-1", "Rejected", "AddressRefused").await;
    assert!(rejected.message.contains("Pod"), "{}", rejected.message);
    let published = fixture
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
    let fixture = Fixture::new("two-services", json!({})).await;
    fixture.add_registration("other", json!({})).await;
    let uid = fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let others = fixture.ns.beats("other");
    others.create(&others.in_pod("greeter-1", &uid)).await;
    fixture.join("vm-1", "192.0.2.1").await;
    others.create(&others.outside("vm-1", "192.0.2.1")).await;

    for service in ["greeter", "other"] {
        fixture.published_as_ready(service, &["10.88.0.1", "192.0.2.1"]).await;
    }
    let observer = ServiceObserver::of(&fixture, "other").await;
    fixture.quit("vm-1").await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    fixture.quit("greeter-1").await;
    fixture.published_as_ready("greeter", &[]).await;
    observer.sees(&set(&["10.88.0.1", "192.0.2.1"])).await;
    observer.never_missed(&set(&["10.88.0.1", "192.0.2.1"]));
    assert_eq!(observer.states(), (1, 1), "what the other one does is no write here");
}

#[tokio::test(flavor = "multi_thread")]
async fn deregistering_one_leaves_its_siblings_where_they_are() {
    let fixture = Fixture::new("siblings", json!({})).await;
    for n in 1..=4 {
        fixture.join(&format!("vm-{n}"), &format!("192.0.2.{n}")).await;
    }
    fixture
        .published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"])
        .await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;
    // Names with a common prefix are different instances.
    fixture.join("vm", "192.0.2.100").await;
    fixture.join("vm-1.old", "192.0.2.101").await;
    fixture.counts(6).await;
    fixture.quit("vm").await;
    fixture.quit("vm-1.old").await;
    fixture.quit("vm-2").await;
    let left = ["192.0.2.1", "192.0.2.3", "192.0.2.4"];
    fixture.published_as_ready("greeter", &left).await;
    observer.sees(&set(&left)).await;
    observer.never_missed(&set(&left));
    fixture.counts(3).await;
}
