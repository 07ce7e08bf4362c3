//! Faults of the operator itself remove no living instance (P1), and do not keep a dead one
//! published forever (P2).

use std::time::{Duration, Instant};

use beatkeeper_cluster::{ControlPlane, Options};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Beats, Operator, Shop, Vigil, eventually};

const TTL: Duration = Duration::from_secs(3);
pub const INTERVAL: Duration = Duration::from_secs(1);

/// `count` beating instances, vm-1 at 192.0.2.1 and so on, all published.
pub async fn beating(shop: &Shop, count: usize) -> Beats {
    shop.greeter().await;
    let mut beats = shop.beats("greeter");
    for n in 1..=count {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    published(shop, count).await;
    beats
}

pub async fn published(shop: &Shop, count: usize) {
    let all: Vec<String> = (1..=count).map(|n| format!("192.0.2.{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    shop.published_as_ready("greeter", &all).await;
}

pub async fn begun(operator: &Operator) {
    eventually("the operator has read everything", async || {
        operator.logged().contains("publishing begins").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_unpublishes_no_living_instance_and_gives_the_dead_one_ttl_more() {
    let shop = Shop::open("restart").await;
    let operator = shop.operator();
    let mut beats = beating(&shop, 5).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    operator.kill();
    beats.die("vm-5");
    // A Lease that a process left here long ago. Its instance is silent and not published.
    beats.create(&beats.outside("vm-6", "192.0.2.6")).await;
    tokio::time::sleep(TTL).await;
    let started = Instant::now();
    let operator = shop.operator();
    begun(&operator).await;
    let begun = Instant::now();
    shop.instance("greeter", "vm-6", "Waiting", "AwaitingBeat").await;
    let left = vigil.leaves("192.0.2.5").await;
    assert!(left >= started + TTL, "a full ttl, not {:?}", left - started);
    assert!(left < begun + TTL + Duration::from_secs(2), "and no more: {:?}", left - begun);
    shop.instance("greeter", "vm-6", "Expired", "TTLPassed").await;
    published(&shop, 4).await;
    assert_eq!(vigil.left(), ["192.0.2.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_restarts_unpublish_no_instance() {
    let shop = Shop::open("again").await;
    let mut operator = shop.operator();
    let _beats = beating(&shop, 5).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    for _ in 0..4 {
        operator.kill();
        operator = shop.operator();
        begun(&operator).await;
    }
    let mark = shop.settled(TTL).await;
    assert_eq!(vigil.left(), [""; 0]);
    assert_eq!(shop.written_since(mark).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_was_suspended_prunes_no_instance_that_beat_on() {
    let shop = Shop::open("suspended").await;
    let operator = shop.operator();
    let mut beats = beating(&shop, 30).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    for _ in 0..3 {
        operator.suspend();
        tokio::time::sleep(2 * TTL).await;
        operator.resume();
        // That the operator works again is shown below: it prunes an instance that was alive
        // before.
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(vigil.left(), [""; 0]);
    }
    beats.die("vm-30");
    vigil.leaves("192.0.2.30").await;
    published(&shop, 29).await;
    assert_eq!(vigil.left(), ["192.0.2.30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_was_away_for_three_ttls_costs_no_living_instance_its_place() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    plane.declare(&beatkeeper_api::crd()).await.unwrap();
    // The control plane ends with the test process.
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));
    let shop = Shop::open_on(plane, "away").await;
    let _operator = shop.operator();
    let mut beats = beating(&shop, 30).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    for _ in 0..3 {
        plane.api_server().suspend().await.unwrap();
        tokio::time::sleep(3 * TTL).await;
        plane.api_server().resume().await.unwrap();
        tokio::time::sleep(2 * TTL).await;
        assert_eq!(vigil.left(), [""; 0]);
    }
    beats.die("vm-30");
    vigil.leaves("192.0.2.30").await;
    assert_eq!(vigil.left(), ["192.0.2.30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_made_anew_is_life() {
    let shop = Shop::open("anew").await;
    let _operator = shop.operator();
    let mut beats = beating(&shop, 2).await;
    beats.leave("vm-1").await;
    shop.published_as_ready("greeter", &["192.0.2.2"]).await;
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    published(&shop, 2).await;
    // Deletes and creates the Lease at once, like a process that starts over.
    beats.leave("vm-1").await;
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    shop.settled(TTL + INTERVAL).await;
    published(&shop, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_lost_its_label_counts_while_it_beats_and_not_when_it_is_silent() {
    let shop = Shop::open("label").await;
    let _operator = shop.operator();
    let mut beats = beating(&shop, 2).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    let bare = json!({ "metadata": { "labels": null } });
    let leases = beats.leases();
    leases.patch("greeter.vm-1", &PatchParams::default(), &Patch::Merge(bare)).await.unwrap();
    // The watch reports the Lease as deleted. The test must last three ttls.
    tokio::time::sleep(3 * TTL).await;
    assert_eq!(vigil.left(), [""; 0]);
    let silent = beats.die("vm-1");
    let left = vigil.leaves("192.0.2.1").await;
    assert!(left > silent + TTL - INTERVAL, "{:?}", left - silent);
    shop.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
    leases.delete("greeter.vm-1", &DeleteParams::default()).await.unwrap();
    let lease: Lease = beats.outside("vm-1", "192.0.2.1");
    beats.start(&lease, INTERVAL).await;
    published(&shop, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_it_ends_cleanly_and_leaves_what_is_published() {
    let shop = Shop::open("term").await;
    let operator = shop.operator();
    let _beats = beating(&shop, 2).await;
    let mark = shop.settled(INTERVAL).await;
    let before = shop.published("greeter").await;
    assert!(operator.stop().await, "exit code 0");
    assert_eq!(shop.written_since(mark).await, []);
    let after = shop.published("greeter").await;
    assert_eq!(after.slices, before.slices);
    assert_eq!(after.endpoints, before.endpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_namespaces_only_those_it_was_given_are_served() {
    let [one, two, three] =
        [Shop::open("one").await, Shop::open("two").await, Shop::open("three").await];
    let ranges: Vec<String> = [&one, &two, &three].iter().flat_map(|shop| shop.ranges()).collect();
    let mut flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
    flags.extend(["--namespace", &two.namespace]);
    let _operator = Operator::start(one.plane, &one.namespace, &flags);
    let unserved = beats_without_waiting(&three).await;
    let _one = beating(&one, 1).await;
    let _two = beating(&two, 1).await;
    assert_eq!(three.written_since(three.plane.audit_mark().await.unwrap()).await, []);
    assert_eq!(three.registration("greeter").await.status, None);
    drop(unserved);
}

async fn beats_without_waiting(shop: &Shop) -> Beats {
    shop.greeter().await;
    let mut beats = shop.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    beats
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_ttl_applies_at_once_and_a_shorter_one_not_before_an_instance_follows() {
    let shop = Shop::open("ttl").await;
    let _operator = shop.operator();
    let mut beats = beating(&shop, 3).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    // The ttl becomes longer while the instance is silent.
    let silent = beats.die("vm-1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    set_ttl(&shop, "8s").await;
    let left = vigil.leaves("192.0.2.1").await;
    let after = left - silent;
    assert!(after > Duration::from_secs(7) && after < Duration::from_secs(10), "{after:?}");

    // The ttl becomes shorter. A silent instance keeps the ttl it was told. So does an instance
    // that beats once more and shows no sign that it knows the new pace.
    let last = Instant::now();
    beats.die("vm-2");
    beats.beat_at("vm-2", Timestamp::now()).await;
    set_ttl(&shop, "2s").await;
    let dead = beats.die("vm-3");
    // The operator has seen the change before this beat.
    shop.condition_observed(3).await;
    beats.beat_at("vm-3", Timestamp::now()).await;
    let left = vigil.leaves("192.0.2.2").await;
    assert!(left - last > Duration::from_secs(8), "{:?}", left - last);
    let left = vigil.leaves("192.0.2.3").await;
    assert!(left - dead > Duration::from_secs(8), "{:?}", left - dead);
    assert_eq!(vigil.left(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
}

async fn set_ttl(shop: &Shop, ttl: &str) {
    let patch = json!({ "spec": { "ttl": ttl } });
    shop.patch::<beatkeeper_api::ServiceRegistration>("greeter", patch).await;
}

impl Shop {
    async fn condition_observed(&self, generation: i64) {
        eventually("the new generation is observed", async || {
            let status = self.registration("greeter").await.status?;
            (status.observed_generation == Some(generation)).then_some(())
        })
        .await;
    }
}
