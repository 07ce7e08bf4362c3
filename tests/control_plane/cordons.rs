//! A cordon applies to a name and its address until it is lifted, whatever happens to the Lease.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, heartbeat::CORDONED_ANNOTATION};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::support::{Beats, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

/// Starts two instances that beat, and cordons the second.
async fn cordoned(ns: &TestNamespace) -> Beats {
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=2 {
        beats.start(&beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}")), INTERVAL).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    beats.annotate("vm-2", CORDONED_ANNOTATION, Some("bad disk")).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    eventually("the status remembers it", async || {
        let cordoned = ns.registration("greeter").await.status?.cordoned;
        (cordoned.first()?.name == "vm-2").then_some(())
    })
    .await;
    beats
}

/// Waits until the Lease carries the cordon that was put on an earlier Lease with its name.
async fn is_marked_again(ns: &TestNamespace) -> Lease {
    eventually("the Lease carries the cordon again", async || {
        let lease = ns.lease("greeter.vm-2").await?;
        (lease.annotations().get(CORDONED_ANNOTATION)? == "bad disk").then_some(lease)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_and_made_anew_stays_out_until_the_annotation_is_removed_from_it() {
    let ns = TestNamespace::new("cordon").await;
    let _operator = ns.operator();
    let mut beats = cordoned(&ns).await;
    let observer = ns.observe("greeter").await;
    for _ in 0..3 {
        beats.leave("vm-2").await;
        beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
        is_marked_again(&ns).await;
    }
    // An instance with another name on the same machine.
    beats.start(&beats.outside("other", "192.0.2.2"), INTERVAL).await;
    let other = ns.instance("greeter", "other", "Cordoned", "Cordoned").await;
    assert_eq!(
        other.message,
        "its address 192.0.2.2 is that of vm-2, taken out by an operator: bad disk"
    );
    assert_eq!(observer.left(), [""; 0], "it was never in between");
    beats.annotate("vm-2", CORDONED_ANNOTATION, None).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    eventually("the status forgets it", async || {
        ns.registration("greeter").await.status?.cordoned.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_outlives_the_operator_and_a_lease_that_the_collector_takes() {
    let ns = TestNamespace::new("cordon-away").await;
    let operator = ns.operator();
    let mut beats = cordoned(&ns).await;
    // The owner does not exist, so the garbage collector deletes the Lease.
    beats.die("vm-2");
    let absent = json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "absent", "uid": "absent-uid",
    }] } });
    ns.patch::<Lease>("greeter.vm-2", absent).await;
    eventually("it is collected", async || ns.lease("greeter.vm-2").await.is_none().then_some(()))
        .await;
    operator.kill();
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    let operator = ns.operator();
    is_marked_again(&ns).await;
    ns.instance("greeter", "vm-2", "Cordoned", "Cordoned").await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    // The cordon is lifted while no operator runs.
    operator.kill();
    beats.annotate("vm-2", CORDONED_ANNOTATION, None).await;
    let _operator = ns.operator();
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_replaced_by_force_has_the_cordons_that_leases_carry() {
    let ns = TestNamespace::new("cordon-forced").await;
    let _operator = ns.operator();
    let _beats = cordoned(&ns).await;
    let before = ns.registration("greeter").await;
    ns.api::<ServiceRegistration>().delete("greeter", &DeleteParams::default()).await.unwrap();
    ns.greeter().await;
    let status = eventually("the new one remembers it", async || {
        let now = ns.registration("greeter").await;
        (now.uid() != before.uid()).then_some(now.status?).filter(|it| !it.cordoned.is_empty())
    })
    .await;
    assert_eq!(status.cordoned[0].reason, "bad disk");
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_whose_lease_is_gone_for_good_is_lifted_by_the_registration() {
    let ns = TestNamespace::new("cordon-gone").await;
    let _operator = ns.operator();
    let mut beats = cordoned(&ns).await;
    beats.leave("vm-2").await;
    let uncordon = |value: Value| json!({ "metadata": { "annotations": { "beatkeeper.dev/uncordon": value } } });
    ns.patch::<ServiceRegistration>("greeter", uncordon("vm-2".into())).await;
    eventually("the status forgets it", async || {
        ns.registration("greeter").await.status?.cordoned.is_empty().then_some(())
    })
    .await;
    ns.patch::<ServiceRegistration>("greeter", uncordon(Value::Null)).await;
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
}
