//! The main purpose: publish what beats, prune what stops, and change nothing else.

use std::time::Duration;

use kube::ResourceExt;

use crate::support::TestNamespace;

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn of_five_instances_the_silent_one_is_pruned_and_the_others_stay() {
    let ns = TestNamespace::new("story").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=5 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    ns.published_as_ready("greeter", &all).await;
    beats.die("vm-3");
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.5"]).await;
    let status = ns.instance("greeter", "vm-3", "Expired", "TTLPassed").await;
    assert_eq!(status.message, "no beat for its ttl of 3s");

    beats.keep_beating("vm-3", INTERVAL);
    ns.published_as_ready("greeter", &all).await;
    beats.leave("vm-4").await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.5"]).await;
    beats.annotate("vm-5", "beatkeeper.dev/cordoned", Some("bad disk")).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    let status = ns.instance("greeter", "vm-5", "Cordoned", "Cordoned").await;
    assert_eq!(status.message, "taken out by an operator: bad disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_instance_leaves_its_slice_before_the_endpoints_object() {
    let ns = TestNamespace::new("first").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    let all: Vec<String> = (1..=6).map(|n| format!("192.0.2.{n}")).collect();
    for (n, address) in all.iter().enumerate() {
        beats.start(&beats.outside(&format!("vm-{n}"), address), INTERVAL).await;
    }
    let mut left: Vec<&str> = all.iter().map(String::as_str).collect();
    ns.published_as_ready("greeter", &left).await;
    // One at a time: if they were written concurrently, their order would vary.
    for n in 0..5 {
        beats.die(&format!("vm-{n}"));
        left.remove(0);
        let published = ns.published_as_ready("greeter", &left).await;
        let version = |text: Option<String>| text.unwrap().parse::<u64>().unwrap();
        let slice = version(published.slices[0].resource_version());
        let list = version(published.endpoints.unwrap().resource_version());
        assert!(slice < list, "the slice at {slice}, the list at {list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_many_leave_one_after_the_other_the_one_list_is_written_less_often_than_the_slice() {
    let ns = TestNamespace::new("list").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    let all: Vec<String> = (1..=40).map(|n| format!("192.0.2.{n}")).collect();
    for address in &all {
        beats.start(&beats.outside(&format!("vm-{address}"), address), INTERVAL).await;
    }
    ns.published_as_ready("greeter", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mark = ns.settled(INTERVAL).await;
    let (last, leaving) = all.split_last().unwrap();
    for address in leaving {
        beats.leave(&format!("vm-{address}")).await;
    }
    // In the end Endpoints say the same.
    ns.published_as_ready("greeter", &[last]).await;
    let written = ns.written_since(mark).await;
    let updates = |kind: &str| written.iter().filter(|entry| entry.resource == kind).count();
    let (slice, list) = (updates("endpointslices"), updates("endpoints"));
    assert!(list >= 1 && list < slice, "the slice {slice} times, the list {list} times");
}
