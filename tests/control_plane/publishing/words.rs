//! What instances say about themselves, and what people say about them.

use serde_json::json;

use crate::support::{Fixture, observer::set};

const HEALTH: &str = "beatkeeper.dev/health";
const NOTE: &str = "beatkeeper.dev/note";
const CORDONED: &str = "beatkeeper.dev/cordoned";

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_says_it_fails_is_published_as_not_ready() {
    let fixture = Fixture::new("failing", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.join("vm-2", "192.0.2.2").await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;

    fixture.beats.annotate("vm-1", NOTE, Some("disk 91 %")).await;
    fixture.beats.annotate("vm-1", HEALTH, Some("Failing")).await;
    let status = fixture.status("vm-1", "NotReady", "HealthFailing").await;
    assert_eq!(status.message, "disk 91 %");
    let published = fixture.published_as_ready("greeter", &["192.0.2.2"]).await;
    assert_eq!(published.conditions()["192.0.2.1"], (false, false, false));
    assert_eq!(published.not_ready_in_endpoints(), set(&["192.0.2.1"]));

    fixture.beats.annotate("vm-1", HEALTH, Some("Passing")).await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;

    fixture.beats.annotate("vm-1", HEALTH, Some("fine")).await;
    let status = fixture.status("vm-1", "NotReady", "HealthUnknown").await;
    assert!(status.message.contains("fine"), "{}", status.message);
    fixture.published_as_ready("greeter", &["192.0.2.2"]).await;
    fixture.beats.annotate("vm-1", HEALTH, None).await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_says_it_drains_stays_in_slices_only() {
    let fixture = Fixture::new("draining", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.join("vm-2", "192.0.2.2").await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;

    fixture.beats.annotate("vm-1", HEALTH, Some("Draining")).await;
    fixture.status("vm-1", "Draining", "HealthDraining").await;
    let published = fixture.published_as_ready("greeter", &["192.0.2.2"]).await;
    assert_eq!(published.conditions()["192.0.2.1"], (false, true, true));
    assert_eq!(published.not_ready_in_endpoints(), set(&[]));

    // The last instance drains too: none is ready, and the condition says so.
    fixture.beats.annotate("vm-2", HEALTH, Some("Draining")).await;
    fixture.published_as_ready("greeter", &[]).await;
    fixture.condition("greeter", "Available", "False", "NoInstanceReady").await;
    fixture.quit("vm-1").await;
    fixture.quit("vm-2").await;
    let published = fixture.publishes("all have left", |now| now.conditions().is_empty()).await;
    assert!(published.slices.is_empty());
    assert_eq!(published.endpoints.unwrap().subsets, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_takes_an_instance_out_and_lifting_it_brings_it_back() {
    let fixture = Fixture::new("cordon", json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.join("vm-2", "192.0.2.2").await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;

    fixture.beats.annotate("vm-1", CORDONED, Some("bad disk")).await;
    let published = fixture.published_as_ready("greeter", &["192.0.2.2"]).await;
    assert!(!published.conditions().contains_key("192.0.2.1"), "it is gone, not unready");
    let status = fixture.status("vm-1", "Cordoned", "Cordoned").await;
    assert_eq!(status.message, "taken out by an operator: bad disk");
    assert_eq!(status.addresses, ["192.0.2.1"]);

    // Its beats do not lift the cordon.
    fixture.beats.beat_at("vm-1", jiff::Timestamp::now()).await;
    fixture.join("vm-3", "192.0.2.3").await;
    fixture.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;

    fixture.beats.annotate("vm-1", CORDONED, None).await;
    fixture.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    // The status follows what is published. It must no longer show the old cordon before the next
    // one is set.
    fixture.status("vm-1", "Ready", "Beating").await;

    // A cordon without a reason is a cordon too.
    fixture.beats.annotate("vm-1", CORDONED, Some("")).await;
    let status = fixture.status("vm-1", "Cordoned", "Cordoned").await;
    assert_eq!(status.message, "taken out by an operator");
    fixture.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_instance_waits_for_its_first_beat() {
    let declared = json!({ "instances": [{ "name": "vm-1", "addresses": ["192.0.2.1"] }] });
    let fixture = Fixture::new("never-beat", declared).await;
    let status = fixture.status("vm-1", "Waiting", "NeverBeat").await;
    assert_eq!(status.message, "declared, but no heartbeat Lease greeter.vm-1 has been seen");
    assert_eq!(status.addresses, ["192.0.2.1"]);
    assert!(fixture.published("greeter").await.slices.is_empty());
    assert_eq!(fixture.published("greeter").await.in_endpoints(), set(&[]));

    // A Lease that was prepared for the instance is no beat.
    let mut lease = fixture.beats.outside("vm-1", "");
    lease.spec.as_mut().unwrap().renew_time = None;
    fixture.beats.create(&lease).await;
    crate::support::eventually("the status knows the Lease", async || {
        let status = fixture.status("vm-1", "Waiting", "NeverBeat").await;
        (status.message == "Lease greeter.vm-1 has no spec.renewTime: no beat has been written")
            .then_some(())
    })
    .await;

    fixture.beats.beat_at("vm-1", jiff::Timestamp::now()).await;
    fixture.published_as_ready("greeter", &["192.0.2.1"]).await;
    fixture.quit("vm-1").await;
    fixture.published_as_ready("greeter", &[]).await;
    fixture.status("vm-1", "Waiting", "NeverBeat").await;
}
