//! A dry run decides and reports everything, and does nothing.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, registration::DRY_RUN_ANNOTATION};
use beatkeeper_cluster::AuditMark;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service};
use serde_json::{Value, json};

use crate::support::{ServiceObserver, TestNamespace, eventually, observer::set};

const INTERVAL: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(800);

impl TestNamespace {
    /// Sets or removes an annotation of the registration greeter.
    pub async fn annotate(&self, annotation: &str, value: Option<&str>) {
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        self.patch::<ServiceRegistration>("greeter", patch).await;
    }

    /// Creates the usual registration with an annotation from the start.
    pub async fn annotated_greeter(&self, annotation: &str, value: &str) {
        self.create::<ServiceRegistration>(json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "name": "greeter", "annotations": { annotation: value } },
            "spec": TestNamespace::usual_spec(),
        }))
        .await;
    }

    /// Panics if the operator has written anything but statuses and events since a mark.
    pub async fn nothing_but_told(&self, mark: AuditMark) {
        let mut written = self.written_since(mark).await;
        let told = ["serviceregistrations", "events"];
        written.retain(|entry| !told.contains(&entry.resource.as_str()));
        assert!(written.is_empty(), "{written:?}");
    }

    async fn counts(&self, ready: i32, expired: i32) {
        eventually(&format!("{ready} ready and {expired} expired are counted"), async || {
            let status = self.registration("greeter").await.status?;
            ((status.ready, status.expired) == (ready, expired)).then_some(())
        })
        .await;
    }

    /// Waits until the dry run reports this text, and returns the whole message.
    async fn dry_run_tells(&self, text: &str) -> String {
        eventually(&format!("the dry run tells {text:?}"), async || {
            let message = self.condition("greeter", "Ready", "True", "DryRun").await;
            message.contains(text).then_some(message)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_in_a_dry_run_tells_everything_and_writes_nothing_else() {
    let ns = TestNamespace::new("dry-flag").await;
    let mark = ns.plane.audit_mark().await.unwrap();
    let operator = ns.operator_with(&["--dry-run"]);
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    ns.counts(2, 0).await;
    let message = ns.dry_run_tells("2 of 2").await;
    assert_eq!(
        message,
        "dry run: 2 of 2 instances would be ready; would create service greeter, create slice \
         greeter-*: +2, create endpoints greeter; nothing is published or removed"
    );
    let available = ns.condition("greeter", "Available", "Unknown", "DryRun").await;
    assert_eq!(available, "dry run: 2 instances would be ready; nothing is published");
    beats.die("vm-2");
    ns.instance("greeter", "vm-2", "Expired", "TTLPassed").await;
    ns.counts(1, 1).await;
    ns.dry_run_tells("create slice greeter-*: +1").await;
    ns.settled(QUIET).await;
    ns.nothing_but_told(mark).await;
    assert!(ns.api::<Service>().get_opt("greeter").await.unwrap().is_none());
    let events: kube::Api<k8s_openapi::api::events::v1::Event> = ns.api();
    eventually("the event says that it is of a dry run", async || {
        let events = events.list(&kube::api::ListParams::default()).await.unwrap();
        let notes: Vec<_> = events.items.into_iter().filter_map(|event| event.note).collect();
        let told = notes.iter().any(|note| note.starts_with("dry run: vm-2: no beat"));
        told.then_some(())
    })
    .await;

    assert!(operator.stop().await);
    let _operator = ns.operator();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_in_a_dry_run_is_published_as_soon_as_the_annotation_goes() {
    let ns = TestNamespace::new("dry-annotation").await;
    let _operator = ns.operator();
    let mark = ns.plane.audit_mark().await.unwrap();
    let mut spec = TestNamespace::usual_spec();
    (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
    ns.create::<ServiceRegistration>(json!({
        "metadata": { "name": "greeter", "annotations": { DRY_RUN_ANNOTATION: "true" } },
        "spec": spec,
    }))
    .await;
    ns.looked_at("greeter").await;
    let beats = ns.beats("greeter");
    beats.create(&beats.outside("vm-1", "192.0.2.1")).await;
    ns.dry_run_tells("1 of 1").await;
    ns.nothing_but_told(mark).await;
    // Beats that the operator saw in the dry run count: no further beat is needed.
    ns.annotate(DRY_RUN_ANNOTATION, None).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_when_a_dry_run_begins_stays_as_it_is_until_it_ends() {
    let ns = TestNamespace::new("dry-later").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    ns.annotate(DRY_RUN_ANNOTATION, Some("true")).await;
    ns.dry_run_tells("2 of 2 instances would be ready; there is nothing to write").await;
    let mark = ns.settled(QUIET).await;
    beats.die("vm-2");
    ns.counts(1, 1).await;
    ns.dry_run_tells("update slice greeter-").await;
    ns.settled(QUIET).await;
    ns.nothing_but_told(mark).await;
    observer.never_missed(&set(&["192.0.2.1", "192.0.2.2"]));
    ns.annotate(DRY_RUN_ANNOTATION, Some("false")).await;
    observer.sees(&set(&["192.0.2.1"])).await;
    observer.never_missed(&set(&["192.0.2.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_holds_the_same_instances_in_a_dry_run() {
    let ns = TestNamespace::new("dry-protected").await;
    let _operator = ns.operator_with(&["--dry-run"]);
    let mut spec = TestNamespace::usual_spec();
    spec["protection"] = json!({ "minReady": 1 });
    ns.register("greeter", spec).await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.instance("greeter", "vm-1", "Ready", "Beating").await;
    beats.die("vm-1");
    ns.instance("greeter", "vm-1", "Held", "Protected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_dry_run_annotation_publishes_no_further_instance_and_keeps_no_dead() {
    let ns = TestNamespace::new("dry-slip").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    ns.annotate(DRY_RUN_ANNOTATION, Some("yes")).await;
    let message = ns.condition("greeter", "Stalled", "True", "InvalidSpec").await;
    assert_eq!(
        message,
        "annotation beatkeeper.dev/dry-run is \"yes\"; write \"true\" for a dry run, or remove it to \
         publish"
    );
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    ns.instance("greeter", "vm-3", "Waiting", "NotPublished").await;
    beats.die("vm-2");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_in_the_way_is_told_by_a_dry_run_too() {
    let ns = TestNamespace::new("dry-stalled").await;
    let _operator = ns.operator_with(&["--dry-run"]);
    let spec = json!({ "selector": { "app": "greeter" }, "ports": [{ "port": 80 }] });
    ns.create::<Service>(json!({ "metadata": { "name": "greeter" }, "spec": spec })).await;
    ns.greeter().await;
    let message = ns.condition("greeter", "Ready", "False", "ServiceHasSelector").await;
    assert!(message.ends_with("; dry run: there is nothing to write"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lease_is_swept_in_a_dry_run() {
    let ns = TestNamespace::new("dry-sweep").await;
    let _operator = ns.operator_with(&["--sweep-interval", "200ms"]);
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    let spec: Value = json!({ "ttl": "1s", "interval": "300ms", "ports": ports });
    for name in ["greeter", "swept"] {
        ns.register(name, spec.clone()).await;
    }
    ns.annotate(DRY_RUN_ANNOTATION, Some("true")).await;
    ns.condition("greeter", "Ready", "True", "DryRun").await;
    let leases: kube::Api<Lease> = ns.api();
    // The order matters: the instance that is swept in the end is the younger one.
    for (registration, address) in [("greeter", "192.0.2.1"), ("swept", "192.0.2.2")] {
        let beats = ns.beats(registration);
        beats.create(&beats.outside("vm-1", address)).await;
        ns.instance(registration, "vm-1", "Expired", "TTLPassed").await;
    }
    eventually("the Lease of the other one is swept", async || {
        leases.get_opt("swept.vm-1").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(leases.get_opt("greeter.vm-1").await.unwrap().is_some());
}
