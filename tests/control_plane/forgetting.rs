//! When an instance is gone, the operator no longer expects its beats and frees its memory.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::api::DeleteParams;
use serde_json::json;

use crate::{
    metrics::until,
    support::{Operator, TestNamespace},
};

const TTL: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_secs(1);

/// Enough instances that the outage guard would see a broken path in their silence (L6).
const PODS: usize = 12;

/// Waits until a replica knows exactly this many Leases.
async fn knows(operator: &Operator, wanted: f64) {
    let what = format!("it knows of {wanted} Leases");
    until(operator, &what, |scrape| scrape.value("beatkeeper_known_leases") == wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_left_with_their_leases_do_not_hold_instances_that_fall_silent_later() {
    let ns = TestNamespace::new("gone-pods").await;
    // With this sweep interval the sweep cannot help: the leader itself must read the Leases that
    // its watch has lost.
    let flags = ["--metrics-bind-address=127.0.0.1:0", "--sweep-interval=1h"];
    let operator = ns.operator_with(&flags);
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    let mut all = vec!["192.0.2.1".to_owned()];
    for n in 1..=PODS {
        let (pod, address) = (format!("greeter-{n}"), format!("10.88.0.{n}"));
        let uid = ns.pod(&pod, &[&address], json!({})).await;
        beats.start(&beats.in_pod(&pod, &uid), INTERVAL).await;
        all.push(address);
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    ns.published_as_ready("greeter", &all).await;

    // The Pods go with their node, without deregistering. The garbage collector deletes their
    // Leases.
    let (pods, at_once) = (ns.api::<Pod>(), DeleteParams::default().grace_period(0));
    for pod in (1..=PODS).map(|n| format!("greeter-{n}")) {
        beats.die(&pod);
        pods.delete(&pod, &at_once).await.unwrap();
    }
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    knows(&operator, 1.0).await;

    // The wait is longer than the window in which the outage guard looks for beats.
    tokio::time::sleep(TTL).await;
    let silent = beats.die("vm-1");
    ns.published_as_ready("greeter", &[]).await;
    // A hold lasts ten ttls.
    assert!(silent.elapsed() < 5 * TTL, "it was held for {:?}", silent.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_forgets_instances_that_have_left() {
    let ns = TestNamespace::new("forgets").await;
    let elected = ["--leader-elect", &format!("--leader-elect-resource-namespace={}", ns.name)];
    let flags = ["--metrics-bind-address=127.0.0.1:0", "--sweep-interval=500ms"];
    let flags: Vec<&str> = elected.into_iter().chain(flags).collect();
    let replicas = [ns.operator_with(&flags), ns.operator_with(&flags)];
    ns.greeter().await;
    ns.register("gone", TestNamespace::usual_spec()).await;
    for registration in ["greeter", "gone"] {
        let beats = ns.beats(registration);
        for n in 1..=3 {
            let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
            beats.create(&lease).await;
        }
    }
    for replica in &replicas {
        knows(replica, 6.0).await;
    }
    let leases = ns.api::<Lease>();
    for left in ["greeter.vm-1", "greeter.vm-2"] {
        leases.delete(left, &DeleteParams::default()).await.unwrap();
    }
    for replica in &replicas {
        knows(replica, 4.0).await;
    }
    for left in ["gone.vm-1", "gone.vm-2", "gone.vm-3"] {
        leases.delete(left, &DeleteParams::default()).await.unwrap();
    }
    ns.api::<ServiceRegistration>().delete("gone", &DeleteParams::default()).await.unwrap();
    for replica in &replicas {
        knows(replica, 1.0).await;
    }
}
