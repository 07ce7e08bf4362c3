//! Adoption of endpoints that people wrote by hand: without a gap, only with their consent, and all
//! or nothing.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::{
    AdoptedInstance, ServiceRegistration, registration::ADOPT_ANNOTATION,
    registration::DRY_RUN_ANNOTATION,
};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{ServiceObserver, TestNamespace, eventually, observer::set};

mod crashes;
mod refusals;

const INTERVAL: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(800);
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

impl TestNamespace {
    /// Creates hand-written Endpoints, and waits for the mirror that the cluster makes of them.
    async fn hand_written(&self, addresses: &[&str]) {
        self.hand_written_with_port(addresses, "grpc").await;
    }

    /// Like [`Self::hand_written`], with a port of this name. Waits for the mirror, because the
    /// cluster may create it late.
    async fn hand_written_with_port(&self, addresses: &[&str], port: &str) {
        self.service("greeter", json!({})).await;
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        self.create::<Endpoints>(json!({
            "metadata": { "name": "greeter" },
            "subsets": [{ "addresses": ips, "ports": [{ "name": port, "port": 9001 }] }],
        }))
        .await;
        eventually("the Endpoints are mirrored", async || {
            let slices = self.published("greeter").await.slices;
            let mirrored: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
            (mirrored == addresses.len()).then_some(())
        })
        .await;
    }

    /// Creates a hand-written slice. It has no conditions, because people usually leave them out.
    async fn hand_written_slice(&self, name: &str, addresses: &[&str], port: u16) -> EndpointSlice {
        let endpoints: Vec<Value> =
            addresses.iter().map(|ip| json!({ "addresses": [ip] })).collect();
        self.create(json!({
            "metadata": { "name": name, "labels": {
                "kubernetes.io/service-name": "greeter", MANAGED_BY: "staff",
            }},
            "addressType": "IPv4",
            "ports": [{ "name": "grpc", "port": port, "protocol": "TCP" }],
            "endpoints": endpoints,
        }))
        .await
    }

    /// The names of the slices with their managers.
    async fn managers(&self) -> BTreeMap<String, String> {
        let slices = self.published("greeter").await.slices;
        slices.iter().map(|slice| (slice.name_any(), slice.labels()[MANAGED_BY].clone())).collect()
    }

    /// Waits until Beatkeeper manages everything of the Service, and the status says so.
    async fn all_ours(&self) {
        eventually("all slices are Beatkeeper's", async || {
            self.managers().await.values().all(|manager| manager == "beatkeeper.dev").then_some(())
        })
        .await;
        self.condition("greeter", "Ready", "True", "Published").await;
        let endpoints = self.published("greeter").await.endpoints.unwrap();
        assert_eq!(endpoints.labels()["endpoints.kubernetes.io/managed-by"], "beatkeeper.dev");
        assert!(endpoints.annotations()["beatkeeper.dev/owned-by"].contains(":greeter/"));
    }

    async fn adopted(&self) -> Vec<AdoptedInstance> {
        self.registration("greeter").await.status.map(|it| it.adopted).unwrap_or_default()
    }

    /// Waits until the status lists exactly these addresses as adopted.
    async fn remembers(&self, addresses: &[&str]) {
        eventually(&format!("{addresses:?} are remembered"), async || {
            let adopted = self.adopted().await;
            let known: Vec<&str> = adopted.iter().map(|it| it.address.as_str()).collect();
            (known == addresses).then_some(())
        })
        .await;
    }

