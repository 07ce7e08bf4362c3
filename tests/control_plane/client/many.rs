//! What many instances in one process cost it, and that no instance is late because of another.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fleet::Fleet;
use crate::support::{
    TestNamespace, Usage,
    chaos::{Scale, turn},
};

/// Lets instances beat for `time`. Returns how many beats were late.
async fn beat_for(ns: &TestNamespace, scale: Scale, time: Duration) -> u64 {
    let Scale { instances, ttl, interval, .. } = scale;
    let spec = json!({
        "ttl": format!("{}ms", ttl.as_millis()),
        "interval": format!("{}ms", interval.as_millis()),
        "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
    });
    ns.register("greeter", spec).await;
    let _operator = ns.operator();
    let before_all = Usage::of("self");
    let fleet = Fleet::start(ns, instances).await;
    let began = Instant::now();
    let (before, mark) = (fleet.stats(), ns.plane.audit_mark().await.unwrap());
    let usage_before = Usage::of("self");
    tokio::time::sleep(time).await;
    let usage = Usage::of("self");
    let stats = fleet.stats();
    let mut writes = ns.plane.audit_since(mark).await.unwrap();
    let took = began.elapsed();
    writes.retain(|it| it.namespace == ns.name && it.user_agent.starts_with("beatkeeper-client/"));
    println!(
        "\n{instances} instances in this process, ttl {ttl:?}, interval {interval:?}, {time:?}: \
         {} beats, {} writes, {} failed, {} late, CPU {:?}, memory {} → {} MB",
        stats.beats - before.beats,
        writes.len(),
        stats.failed - before.failed,
        stats.late - before.late,
        usage.cpu - usage_before.cpu,
        before_all.resident / 1024,
        usage.resident / 1024,
    );
    fleet.was_always_there();
    assert_eq!(stats.out, 0);
    // There are as many beats as the interval gives, with a margin for the machine, and no other
    // writes.
    let expected = |time: Duration| instances as f64 * time.div_duration_f64(interval);
    let (beats, least) = ((stats.beats - before.beats) as f64, 0.8 * expected(time));
    assert!(beats > least, "{beats} of {least} beats");
    let most = 1.2 * expected(took);
    assert!((writes.len() as f64) < most, "more writes than beats: {}", writes.len());
    stats.late - before.late
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_instances_in_one_process_beat_side_by_side() {
    let ns = TestNamespace::new("client-many").await;
    let (ttl, interval) = (Duration::from_secs(9), Duration::from_secs(3));
    let scale = Scale { instances: 100, ttl, interval, ..Scale::thirty(1) };
    beat_for(&ns, scale, Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make chaos"]
async fn a_thousand_instances_in_one_process_for_thirty_seconds_in_full() {
    let plane = turn().await;
    let ns = TestNamespace::new_on(*plane, "client-many").await;
    let (ttl, interval) = (Duration::from_secs(30), Duration::from_secs(10));
    let scale = Scale { instances: 1000, ttl, interval, ..Scale::thirty(1) };
    assert_eq!(beat_for(&ns, scale, Duration::from_secs(30)).await, 0, "late");
}
