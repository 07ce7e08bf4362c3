//! Pods that start, end and come back: which of them may be published.

use beatkeeper_cluster::Options;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::support::{Fixture, ServiceObserver, eventually, observer::set};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_being_deleted_drains_and_its_lease_goes_with_it() {
    let fixture = Fixture::new("deleted-pod", json!({})).await;
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    fixture.join_pod("greeter-2", &["10.88.0.2"], json!({})).await;
    fixture.published_as_ready("greeter", &["10.88.0.1", "10.88.0.2"]).await;

    // A kubelet would end the Pod. Here none exists.
    fixture.delete_pod("greeter-1", 300).await;
    let status = fixture.status("greeter-1", "Draining", "PodTerminating").await;
    assert_eq!(status.message, "its Pod is being deleted");
    let published = fixture.published_as_ready("greeter", &["10.88.0.2"]).await;
    assert_eq!(published.conditions()["10.88.0.1"], (false, true, true));
    assert_eq!(published.not_ready_in_endpoints(), set(&[]));

    // The Pod stops serving while it drains.
    fixture.pod_conditions("greeter-1", &[("ContainersReady", false), ("Ready", false)]).await;
    fixture
        .publishes("it does not serve", |now| {
            now.conditions().get("10.88.0.1") == Some(&(false, false, true))
        })
        .await;

    fixture.delete_pod("greeter-1", 0).await;
    let left = fixture.publishes("it is gone", |now| now.conditions().len() == 1).await;
    assert_eq!(left.ready(), set(&["10.88.0.2"]));
    eventually("the garbage collector takes the Lease", async || {
        let lease = fixture.api::<Lease>().get_opt("greeter.greeter-1").await.unwrap();
        lease.is_none().then_some(())
    })
    .await;
    fixture.counts(1).await;
    fixture.published_as_ready("greeter", &["10.88.0.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_has_run_to_its_end_is_gone_although_its_lease_is_there() {
    let fixture = Fixture::new("terminal-pod", json!({})).await;
    fixture.join_pod("well", &["10.88.0.1"], json!({})).await;
    fixture.join_pod("badly", &["10.88.0.2"], json!({})).await;
    fixture.join_pod("runs", &["10.88.0.3"], json!({})).await;
    fixture.published_as_ready("greeter", &["10.88.0.1", "10.88.0.2", "10.88.0.3"]).await;

    // The Pods leave even if the kubelet had no time to report them as not ready.
    fixture.pod_status("well", &["10.88.0.1"], true, "Succeeded").await;
    fixture.pod_status("badly", &["10.88.0.2"], true, "Failed").await;
    let published = fixture.published_as_ready("greeter", &["10.88.0.3"]).await;
    assert_eq!(published.conditions().len(), 1);
    fixture.counts(1).await;
    assert!(fixture.api::<Lease>().get_opt("greeter.well").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_made_anew_under_its_name_does_not_inherit_the_lease() {
    // The garbage collector usually acts before the new Pod's process, which would hide what the
    // test checks.
    let without_it = "--controllers=*,-garbage-collector-controller,\
                      -pod-garbage-collector-controller,-node-lifecycle-controller,\
                      -taint-eviction-controller";
    let options =
        Options { controller_manager_flags: vec![without_it.to_owned()], ..Options::default() };
    let fixture = Fixture::on_own_plane("replaced-pod", options).await;
    let uid = fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    let observer = ServiceObserver::of(&fixture, "greeter").await;
    fixture.delete_pod("greeter-1", 0).await;
    let newer = fixture.pod("greeter-1", &["10.88.0.2"], json!({})).await;
    assert_ne!(newer, uid);
    fixture.published_as_ready("greeter", &[]).await;
    let status = fixture.status("greeter-1", "Rejected", "PodReplaced").await;
    assert!(status.message.contains(&uid), "{}", status.message);
    observer.sees(&set(&[])).await;
    assert!(!observer.ever_saw("10.88.0.2"), "the old Lease let the newcomer in");
    // This is what the new Pod's process does.
    fixture.quit("greeter-1").await;
    fixture.beats.create(&fixture.beats.in_pod("greeter-1", &newer)).await;
    fixture.published_as_ready("greeter", &["10.88.0.2"]).await;
    fixture.status("greeter-1", "Ready", "Beating").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_names_another_uid_than_its_pod_has_is_rejected() {
    let fixture = Fixture::new("foreign-uid", json!({})).await;
    fixture.pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let earlier = "00000000-0000-4000-8000-000000000001";
    let lease = fixture.beats.in_pod("greeter-1", earlier);
    fixture.beats.create(&lease).await;
    let event = said(&fixture, "greeter-1", "InstanceRejected").await;
    assert_eq!(
        event,
        format!(
            "greeter-1: its Lease belongs to an earlier Pod greeter-1 (uid {earlier}); delete the \
             Lease, so that the present Pod can create its own"
        )
    );
    assert!(fixture.published("greeter").await.slices.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_pod_that_is_not_there_is_rejected() {
    let fixture = Fixture::new("no-pod", json!({})).await;
    let lease = fixture.beats.in_pod("ghost", "00000000-0000-4000-8000-000000000002");
    fixture.beats.create(&lease).await;
    let event = said(&fixture, "ghost", "InstanceRejected").await;
    assert_eq!(event, format!("ghost: there is no Pod ghost in namespace {}", fixture.name));
    assert!(fixture.published("greeter").await.slices.is_empty());
}

/// The note of an event. The garbage collector may remove the Lease before a status can be read.
async fn said(fixture: &Fixture, instance: &str, reason: &str) -> String {
    use k8s_openapi::api::events::v1::Event;
    eventually(&format!("an event {reason} tells of {instance}"), async || {
        let events = fixture.api::<Event>().list(&Default::default()).await.unwrap();
        events
            .items
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some(reason))
            .find_map(|event| event.note.filter(|note| note.starts_with(instance)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pods_that_the_selector_admits_may_join() {
    let admits = json!({ "podSelector": { "matchLabels": { "tier": "front" } } });
    let fixture = Fixture::new("selector", admits).await;
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    let status = fixture.status("greeter-1", "Rejected", "PodNotSelected").await;
    assert_eq!(
        status.message,
        "the labels of Pod greeter-1 do not match spec.podSelector of greeter"
    );
    assert!(fixture.published("greeter").await.slices.is_empty());

    // The Pod's label may be added later, and removed again.
    let label = |value: Option<&str>| json!({ "metadata": { "labels": { "tier": value } } });
    fixture.patch::<k8s_openapi::api::core::v1::Pod>("greeter-1", label(Some("front"))).await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
    fixture.patch::<k8s_openapi::api::core::v1::Pod>("greeter-1", label(None)).await;
    fixture.published_as_ready("greeter", &[]).await;
    fixture.status("greeter-1", "Rejected", "PodNotSelected").await;

    // The selector may change too.
    let any = json!({ "spec": { "podSelector": { "matchLabels": null } } });
    fixture.patch::<beatkeeper_api::ServiceRegistration>("greeter", any).await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_selector_no_pod_may_join() {
    let fixture = Fixture::new("no-selector", json!({ "podSelector": null })).await;
    fixture.join_pod("greeter-1", &["10.88.0.1"], json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    let status = fixture.status("greeter-1", "Rejected", "PodNotSelected").await;
    assert_eq!(
        status.message,
        "spec.podSelector of greeter is absent, so no Pod may join; Pod greeter-1 wants to"
    );
    fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_an_address_waits_for_one() {
    let fixture = Fixture::new("no-address", json!({})).await;
    let uid = fixture.pod("greeter-1", &[], json!({})).await;
    fixture.beats.create(&fixture.beats.in_pod("greeter-1", &uid)).await;
    let status = fixture.status("greeter-1", "Waiting", "NoAddressYet").await;
    assert_eq!(status.message, "Pod greeter-1 has no address yet");
    fixture.pod_status("greeter-1", &["10.88.0.1"], true, "Running").await;
    fixture.published_as_ready("greeter", &["10.88.0.1"]).await;
}
