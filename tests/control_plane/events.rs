//! Users can read every decision (P7): in events, conditions, the list of instances and `kubectl
//! get`.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

impl TestNamespace {
    async fn events(&self, reason: &str) -> Vec<Event> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let fits = |event: &Event| event.reason.as_deref() == Some(reason);
        events.items.into_iter().filter(fits).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_told_by_an_event_about_the_registration_and_the_lease() {
    let ns = TestNamespace::new("events").await;
    let _operator = ns.operator();
    let registration = ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=2 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    beats.annotate("vm-2", "beatkeeper.dev/note", Some("disk 91 %")).await;
    beats.die("vm-2");
    let events = eventually("there is an event of the death", async || {
        Some(ns.events("InstanceExpired").await).filter(|events| !events.is_empty())
    })
    .await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(
        event.note.as_deref(),
        Some("vm-2: no beat for its ttl of 3s; it last said: disk 91 %")
    );
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let regarding = event.regarding.as_ref().unwrap();
    assert_eq!(regarding.kind.as_deref(), Some("ServiceRegistration"));
    assert_eq!(regarding.uid, registration.metadata.uid);
    let related = event.related.as_ref().unwrap();
    assert_eq!(related.kind.as_deref(), Some("Lease"));
    assert_eq!(related.name.as_deref(), Some("greeter.vm-2"));
    assert_eq!(related.namespace.as_ref(), Some(&ns.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_death_is_told_in_a_few_lines_and_lists_the_dead_first() {
    let ns = TestNamespace::new("mass").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=150 {
        let lease = beats.outside(&format!("vm-{n:03}"), &format!("198.18.0.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    let ready = |wanted: i32| {
        let ns = &ns;
        async move {
            eventually(&format!("{wanted} are ready"), async || {
                let status = ns.registration("greeter").await.status?;
                (status.ready == wanted && status.total == 150).then_some(status)
            })
            .await
        }
    };
    let status = ready(150).await;
    assert_eq!(status.instances.len(), 100);
    assert_eq!(status.instances[99].name, "vm-100");
    for n in 101..=150 {
        beats.die(&format!("vm-{n}"));
    }
    let status = ready(100).await;
    assert_eq!((status.expired, status.held, status.total), (50, 0, 150));
    assert_eq!(status.instances.len(), 100);
    let states: Vec<&str> = status.instances.iter().map(|known| known.state.as_str()).collect();
    assert_eq!(states[..50], ["Expired"; 50]);
    assert_eq!(states[50..], ["Ready"; 50]);
    let dead: BTreeSet<String> = (101..=150).map(|n| format!("vm-{n}")).collect();
    let listed = status.instances[..50].iter().map(|known| known.name.clone());
    assert_eq!(listed.collect::<BTreeSet<_>>(), dead);

    ns.settled(Duration::from_secs(1)).await;
    // Each instance has its own deadline. The deadlines spread over one interval.
    let events = ns.events("InstanceExpired").await;
    let counted = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
    let lines: i32 = events.iter().map(counted).sum();
    println!("{} events, {lines} times, for 50 deaths", events.len());
    assert!((1..=25).contains(&events.len()), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_that_fall_silent_at_one_moment_make_a_few_events_and_not_fifty() {
    let ns = TestNamespace::new("moment").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    let all: Vec<String> = (1..=50).map(|n| format!("198.18.0.{n}")).collect();
    for (n, address) in all.iter().enumerate() {
        beats.start(&beats.outside(&format!("vm-{n}"), address), INTERVAL).await;
    }
    // Enough other instances keep beating to show that the path of the beats works.
    let others: Vec<String> = (101..=110).map(|n| format!("198.18.0.{n}")).collect();
    for (n, address) in others.iter().enumerate() {
        beats.start(&beats.outside(&format!("other-{n}"), address), INTERVAL).await;
    }
    let addresses: Vec<&str> = all.iter().chain(&others).map(String::as_str).collect();
    ns.published_as_ready("greeter", &addresses).await;
    for n in 0..50 {
        beats.die(&format!("vm-{n}"));
    }
    // All send their last beat at the same time, as when a switch fails.
    let now = jiff::Timestamp::now();
    let names: Vec<String> = (0..50).map(|n| format!("vm-{n}")).collect();
    futures::future::join_all(names.iter().map(|name| beats.beat_at(name, now))).await;
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    ns.published_as_ready("greeter", &others).await;
    eventually("all are told to have expired", async || {
        (ns.registration("greeter").await.status?.expired == 50).then_some(())
    })
    .await;
    ns.settled(Duration::from_secs(1)).await;
    let events = ns.events("InstanceExpired").await;
    let notes: Vec<_> = events.iter().filter_map(|event| event.note.clone()).collect();
    // The upper bound allows for a busy machine: how long 50 writes take does not depend on the
    // operator.
    assert!((1..=15).contains(&notes.len()), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_the_line_of_kubectl_tell_how_it_stands() {
    let ns = TestNamespace::new("line").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let message = ns.condition("greeter", "Available", "False", "NoInstanceReady").await;
    assert_eq!(message, "no instance is ready, so the Service has no endpoint that can answer");
    let mut beats = ns.beats("greeter");
    for n in 1..=3 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    let message = eventually("three are ready", async || {
        let status = ns.registration("greeter").await.status?;
        (status.ready == 3).then_some(status)
    })
    .await;
    let told: Vec<_> = message
        .conditions
        .iter()
        .map(|known| (known.type_.as_str(), known.status.as_str(), known.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [("Ready", "True", "Published"), ("Available", "True", "InstancesReady")],
        "the others are present only while they are true"
    );
    assert_eq!(message.conditions[0].message, "published as decided: 3 of 3 instances ready");
    assert_eq!(message.observed_generation, Some(1));
    let line = kubectl(&ns, &["get", "sreg", "greeter"]);
    let words: Vec<Vec<&str>> = line.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "READY", "EXPIRED", "HELD", "TTL", "INTERVAL", "STATUS", "AGE"]);
    assert_eq!(words[1][..7], ["greeter", "3", "0", "0", "3s", "1s", "Published"]);
}

fn kubectl(ns: &TestNamespace, arguments: &[&str]) -> String {
    let output =
        ns.plane.kubectl().args(["--namespace", &ns.name]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
