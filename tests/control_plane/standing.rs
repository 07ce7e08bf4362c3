//! Beatkeeper never takes over what it did not create (P6). Foreign objects stall the registration.
//! A stall stops additions but not removals.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(800);

impl TestNamespace {
    /// A Service created by a person, with the port grpc and the given spec.
    async fn own_service(&self, spec: Value) -> Service {
        let mut full = json!({ "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }] });
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.create(json!({ "metadata": { "name": "greeter" }, "spec": full })).await
    }

    /// The resource versions of the slices and the Endpoints of the Service.
    async fn versions(&self) -> BTreeMap<String, String> {
        let published = self.published("greeter").await;
        let slices = published.slices.iter().map(|s| (s.name_any(), s.resource_version().unwrap()));
        let endpoints = published.endpoints.iter();
        let endpoints = endpoints.map(|e| ("Endpoints".to_owned(), e.resource_version().unwrap()));
        slices.chain(endpoints).collect()
    }

    /// Waits until the registration is stalled for a reason. Checks that nothing but status and
    /// events is written meanwhile and afterwards.
    async fn stalled_and_idle(&self, reason: &str) -> String {
        let mark = self.plane.audit_mark().await.unwrap();
        self.greeter().await;
        let mut beats = self.beats("greeter");
        beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
        let message = self.condition("greeter", "Stalled", "True", reason).await;
        assert_eq!(self.condition("greeter", "Ready", "False", reason).await, message);
        self.settled(QUIET).await;
        let written = self.written_since(mark).await;
        let told = ["serviceregistrations", "events"];
        let others: Vec<_> =
            written.iter().filter(|entry| !told.contains(&entry.resource.as_str())).collect();
        assert!(others.is_empty(), "{others:?}");
        message
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_selector_stays_the_clusters() {
    let ns = TestNamespace::new("selector").await;
    let _operator = ns.operator();
    ns.own_service(json!({ "selector": { "app": "greeter" } })).await;
    ns.pod("greeter-1", &["10.88.0.7"], json!({})).await;
    // The address is only in Endpoints, because slices leave out a Pod whose Node is unknown.
    let cluster = eventually("the cluster publishes its Pod", async || {
        let published = ns.published("greeter").await;
        let there = published.in_endpoints().len() == 1 && published.slices.len() == 1;
        if there { Some(ns.versions().await) } else { None }
    })
    .await;
    let message = ns.stalled_and_idle("ServiceHasSelector").await;
    assert_eq!(
        message,
        "Service greeter has a selector, so the cluster publishes its endpoints by itself; once its Pods \
         beat, remove spec.selector of the Service and what it published is taken over, or name another \
         Service"
    );
    assert_eq!(ns.versions().await, cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_slices_of_another_writer_stalls_until_they_are_gone() {
    let ns = TestNamespace::new("foreign").await;
    let _operator = ns.operator();
    ns.own_service(json!({})).await;
    ns.create::<EndpointSlice>(json!({
        "metadata": {
            "name": "by-hand",
            "labels": {
                "kubernetes.io/service-name": "greeter",
                "endpointslice.kubernetes.io/managed-by": "ops",
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "grpc", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["198.51.100.9"], "conditions": { "ready": true } }],
    }))
    .await;
    let before = ns.versions().await;
    let message = ns.stalled_and_idle("ServedByOthers").await;
    assert_eq!(
        message,
        "EndpointSlice by-hand of Service greeter is managed by ops; delete it and what makes it \
         (for mirrored slices: the Endpoints object greeter), or name another Service, or, if \
         people wrote it, have it taken over: annotate the registration with \
         beatkeeper.dev/adopt=true"
    );
    assert_eq!(ns.versions().await, before);

    let slices: Api<EndpointSlice> = ns.api();
    slices.delete("by-hand", &DeleteParams::default()).await.unwrap();
    ns.condition("greeter", "Ready", "True", "Published").await;
    let status = ns.registration("greeter").await.status.unwrap();
    assert!(status.conditions.iter().all(|known| known.type_ != "Stalled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_written_endpoints_that_are_mirrored_are_left_alone() {
    let ns = TestNamespace::new("mirrored").await;
    let _operator = ns.operator();
    ns.own_service(json!({})).await;
    ns.create::<Endpoints>(json!({
        "metadata": { "name": "greeter" },
        "subsets": [{
            "addresses": [{ "ip": "198.51.100.9" }],
            "ports": [{ "name": "grpc", "port": 8080 }],
        }],
    }))
    .await;
    let before = eventually("the Endpoints are mirrored", async || {
        let published = ns.published("greeter").await;
        let mirrored = published.slices.iter().any(|slice| slice.endpoints.len() == 1);
        if mirrored { Some(ns.versions().await) } else { None }
    })
    .await;
    let message = ns.stalled_and_idle("ServedByOthers").await;
    assert!(message.contains("endpointslicemirroring-controller.k8s.io"), "{message}");
    assert_eq!(ns.versions().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_name_has_no_endpoints() {
    let ns = TestNamespace::new("external").await;
    let _operator = ns.operator();
    ns.own_service(json!({ "type": "ExternalName", "externalName": "greeter.example" })).await;
    let message = ns.stalled_and_idle("ServiceIsExternalName").await;
    assert_eq!(
        message,
        "Service greeter is of type ExternalName, which has no endpoints; name another Service"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_the_service_does_not_have_are_told_by_name() {
    let ns = TestNamespace::new("ports").await;
    let _operator = ns.operator();
    ns.own_service(json!({ "ports": [{ "name": "http", "port": 80 }] })).await;
    let message = ns.stalled_and_idle("PortsMismatch").await;
    assert_eq!(
        message,
        "none of spec.ports is a port of Service greeter, which has [\"http\"]; ports are matched \
         by name: rename them on one side"
    );
    let renamed = json!({ "spec": { "ports": [{ "name": "grpc", "port": 80 }] } });
    ns.patch::<Service>("greeter", renamed).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_registrations_for_a_service_the_younger_waits_and_takes_over() {
    let ns = TestNamespace::new("two").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut elder = ns.beats("greeter");
    elder.start(&elder.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let mut spec = TestNamespace::usual_spec();
    spec["serviceName"] = json!("greeter");
    ns.register("hello", spec).await;
    let mut younger = ns.beats("hello");
    younger.start(&younger.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    let message = ns.condition("hello", "Stalled", "True", "ServiceTaken").await;
    assert_eq!(
        message,
        "Service greeter is published by the older ServiceRegistration greeter; declare the \
         instances there, or name another Service"
    );
    let mark = ns.settled(QUIET).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert_eq!(ns.written_since(mark).await, []);

    let registrations: Api<ServiceRegistration> = ns.api();
    registrations.delete("greeter", &DeleteParams::default()).await.unwrap();
    ns.condition("hello", "Ready", "True", "Published").await;
    ns.published_as_ready("greeter", &["192.0.2.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_added_later_stops_additions_but_not_deaths() {
    let ns = TestNamespace::new("later").await;
    let _operator = ns.operator();
    ns.own_service(json!({})).await;
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    let observer = ns.observe("greeter").await;

    let selector = json!({ "spec": { "selector": { "app": "nobody" } } });
    ns.patch::<Service>("greeter", selector).await;
    ns.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    ns.instance("greeter", "vm-3", "Waiting", "NotPublished").await;
    beats.die("vm-1");
    observer.leaves("192.0.2.1").await.unwrap();
    let ready = ns.published("greeter").await.ready();
    assert_eq!(ready.into_iter().collect::<Vec<_>>(), ["192.0.2.2"]);
    assert_eq!(observer.left(), ["192.0.2.1"]);

    ns.patch::<Service>("greeter", json!({ "spec": { "selector": null } })).await;
    // The cluster leaves its slice behind. The slice blocks the registration until it is removed.
    ns.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    let slices: Api<EndpointSlice> = ns.api();
    let clusters = "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io";
    let clusters = ListParams::default().labels(clusters);
    slices.delete_collection(&DeleteParams::default(), &clusters).await.unwrap();
    ns.condition("greeter", "Ready", "True", "Published").await;
    ns.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;
    assert_eq!(observer.left(), ["192.0.2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_registration_goes_what_it_made_and_nothing_else() {
    let ns = TestNamespace::new("deleted").await;
    let _operator = ns.operator();
    ns.own_service(json!({})).await;
    let usual = TestNamespace::usual_spec();
    for name in ["greeter", "hello"] {
        ns.register(name, usual.clone()).await;
        let mut beats = ns.beats(name);
        beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
        ns.published_as_ready(name, &["192.0.2.1"]).await;
    }
    let registrations: Api<ServiceRegistration> = ns.api();
    for name in ["greeter", "hello"] {
        registrations.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for name in ["greeter", "hello"] {
        eventually(&format!("what was published for {name} is gone"), async || {
            let published = ns.published(name).await;
            (published.slices.is_empty() && published.endpoints.is_none()).then_some(())
        })
        .await;
    }
    let services: Api<Service> = ns.api();
    eventually("the Service that was made is gone", async || {
        services.get_opt("hello").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(services.get_opt("greeter").await.unwrap().is_some(), "a person made that one");
}
