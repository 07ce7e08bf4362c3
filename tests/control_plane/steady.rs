//! A beat that changes nothing causes no write, and costs the same whatever the size of its service
//! (P4).

use std::time::Duration;

use serde_json::json;

use crate::support::{TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_instances_that_beat_for_a_minute_cause_no_write() {
    let ns = TestNamespace::new("steady").await;
    let operator = ns.operator();
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    ns.register("greeter", json!({ "ttl": "15s", "interval": "5s", "ports": ports })).await;
    let mut beats = ns.beats("greeter");
    for n in 1..=100 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("198.18.0.{n}"));
        beats.start(&lease, Duration::from_secs(5)).await;
    }
    ready(&ns, "greeter", 100).await;
    let mark = ns.settled(Duration::from_secs(2)).await;
    let used = operator.cpu_ticks();
    // The test must last a minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ns.written_since(mark).await, []);
    let beaten = beats_since(&ns, mark).await;
    assert!((1000..=1400).contains(&beaten), "{beaten} beats");
    println!("{beaten} beats, no write, {} ms of CPU", (operator.cpu_ticks() - used) * 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_costs_the_same_whatever_the_size_of_its_service() {
    let one_large = ticks_per_beat(1, 200).await;
    let many_small = ticks_per_beat(200, 1).await;
    println!(
        "CPU per beat: {:.0} µs in one service of 200, {:.0} µs in 200 services of one",
        one_large * 1e4,
        many_small * 1e4
    );
    assert!(one_large < 3.0 * many_small, "{one_large} and {many_small} ticks a beat");
    // A beat that starts a reconcile of its registration costs more than 2 ms in a service of 200.
    assert!(one_large < 0.1, "{one_large} ticks of 10 ms a beat");
}

/// The clock ticks of 10 ms that the operator uses for a beat.
async fn ticks_per_beat(registrations: usize, instances: usize) -> f64 {
    let ns = TestNamespace::new("size").await;
    let operator = ns.operator();
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    let mut all = Vec::new();
    for r in 1..=registrations {
        let name = format!("greeter-{r}");
        ns.register(&name, json!({ "ttl": "20s", "interval": "10s", "ports": ports })).await;
        let mut beats = ns.beats(&name);
        for n in 1..=instances {
            let lease = beats.outside(&format!("vm-{n}"), &format!("198.18.{r}.{n}"));
            beats.start(&lease, Duration::from_secs(1)).await;
        }
        all.push(beats);
    }
    for r in 1..=registrations {
        ready(&ns, &format!("greeter-{r}"), instances).await;
    }
    let mark = ns.settled(Duration::from_secs(2)).await;
    let before = operator.cpu_ticks();
    eventually("there were 2,000 beats", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        (beats_since(&ns, mark).await >= 2000).then_some(())
    })
    .await;
    let used = operator.cpu_ticks() - before;
    let beaten = beats_since(&ns, mark).await;
    assert_eq!(ns.written_since(mark).await, []);
    used as f64 / beaten as f64
}

async fn beats_since(ns: &TestNamespace, mark: beatkeeper_cluster::AuditMark) -> usize {
    let entries = ns.plane.audit_since(mark).await.unwrap();
    let ours = entries.iter().filter(|entry| {
        entry.namespace == ns.name && entry.resource == "leases" && entry.verb == "patch"
    });
    ours.filter(|entry| entry.succeeded()).count()
}

async fn ready(ns: &TestNamespace, registration: &str, count: usize) {
    eventually(&format!("{count} instances of {registration} are ready"), async || {
        let status = ns.registration(registration).await.status?;
        (status.ready == i32::try_from(count).unwrap()).then_some(())
    })
    .await;
}
