//! The contents of slices and Endpoints.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Value, json};

use crate::support::{Fixture, ServiceObserver, eventually, observer::set};

fn json_of(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Checks the annotations of an object: its owner, and the time of the change.
fn marked_and_timed(metadata: &ObjectMeta, owner: &str) {
    let annotations = metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations.len(), 2, "{annotations:?}");
    assert_eq!(annotations["beatkeeper.dev/owned-by"], owner);
    let time = &annotations["endpoints.kubernetes.io/last-change-trigger-time"];
    time.parse::<jiff::Timestamp>().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_is_one_endpoint_with_everything_that_consumers_look_for() {
    let fixture = Fixture::new(
        "one",
        json!({ "ports": [
            { "name": "grpc", "port": 80, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c" },
        ]}),
    )
    .await;
    fixture.join("vm-1", "192.0.2.1").await;

    let published = fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
    let registration = fixture.registration("greeter").await.metadata;
    let owner = format!("{}:greeter/{}", fixture.name, registration.uid.unwrap());
    let port = json!([
        { "name": "grpc", "port": 8080, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c" }
    ]);
    let [slice] = published.slices.as_slice() else { panic!("{:?}", published.slices) };
    assert_eq!(slice.address_type, "IPv4");
    assert_eq!(json_of(&slice.ports), port);
    assert_eq!(
        json_of(&slice.endpoints),
        json!([{
            "addresses": ["192.0.2.1"],
            "conditions": { "ready": true, "serving": true, "terminating": false },
        }])
    );
    assert_eq!(
        json_of(&slice.metadata.labels),
        json!({
            "kubernetes.io/service-name": "greeter",
            "endpointslice.kubernetes.io/managed-by": "beatkeeper.dev",
        })
    );
    assert_eq!(slice.metadata.owner_references, None, "the garbage collector would follow one");
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("greeter-"));

    let endpoints = published.endpoints.unwrap();
    assert_eq!(
        json_of(&endpoints.subsets),
        json!([{ "addresses": [{ "ip": "192.0.2.1" }], "ports": port }])
    );
    assert_eq!(
        json_of(&endpoints.metadata.labels),
        json!({
            "endpointslice.kubernetes.io/skip-mirror": "true",
            "endpoints.kubernetes.io/managed-by": "beatkeeper.dev",
        })
    );
    assert_eq!(endpoints.metadata.owner_references, None);
    marked_and_timed(&slice.metadata, &owner);
    marked_and_timed(&endpoints.metadata, &owner);

    let service: Service = fixture.api().get("greeter").await.unwrap();
    assert_eq!(service.metadata.owner_references, None);
    let annotations = json!({ "beatkeeper.dev/owned-by": format!("{owner}/greeter") });
    assert_eq!(json_of(&service.metadata.annotations), annotations);
    assert_eq!(
        json_of(&service.spec.unwrap().ports),
        json!([{
            "name": "grpc", "port": 80, "targetPort": 8080, "protocol": "TCP",
            "appProtocol": "kubernetes.io/h2c",
        }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_listens_elsewhere_gets_a_slice_with_its_own_ports() {
    let fixture = Fixture::new(
        "ports",
        json!({
            "ports": [
                { "name": "grpc", "port": 80, "targetPort": 8080 },
                { "name": "metrics", "port": 90, "targetPort": 9090 },
            ],
            "instances": [
                { "name": "vm-1", "addresses": ["192.0.2.1"], "zone": "eu-1a" },
                { "name": "vm-2", "addresses": ["192.0.2.2"],
                  "ports": [{ "name": "grpc", "port": 9001 }] },
                { "name": "vm-3", "addresses": ["192.0.2.3"], "zone": "eu-1b" },
            ],
        }),
    )
    .await;
    for instance in ["vm-1", "vm-2", "vm-3"] {
        // The address in the Lease of a declared instance does not count.
        fixture.join(instance, "198.51.100.9").await;
    }

    let published = fixture
        .publishes_ports(&[
            ("192.0.2.1", "grpc", 8080),
            ("192.0.2.1", "metrics", 9090),
            ("192.0.2.2", "grpc", 9001),
            ("192.0.2.2", "metrics", 9090),
            ("192.0.2.3", "grpc", 8080),
            ("192.0.2.3", "metrics", 9090),
        ])
        .await;
    assert_eq!(published.slices.len(), 2);
    let zones: BTreeSet<_> = published
        .slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .map(|endpoint| (endpoint.addresses[0].as_str(), endpoint.zone.as_deref()))
        .collect();
    assert_eq!(
        zones,
        [("192.0.2.1", Some("eu-1a")), ("192.0.2.2", None), ("192.0.2.3", Some("eu-1b"))].into()
    );
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;

    fixture.quit("vm-2").await;
    let published = fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    assert_eq!(published.slices.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_target_port_for_all_unpublishes_no_instance() {
    let fixture = Fixture::new("target-port", json!({})).await;
    let instances = (1..=120).map(|n| (format!("vm-{n}"), format!("192.0.2.{n}")));
    let all: BTreeSet<String> = instances.clone().map(|(_, address)| address).collect();
    fixture.join_all(instances).await;
    fixture.publishes("all are there", |published| published.in_endpoints() == all).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;

    let patch = json!({ "spec": {
        "ports": [{ "name": "grpc", "port": 80, "targetPort": 9090 }],
    }});
    fixture.patch::<beatkeeper_api::ServiceRegistration>("greeter", patch).await;

    let wanted: BTreeSet<_> =
        all.iter().map(|address| (address.clone(), "grpc".to_owned(), 9090)).collect();
    fixture
        .publishes("all listen elsewhere", |published| {
            published.address_ports() == wanted
                && json_of(&published.endpoints.as_ref().unwrap().subsets)[0]["ports"][0]["port"]
                    == 9090
        })
        .await;
    observer.sees(&all).await;
    observer.never_missed(&all);
    let service: Service = fixture.api().get("greeter").await.unwrap();
    assert_eq!(json_of(&service.spec.unwrap().ports)[0]["targetPort"], 9090);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_move_to_another_slice_are_there_before_they_leave_the_old_one() {
    let declared = |moved: fn(usize) -> bool| -> Vec<Value> {
        let ports =
            |n| if moved(n) { json!([{ "name": "grpc", "port": 9001 }]) } else { json!([]) };
        (1..=150)
            .map(|n| {
                json!({
                    "name": format!("vm-{n}"), "addresses": [format!("192.0.2.{n}")],
                    "ports": ports(n),
                })
            })
            .collect()
    };
    let fixture = Fixture::new(
        "moves",
        json!({
            "ports": [
                { "name": "grpc", "port": 80, "targetPort": 8080 },
                { "name": "metrics", "port": 90, "targetPort": 9090 },
            ],
            "instances": declared(|_| false),
        }),
    )
    .await;
    fixture.join_all((1..=150).map(|n| (format!("vm-{n}"), String::new()))).await;
    let all: BTreeSet<String> = (1..=150).map(|n| format!("192.0.2.{n}")).collect();
    fixture.publishes("all are there", |published| published.in_endpoints() == all).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;

    // The unchanged port must be reachable all the time.
    let moves: [fn(usize) -> bool; 3] = [|n| n % 2 == 0, |n| n % 3 == 0, |n| n < 100];
    for moved in moves {
        let patch = json!({ "spec": { "instances": declared(moved) } });
        fixture.patch::<beatkeeper_api::ServiceRegistration>("greeter", patch).await;
        let wanted = (1..=150)
            .flat_map(|n| {
                let grpc = if moved(n) { 9001 } else { 8080 };
                [("grpc", grpc), ("metrics", 9090)]
                    .map(|(name, port)| (format!("192.0.2.{n}"), name.to_owned(), port))
            })
            .collect();
        fixture
            .publishes("the ports are as declared", |published| {
                let sizes = published.slices.iter().map(|slice| slice.endpoints.len());
                // While endpoints move, they exist twice.
                sizes.sum::<usize>() == all.len() && published.address_ports() == wanted
            })
            .await;
        observer.sees(&all).await;
    }
    observer.never_missed(&all);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_63_characters_can_be_published() {
    let long = |prefix: &str| format!("{prefix}{}", "x".repeat(63 - prefix.len()));
    let (registration, service, port) = (long("registration-"), long("service-"), long("port-"));
    let fixture = Fixture::new("long-names", json!({})).await;
    fixture
        .add_registration(
            &registration,
            json!({
                "serviceName": service,
                "ports": [
                    { "name": port, "port": 80, "targetPort": 8080 },
                    { "name": "short", "port": 81, "targetPort": 8081 },
                ],
            }),
        )
        .await;
    let beats = fixture.ns.beats(&registration);
    let instance = "i".repeat(189);
    beats.create(&beats.outside(&instance, "192.0.2.1")).await;

    let published = fixture.published_as_ready(&service, &["192.0.2.1"]).await;
    assert_eq!(
        published.address_ports(),
        [("192.0.2.1".to_owned(), port, 8080), ("192.0.2.1".to_owned(), "short".to_owned(), 8081)]
            .into()
    );
    fixture.instance(&registration, &instance, "Ready", "Beating").await;

    // The name of a slice is shortened to make room for its unique part.
    let more = (2..=102).map(|n| (format!("vm-{n}"), format!("192.0.2.{n}")));
    for (instance, address) in more {
        beats.create(&beats.outside(&instance, &address)).await;
    }
    let addresses: Vec<String> = (1..=102).map(|n| format!("192.0.2.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let published = fixture.published_as_ready(&service, &addresses).await;
    assert_eq!(published.slices.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_where_only_the_trigger_time_would_change() {
    const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
    let fixture = Fixture::new("trigger-time", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    let before = fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
    let name = before.slices[0].metadata.name.clone().unwrap();

    // A note changes the status, so the status shows that a reconcile has happened.
    fixture.beats.annotate("vm-1", "beatkeeper.dev/note", Some("disk 91 %")).await;
    told(&fixture, "disk 91 %").await;
    assert_eq!(fixture.published("greeter").await.slices, before.slices);
    assert_eq!(fixture.published("greeter").await.endpoints, before.endpoints);

    // The annotation is not repaired when it is removed.
    let removed = json!({ "metadata": { "annotations": { TRIGGER_TIME: null } } });
    let slice: k8s_openapi::api::discovery::v1::EndpointSlice =
        fixture.patch(&name, removed.clone()).await;
    let endpoints: k8s_openapi::api::core::v1::Endpoints = fixture.patch("greeter", removed).await;
    fixture.beats.annotate("vm-1", "beatkeeper.dev/note", Some("disk 92 %")).await;
    told(&fixture, "disk 92 %").await;
    assert_eq!(fixture.published("greeter").await.slices, [slice]);
    assert_eq!(fixture.published("greeter").await.endpoints, Some(endpoints));

    // A change writes the annotation, with a later time than before.
    fixture.join("vm-2", "192.0.2.2").await;
    let after = fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let time = |slice: &k8s_openapi::api::discovery::v1::EndpointSlice| {
        slice.metadata.annotations.as_ref().unwrap()[TRIGGER_TIME]
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert!(time(&after.slices[0]) > time(&before.slices[0]));
    assert_eq!(after.slices.len(), 1);
    assert_eq!(after.ready(), set(&["192.0.2.1", "192.0.2.2"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_operator_writes_nothing_and_unpublishes_no_instance() {
    let fixture = Fixture::new("restart", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let before = fixture.published_as_ready("greeter", &["192.0.2.1", "10.88.0.1"]).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;
    let Fixture { ns, operator, beats } = fixture;
    assert!(operator.stop().await, "it ends well");

    let _operator = ns.operator();
    // A new instance shows that the new operator works. It may have existed before that operator.
    beats.create(&beats.outside("vm-2", "192.0.2.2")).await;
    let all = set(&["192.0.2.1", "192.0.2.2", "10.88.0.1"]);
    let after = eventually("the newcomer is published", async || {
        beats.beat_at("vm-2", jiff::Timestamp::now()).await;
        let published = ns.published("greeter").await;
        (published.ready() == all && published.in_endpoints() == all).then_some(published)
    })
    .await;
    assert_eq!(after.slices[0].metadata.uid, before.slices[0].metadata.uid);
    observer.sees(&all).await;
    observer.never_missed(&set(&["192.0.2.1", "10.88.0.1"]));
    assert_eq!(observer.states(), (2, 2), "the newcomer was the only change");
}

async fn told(fixture: &Fixture, note: &str) {
    eventually("the note is in the status", async || {
        let status = fixture.status("vm-1", "Ready", "Beating").await;
        (status.message == note).then_some(())
    })
    .await;
}
