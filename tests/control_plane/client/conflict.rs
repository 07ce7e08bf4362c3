//! Several processes under one instance name.

use std::collections::BTreeMap;

use k8s_openapi::api::{coordination::v1::Lease, events::v1::Event};
use kube::{ResourceExt, api::ListParams};
use rustix::process::Signal;
use serde_json::json;

use super::{agent::Agent, fleet, no_instance_has_left};
use crate::support::{TestNamespace, eventually};

const A: &str = "192.0.2.21";
const B: &str = "192.0.2.22";

impl TestNamespace {
    async fn told_of_a_conflict(&self) -> String {
        eventually("there is an event of the conflict", async || {
            let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
            let conflict = |event: Event| {
                (event.reason.as_deref() == Some("NameConflict")).then_some(event.note?)
            };
            events.into_iter().find_map(conflict)
        })
        .await
    }

    async fn conflict_in_status(&self, there: bool) {
        eventually(&format!("condition NameConflict is there: {there}"), async || {
            let status = self.registration("greeter").await.status?;
            let is_there = status.conditions.iter().any(|one| one.type_ == "NameConflict");
            (is_there == there).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_with_one_name_the_living_one_is_published_and_the_quarrel_is_told() {
    let ns = TestNamespace::new("two-machines").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let first = Agent::start(&ns, "vm-x", A);
    ns.published_as_ready("greeter", &[A]).await;
    let mut second = Agent::start(&ns, "vm-x", B);
    ns.published_as_ready("greeter", &[B]).await;
    first.says("this process stands by").await;
    second.says("claims the Lease").await;
    let note = ns.told_of_a_conflict().await;
    assert!(note.starts_with("vm-x: several processes claim its name: held by "), "{note}");
    assert!(note.contains("also claimed by ") && note.contains(A), "{note}");
    ns.conflict_in_status(true).await;

    second.signal(Signal::KILL);
    second.exit_code().await;
    // The dead process's address is not published while the other one lives. The living process's
    // address is published on its own.
    ns.published_as_ready("greeter", &[A]).await;
    first.says("since the other process of that name has fallen silent").await;
    ns.conflict_in_status(false).await;

    let mut third = Agent::start(&ns, "vm-x", B);
    ns.published_as_ready("greeter", &[B]).await;
    third.signal(Signal::TERM);
    assert_eq!(third.exit_code().await, Some(0));
    ns.published_as_ready("greeter", &[A]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_stands_by_ends_without_a_trace() {
    let ns = TestNamespace::new("stands-by").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut first = Agent::start(&ns, "vm-x", A);
    ns.published_as_ready("greeter", &[A]).await;
    let _second = Agent::start(&ns, "vm-x", B);
    first.says("this process stands by").await;
    ns.conflict_in_status(true).await;
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code().await, Some(0));
    ns.conflict_in_status(false).await;
    ns.published_as_ready("greeter", &[B]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_edited_by_hand_is_claimed_anew_and_what_was_said_of_health_stays() {
    let ns = TestNamespace::new("edited").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let _agent = Agent::start(&ns, "vm-x", A);
    ns.published_as_ready("greeter", &[A]).await;
    let edit = json!({ "metadata": { "annotations": {
        "beatkeeper.dev/addresses": B,
        "beatkeeper.dev/health": "Draining",
    } } });
    ns.patch::<Lease>("greeter.vm-x", edit).await;
    let claimed = eventually("the address is claimed anew", async || {
        let lease = ns.lease("greeter.vm-x").await?;
        (lease.annotations()["beatkeeper.dev/addresses"] == A).then_some(lease)
    })
    .await;
    assert_eq!(claimed.annotations()["beatkeeper.dev/health"], "Draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lives_with_one_address_share_its_beats_and_the_other_goes_on_when_one_dies() {
    let ns = TestNamespace::new("one-address").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let observer = ns.observe_all().await;
    let first = Agent::start(&ns, "vm-x", A);
    ns.published_as_ready("greeter", &[A]).await;
    let second = Agent::start(&ns, "vm-x", A);
    first.says("another process has taken over the Lease").await;
    second.signal(Signal::KILL);
    first.says("since the other process of that name has fallen silent").await;
    no_instance_has_left(&observer, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_process_is_told_from_it_though_it_knows_all_that_it_knows() {
    let ns = TestNamespace::new("copied").await;
    ns.greeter().await;
    let config = ns.plane.admin_config("client-test").unwrap();
    let (service, _) = fleet::start(&ns, 1, config).await;
    let before = ns.lease("greeter.vm-1").await.unwrap().spec.unwrap().lease_transitions;
    // A machine that was resumed from a snapshot would do this: the same claim, with another time.
    let renew = json!({ "spec": { "renewTime": "2026-01-01T00:00:00.000001Z" } });
    ns.patch::<Lease>("greeter.vm-1", renew).await;
    eventually("the claim differs from the copy's", async || {
        let now = ns.lease("greeter.vm-1").await?.spec?.lease_transitions;
        (now > before).then_some(())
    })
    .await;
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_takes_the_place_of_a_lease_that_was_restored_without_its_owner() {
    let ns = TestNamespace::new("ownerless").await;
    let _operator = ns.operator();
    ns.greeter().await;
    ns.pod("greeter-0", &["10.1.2.3"], json!({})).await;
    let mut beats = ns.beats("greeter");
    let left = beats.outside("greeter-0", "192.0.2.9");
    beats.create(&left).await;
    let pod = Agent::start_with(&ns, &["--pod", "greeter-0"]);
    pod.says("it belongs to an instance outside the cluster").await;
    pod.says("or of one that was left behind").await;
    let lease = ns.lease("greeter.greeter-0").await.unwrap();
    let owners: BTreeMap<_, _> = lease
        .owner_references()
        .iter()
        .map(|owner| (owner.kind.as_str(), owner.name.as_str()))
        .collect();
    assert_eq!(owners, [("Pod", "greeter-0")].into());
    let _ = &mut beats;
}
