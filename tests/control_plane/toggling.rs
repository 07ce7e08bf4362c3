//! When a tenant toggles something, the operator writes at a bounded rate, and the last value
//! counts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::AuditMark;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use serde_json::json;

use crate::support::{Beats, TestNamespace};

/// How long something is toggled. It is toggled twenty times a second if the machine is fast
/// enough.
const TOGGLED: Duration = Duration::from_secs(12);

/// Two published instances. Neither is silent long enough to be pruned.
async fn published(ns: &TestNamespace) -> (Beats, AuditMark) {
    ns.patient_greeter().await;
    let beats = ns.beats("greeter");
    for n in 1..=2 {
        beats.create(&beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"))).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    (beats, ns.settled(Duration::from_secs(2)).await)
}

/// Repeats a change. Returns the number of repetitions and the duration in seconds.
async fn toggle(mut change: impl AsyncFnMut(u32)) -> (u32, f64) {
    let began = Instant::now();
    let mut times = 0;
    while began.elapsed() < TOGGLED {
        change(times).await;
        times += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (times, began.elapsed().as_secs_f64())
}

/// The number of the operator's writes in this namespace, by kind of object.
async fn writes(ns: &TestNamespace, mark: AuditMark) -> BTreeMap<String, u32> {
    let mut writes = BTreeMap::new();
    for entry in ns.written_since(mark).await {
        *writes.entry(entry.resource).or_default() += 1;
    }
    writes
}

/// Panics if there were more writes than a burst plus a sustained rate allow.
fn at_most(
    writes: &BTreeMap<String, u32>,
    resource: &str,
    burst: u32,
    a_second: f64,
    seconds: f64,
) {
    let written = writes.get(resource).copied().unwrap_or_default();
    let allowed = f64::from(burst) + a_second * seconds;
    assert!(
        f64::from(written) <= allowed,
        "{written} writes of {resource} in {seconds} s: {writes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_that_is_toggled_twenty_times_a_second_costs_a_few_writes_a_second() {
    let ns = TestNamespace::new("toggled").await;
    let _operator = ns.operator();
    let (beats, mark) = published(&ns).await;
    let (times, seconds) = toggle(async |n| {
        let health = if n % 2 == 0 { "Failing" } else { "Passing" };
        beats.annotate("vm-1", "beatkeeper.dev/health", Some(health)).await;
    })
    .await;
    beats.annotate("vm-1", "beatkeeper.dev/health", Some("Failing")).await;
    ns.published_as_ready("greeter", &["192.0.2.2"]).await;
    let writes = writes(&ns, mark).await;
    println!("{times} changes in {seconds:.1} s: {writes:?}");
    at_most(&writes, "endpointslices", 16, 2.0, seconds);
    at_most(&writes, "endpoints", 16, 2.0, seconds);
    at_most(&writes, "serviceregistrations", 12, 2.0, seconds);
    at_most(&writes, "events", 6, 0.1, seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_and_made_in_a_loop_costs_a_few_writes_a_second() {
    let ns = TestNamespace::new("looped").await;
    let _operator = ns.operator();
    let (mut beats, mark) = published(&ns).await;
    let lease = beats.outside("loop", "192.0.2.3");
    let (times, seconds) = toggle(async |_| {
        beats.start(&lease, Duration::from_secs(3600)).await;
        beats.leave("loop").await;
    })
    .await;
    beats.start(&lease, Duration::from_secs(3600)).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    let writes = writes(&ns, mark).await;
    println!("{times} times in {seconds:.1} s: {writes:?}");
    at_most(&writes, "endpointslices", 14, 2.0, seconds);
    at_most(&writes, "serviceregistrations", 12, 2.0, seconds);
    at_most(&writes, "events", 6, 0.1, seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_are_edited_twenty_times_a_second_cost_a_few_writes_a_second() {
    let ns = TestNamespace::new("edited").await;
    let _operator = ns.operator();
    let (_beats, mark) = published(&ns).await;
    let edit = async |port: u32| {
        let ports =
            json!({ "spec": { "ports": [{ "name": "grpc", "port": 80, "targetPort": port }] } });
        ns.patch::<ServiceRegistration>("greeter", ports).await;
    };
    let (times, seconds) = toggle(async |n| edit(8000 + n % 2).await).await;
    edit(9999).await;
    crate::support::eventually("the last port is published", async || {
        let published = ns.published("greeter").await.address_ports();
        published.iter().all(|(_, _, port)| *port == 9999).then_some(())
    })
    .await;
    let writes = writes(&ns, mark).await;
    println!("{times} edits in {seconds:.1} s: {writes:?}");
    at_most(&writes, "services", 6, 1.0, seconds);
    at_most(&writes, "endpointslices", 12, 2.0, seconds);
    at_most(&writes, "serviceregistrations", 12, 2.0, seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_deleted_in_a_loop_is_made_anew_at_a_bounded_pace() {
    let ns = TestNamespace::new("unmade").await;
    let _operator = ns.operator();
    let (_beats, mark) = published(&ns).await;
    let services = ns.api::<Service>();
    let (times, seconds) = toggle(async |_| {
        // The Service may not exist at the moment.
        let _ = services.delete("greeter", &DeleteParams::default()).await;
    })
    .await;
    crate::support::eventually("the Service is there again", async || {
        services.get_opt("greeter").await.unwrap()
    })
    .await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let writes = writes(&ns, mark).await;
    println!("{times} tries in {seconds:.1} s: {writes:?}");
    at_most(&writes, "services", 6, 1.0, seconds);
}