    /// Waits for an event with this reason, whose note begins with this text.
    async fn event_tells(&self, reason: &str, note: &str) {
        let events: Api<k8s_openapi::api::events::v1::Event> = self.api();
        eventually(&format!("an event {reason} tells {note:?}"), async || {
            let events = events.list(&kube::api::ListParams::default()).await.unwrap();
            let told = events.items.into_iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.note.is_some_and(|text| text.starts_with(note))
            });
            told.then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_written_endpoints_are_taken_over_without_a_gap_and_wait_for_their_first_beat() {
    let ns = TestNamespace::new("adopt").await;
    ns.hand_written(&["192.0.2.1", "192.0.2.2"]).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    let _operator = ns.operator();
    let mut spec = TestNamespace::usual_spec();
    let ports = json!([{ "name": "grpc", "port": 9001 }]);
    spec["instances"] = json!([{ "name": "vm-1", "addresses": ["192.0.2.1"], "ports": ports }]);
    ns.register("greeter", spec).await;
    // Without consent the operator only reports how to consent (P6).
    let message = ns.condition("greeter", "Stalled", "True", "ServedByOthers").await;
    assert!(message.contains("annotate the registration with beatkeeper.dev/adopt=true"));
    let mark = ns.settled(QUIET).await;
    ns.nothing_but_told(mark).await;

    ns.annotate(ADOPT_ANNOTATION, Some("true")).await;
    ns.all_ours().await;
    let both = set(&["192.0.2.1", "192.0.2.2"]);
    let published = ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let ports: Vec<i32> = published.address_ports().into_iter().map(|(.., port)| port).collect();
    assert_eq!(ports, [9001, 9001], "as they were written by hand");
    let told = ns.instance("greeter", "adopted/192.0.2.1", "Ready", "Adopted").await;
    assert_eq!(
        told.message,
        "taken over from Endpoints greeter; stays until it beats for the first time, or is removed \
         from annotation beatkeeper.dev/adopt"
    );
    // An adopted instance that has never beaten is not pruned for its silence, and it costs no
    // writes.
    let mark = ns.settled(Duration::from_secs(4)).await;
    assert_eq!(ns.written_since(mark).await, []);
    observer.always_saw(&both);

    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.instance("greeter", "vm-1", "Ready", "Beating").await;
    ns.remembers(&["192.0.2.2"]).await;
    observer.always_saw(&both);
    beats.die("vm-1");
    observer.sees(&set(&["192.0.2.2"])).await;
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
    // The first beat of an instance replaces the hand-written port without a gap.
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    ns.remembers(&[]).await;
    eventually("only the port of the beat is left", async || {
        let published = ns.published("greeter").await.address_ports();
        (published == [("192.0.2.2".to_owned(), "grpc".to_owned(), 8080)].into()).then_some(())
    })
    .await;
    observer.always_saw(&set(&["192.0.2.2"]));
    ns.event_tells(
        "InstanceReady",
        "adopted/192.0.2.1, adopted/192.0.2.2: taken over from Endpoints greeter",
    )
    .await;
    ns.event_tells("AdoptionEnded", "adopted/192.0.2.1: it beats by itself now").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_written_slices_are_taken_over_in_place() {
    let ns = TestNamespace::new("adopt-slices").await;
    ns.service("greeter", json!({})).await;
    let first = ns.hand_written_slice("a-hand", &["192.0.2.1", "192.0.2.2"], 8080).await;
    let second = ns.hand_written_slice("b-hand", &["192.0.2.3"], 9002).await;
    // The Endpoints object is created empty, so that the observer has a state to see.
    ns.create::<Endpoints>(json!({ "metadata": { "name": "greeter" } })).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    let _operator = ns.operator();
    ns.annotated_greeter(ADOPT_ANNOTATION, "192.0.2.1, 192.0.2.2,192.0.2.3").await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let all = set(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    let published =
        ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    observer.sees(&all).await;
    let uids: Vec<_> = published.slices.iter().map(ResourceExt::uid).collect();
    assert_eq!(uids, [first.uid(), second.uid()]);
    ns.all_ours().await;
    ns.remembers(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;

    // An instance that is removed from the list leaves at once.
    ns.annotate(ADOPT_ANNOTATION, Some("192.0.2.1,192.0.2.3")).await;
    observer.sees(&set(&["192.0.2.1", "192.0.2.3"])).await;
    ns.remembers(&["192.0.2.1", "192.0.2.3"]).await;
    // A typing error in the annotation removes no instance.
    ns.annotate(ADOPT_ANNOTATION, Some("192.0.2.1,192.0.2.three")).await;
    ns.condition("greeter", "Stalled", "True", "InvalidSpec").await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    // Without the annotation only the instances that beat stay.
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.remembers(&["192.0.2.3"]).await;
    ns.annotate(ADOPT_ANNOTATION, None).await;
    observer.sees(&set(&["192.0.2.1"])).await;
    ns.remembers(&[]).await;
    observer.always_in_slices(&set(&["192.0.2.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_adopted_instances_that_have_not_beaten_and_revives_none_that_have() {
    let ns = TestNamespace::new("adopt-restart").await;
    ns.hand_written(&["192.0.2.1", "192.0.2.2"]).await;
    let operator = ns.operator();
    ns.annotated_greeter(ADOPT_ANNOTATION, "true").await;
    ns.all_ours().await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    operator.kill();
    // The first and only beat comes while no operator runs.
    let beats = ns.beats("greeter");
    beats.create(&beats.outside("vm-1", "192.0.2.1")).await;
    let _operator = ns.operator();
    ns.instance("greeter", "vm-1", "Ready", "Beating").await;
    observer.sees(&set(&["192.0.2.2"])).await;
    ns.remembers(&["192.0.2.2"]).await;
    observer.always_saw(&set(&["192.0.2.2"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_would_be_taken_over_and_takes_nothing() {
    let ns = TestNamespace::new("adopt-dry").await;
    ns.hand_written(&["192.0.2.1", "192.0.2.2"]).await;
    ns.hand_written_slice("a-hand", &["192.0.2.3"], 9001).await;
    let before = ns.published("greeter").await;
    let _operator = ns.operator();
    let mark = ns.plane.audit_mark().await.unwrap();
    ns.create::<ServiceRegistration>(json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": "greeter", "annotations": {
            ADOPT_ANNOTATION: "true", DRY_RUN_ANNOTATION: "true",
        }},
        "spec": TestNamespace::usual_spec(),
    }))
    .await;
    let message = ns.condition("greeter", "Ready", "True", "DryRun").await;
    assert_eq!(
        message,
        "dry run: 3 of 3 instances would be ready; would take over slice a-hand, take over endpoints \
         greeter, update slice a-hand: +2 ~1; nothing is published or removed"
    );
    ns.instance("greeter", "adopted/192.0.2.3", "Ready", "Adopted").await;
    ns.settled(QUIET).await;
    ns.nothing_but_told(mark).await;
    let after = ns.published("greeter").await;
    assert_eq!((after.slices, after.endpoints), (before.slices, before.endpoints));
    assert_eq!(ns.adopted().await, []);
    let observer = ServiceObserver::of(&ns, "greeter").await;
    ns.annotate(DRY_RUN_ANNOTATION, None).await;
    ns.all_ours().await;
    observer.always_in_slices(&set(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_written_by_hand_beside_ours_is_taken_over_too() {
    let ns = TestNamespace::new("adopt-later").await;
    let _operator = ns.operator();
    ns.annotated_greeter(ADOPT_ANNOTATION, "true").await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    ns.hand_written_slice("a-hand", &["192.0.2.1", "192.0.2.2"], 8080).await;
    ns.all_ours().await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    ns.remembers(&["192.0.2.2"]).await;
    observer.never_missed(&set(&["192.0.2.1"]));
    let services: Api<Service> = ns.api();
    let service = services.get("greeter").await.unwrap();
    assert!(service.annotations()["beatkeeper.dev/owned-by"].contains(":greeter/"));
    // An invalid edit of the status costs an instance at most its entry in `status.adopted`.
    let garbage =
        json!({ "status": { "adopted": [{ "name": "x", "address": "?", "from": "?" }] } });
    let registrations: Api<ServiceRegistration> = ns.api();
    let params = PatchParams::default();
    registrations.patch_status("greeter", &params, &Patch::Merge(garbage)).await.unwrap();
    beats.die("vm-1");
    ns.published_as_ready("greeter", &[]).await;
}
