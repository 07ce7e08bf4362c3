//! Faults of the operator itself remove no living instance (P1), and do not keep a dead one
//! published forever (P2).

use std::time::{Duration, Instant};

use beatkeeper_cluster::Options;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Beats, Operator, TestNamespace, eventually};

const TTL: Duration = Duration::from_secs(3);
pub const INTERVAL: Duration = Duration::from_secs(1);

/// `count` beating instances, vm-1 at 192.0.2.1 and so on, all published.
pub async fn beating(ns: &TestNamespace, count: usize) -> Beats {
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=count {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    published(ns, count).await;
    beats
}

pub async fn published(ns: &TestNamespace, count: usize) {
    let all: Vec<String> = (1..=count).map(|n| format!("192.0.2.{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    ns.published_as_ready("greeter", &all).await;
}

pub async fn begun(operator: &Operator) {
    eventually("the operator has read everything", async || {
        operator.logged().contains("publishing begins").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_unpublishes_no_living_instance_and_gives_the_dead_one_ttl_more() {
    // So long that a late prune on a busy machine differs from a second ttl.
    const LONG: Duration = Duration::from_secs(9);
    let ns = TestNamespace::new("restart").await;
    let operator = ns.operator();
    let mut beats = beating(&ns, 5).await;
    set_ttl(&ns, "9s").await;
    ns.condition_observed(2).await;
    let observer = ns.observe("greeter").await;
    operator.kill();
    beats.die("vm-5");
    // A Lease that a process left here long ago. Its instance is silent and not published.
    beats.create(&beats.outside("vm-6", "192.0.2.6")).await;
    tokio::time::sleep(TTL).await;
    let started = Instant::now();
    let operator = ns.operator();
    begun(&operator).await;
    let begun = Instant::now();
    ns.instance("greeter", "vm-6", "Waiting", "AwaitingBeat").await;
    let left = observer.leaves("192.0.2.5").await.unwrap();
    assert!(left >= started + LONG, "a full ttl, not {:?}", left - started);
    assert!(left < begun + LONG + Duration::from_secs(6), "and no more: {:?}", left - begun);
    ns.instance("greeter", "vm-6", "Expired", "TTLPassed").await;
    published(&ns, 4).await;
    assert_eq!(observer.left(), ["192.0.2.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_restarts_unpublish_no_instance() {
    let ns = TestNamespace::new("again").await;
    let mut operator = ns.operator();
    let _beats = beating(&ns, 5).await;
    let observer = ns.observe("greeter").await;
    for _ in 0..4 {
        operator.kill();
        operator = ns.operator();
        begun(&operator).await;
    }
    let mark = ns.settled(TTL).await;
    assert_eq!(observer.left(), [""; 0]);
    assert_eq!(ns.written_since(mark).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_was_suspended_prunes_no_instance_that_beat_on() {
    let ns = TestNamespace::new("suspended").await;
    let operator = ns.operator();
    let mut beats = beating(&ns, 30).await;
    let observer = ns.observe("greeter").await;
    for _ in 0..3 {
        operator.suspend();
        tokio::time::sleep(2 * TTL).await;
        operator.resume();
        // That the operator works again is shown below: it prunes an instance that was alive
        // before.
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(observer.left(), [""; 0]);
    }
    beats.die("vm-30");
    observer.leaves("192.0.2.30").await.unwrap();
    published(&ns, 29).await;
    assert_eq!(observer.left(), ["192.0.2.30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_was_away_for_three_ttls_costs_no_living_instance_its_place() {
    let plane = crate::support::crd::install_on_own(Options::default()).await;
    let ns = TestNamespace::new_on(plane, "away").await;
    let _operator = ns.operator();
    let mut beats = beating(&ns, 30).await;
    let observer = ns.observe("greeter").await;
    for _ in 0..3 {
        plane.api_server().suspend().await.unwrap();
        tokio::time::sleep(3 * TTL).await;
        plane.api_server().resume().await.unwrap();
        tokio::time::sleep(2 * TTL).await;
        assert_eq!(observer.left(), [""; 0]);
    }
    beats.die("vm-30");
    observer.leaves("192.0.2.30").await.unwrap();
    assert_eq!(observer.left(), ["192.0.2.30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_made_anew_is_life() {
    let ns = TestNamespace::new("anew").await;
    let _operator = ns.operator();
    let mut beats = beating(&ns, 2).await;
    beats.leave("vm-1").await;
    ns.published_as_ready("greeter", &["192.0.2.2"]).await;
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    published(&ns, 2).await;
    // Deletes and creates the Lease at once, like a process that starts over.
    beats.leave("vm-1").await;
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.settled(TTL + INTERVAL).await;
    published(&ns, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_lost_its_label_counts_while_it_beats_and_not_when_it_is_silent() {
    let ns = TestNamespace::new("label").await;
    let _operator = ns.operator();
    let mut beats = beating(&ns, 2).await;
    let observer = ns.observe("greeter").await;
    let bare = json!({ "metadata": { "labels": null } });
    let leases = beats.leases();
    leases.patch("greeter.vm-1", &PatchParams::default(), &Patch::Merge(bare)).await.unwrap();
    // The watch reports the Lease as deleted. The test must last three ttls.
    tokio::time::sleep(3 * TTL).await;
    assert_eq!(observer.left(), [""; 0]);
    let silent = beats.die("vm-1");
    let left = observer.leaves("192.0.2.1").await.unwrap();
    assert!(left > silent + TTL - INTERVAL, "{:?}", left - silent);
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
    leases.delete("greeter.vm-1", &DeleteParams::default()).await.unwrap();
    let lease: Lease = beats.outside("vm-1", "192.0.2.1");
    beats.start(&lease, INTERVAL).await;
    published(&ns, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_it_ends_cleanly_and_leaves_what_is_published() {
    let ns = TestNamespace::new("term").await;
    let operator = ns.operator();
    let _beats = beating(&ns, 2).await;
    let mark = ns.settled(INTERVAL).await;
    let before = ns.published("greeter").await;
    assert!(operator.stop().await, "exit code 0");
    assert_eq!(ns.written_since(mark).await, []);
    let after = ns.published("greeter").await;
    assert_eq!(after.slices, before.slices);
    assert_eq!(after.endpoints, before.endpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_namespaces_only_those_it_was_given_are_served() {
    let [one, two, three] = [
        TestNamespace::new("one").await,
        TestNamespace::new("two").await,
        TestNamespace::new("three").await,
    ];
    let ranges: Vec<String> = [&one, &two, &three].iter().flat_map(|ns| ns.ranges()).collect();
    let mut flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
    flags.extend(["--namespace", &two.name]);
    let _operator = Operator::start(one.plane, &one.name, &flags);
    let unserved = beats_without_waiting(&three).await;
    let _one = beating(&one, 1).await;
    let _two = beating(&two, 1).await;
    assert_eq!(three.written_since(three.plane.audit_mark().await.unwrap()).await, []);
    let status = three.registration("greeter").await.status.unwrap();
    assert!(!status.is_reported(), "{status:?}");
    drop(unserved);
}

async fn beats_without_waiting(ns: &TestNamespace) -> Beats {
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    beats
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_ttl_applies_at_once_and_a_shorter_one_not_before_an_instance_follows() {
    let ns = TestNamespace::new("ttl").await;
    let _operator = ns.operator();
    let mut beats = beating(&ns, 3).await;
    set_ttl(&ns, "6s").await;
    ns.condition_observed(2).await;
    let observer = ns.observe("greeter").await;
    // The ttl becomes longer while the instance is silent, long before the shorter one has passed.
    let silent = beats.die("vm-1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    set_ttl(&ns, "12s").await;
    let left = observer.leaves("192.0.2.1").await.unwrap();
    let after = left - silent;
    assert!(after > Duration::from_secs(11) && after < Duration::from_secs(18), "{after:?}");

    // The ttl becomes shorter. A silent instance keeps the ttl it was told. So does an instance
    // that beats once more and shows no sign that it knows the new pace.
    let last = Instant::now();
    beats.die("vm-2");
    beats.beat_at("vm-2", Timestamp::now()).await;
    set_ttl(&ns, "2s").await;
    let dead = beats.die("vm-3");
    // The operator has seen the change before this beat.
    ns.condition_observed(4).await;
    beats.beat_at("vm-3", Timestamp::now()).await;
    let left = observer.leaves("192.0.2.2").await.unwrap();
    assert!(left - last > Duration::from_secs(12), "{:?}", left - last);
    let left = observer.leaves("192.0.2.3").await.unwrap();
    assert!(left - dead > Duration::from_secs(12), "{:?}", left - dead);
    assert_eq!(observer.left(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
}

async fn set_ttl(ns: &TestNamespace, ttl: &str) {
    let patch = json!({ "spec": { "ttl": ttl } });
    ns.patch::<beatkeeper_api::ServiceRegistration>("greeter", patch).await;
}

impl TestNamespace {
    async fn condition_observed(&self, generation: i64) {
        eventually("the new generation is observed", async || {
            let status = self.registration("greeter").await.status?;
            (status.observed_generation == Some(generation)).then_some(())
        })
        .await;
    }
}
