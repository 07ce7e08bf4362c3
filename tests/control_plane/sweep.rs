//! The operator sweeps Leases that nothing else would remove, and no others (P6).

use std::time::{Duration, Instant};

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_millis(300);

impl TestNamespace {
    async fn is_swept(&self, lease: &str) {
        eventually(&format!("Lease {lease} is swept"), async || {
            self.lease(lease).await.is_none().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leases_of_a_registration_that_is_gone_only_the_silent_outside_ones_are_swept() {
    let ns = TestNamespace::new("orphans").await;
    let _operator = ns.operator_with(&["--sweep-interval", "500ms"]);
    let uid = ns.pod("in-a-pod", &["10.88.0.7"], json!({})).await;
    let mut beats = ns.beats("gone");
    let lasting = |mut lease: Lease, seconds| {
        lease.spec.as_mut().unwrap().lease_duration_seconds = Some(seconds);
        lease
    };
    beats.create(&lasting(beats.in_pod("in-a-pod", &uid), 1)).await;
    beats.create(&lasting(beats.outside("lasting", "192.0.2.3"), 3600)).await;
    let mut cordoned = lasting(beats.outside("cordoned", "192.0.2.4"), 1);
    let notes = cordoned.metadata.annotations.as_mut().unwrap();
    notes.insert(heartbeat::CORDONED_ANNOTATION.to_owned(), "bad disk".to_owned());
    beats.create(&cordoned).await;
    let mut foreign = lasting(beats.outside("foreign", "192.0.2.5"), 1);
    foreign.metadata.labels = None;
    beats.create(&foreign).await;
    beats.start(&lasting(beats.outside("beating", "192.0.2.2"), 1), INTERVAL).await;
    let created = Instant::now();
    beats.create(&lasting(beats.outside("silent", "192.0.2.1"), 1)).await;

    ns.is_swept("gone.silent").await;
    assert!(created.elapsed() >= Duration::from_secs(10), "after {:?}", created.elapsed());
    for stays in ["in-a-pod", "lasting", "cordoned", "foreign", "beating"] {
        assert!(ns.lease(&format!("gone.{stays}")).await.is_some(), "{stays} is swept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_is_swept_ten_times_its_ttl_later_unless_it_beats() {
    let ns = TestNamespace::new("swept").await;
    let _operator = ns.operator_with(&["--sweep-interval", "500ms"]);
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    ns.register("greeter", json!({ "ttl": "1s", "interval": "300ms", "ports": ports })).await;
    let mut beats = ns.beats("greeter");
    // Taken before the first beat, so a time since this moment is longer than the same time since a
    // beat.
    let before = Instant::now();
    for (instance, address) in [("vm-1", "192.0.2.1"), ("vm-2", "192.0.2.2")] {
        let mut lease = beats.outside(instance, address);
        lease.spec.as_mut().unwrap().lease_duration_seconds = Some(1);
        beats.create(&lease).await;
    }
    // A Lease that was prepared for an instance that has not started yet.
    let mut prepared = beats.outside("vm-5", "192.0.2.5");
    prepared.spec.as_mut().unwrap().renew_time = None;
    beats.create(&prepared).await;
    // Both instances are refused. One of them never beats again.
    for (instance, address) in [("vm-3", "203.0.113.3"), ("vm-4", "203.0.113.4")] {
        beats.create(&beats.outside(instance, address)).await;
    }
    beats.keep_beating("vm-4", INTERVAL);
    ns.instance("greeter", "vm-2", "Expired", "TTLPassed").await;
    ns.instance("greeter", "vm-3", "Rejected", "AddressRefused").await;
    // The beat is late but comes before the sweep. The Lease must lie there for that long.
    tokio::time::sleep_until((before + Duration::from_secs(7)).into()).await;
    beats.beat_at("vm-2", Timestamp::now()).await;
    ns.is_swept("greeter.vm-1").await;
    assert!(before.elapsed() >= Duration::from_secs(11), "after {:?}", before.elapsed());
    assert!(ns.lease("greeter.vm-2").await.is_some(), "a beat saves it");
    ns.is_swept("greeter.vm-3").await;
    ns.is_swept("greeter.vm-2").await;
    assert!(ns.lease("greeter.vm-4").await.is_some(), "refused, but alive");
    assert!(ns.lease("greeter.vm-5").await.is_some(), "never silent, since it never spoke");
    let after = before.elapsed();
    assert!(after >= Duration::from_secs(18), "counted from its last beat: {after:?}");
}

/// spec.ttl decides. The duration in the Lease only informs.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_is_kept_by_the_ttl_of_its_registration_and_not_by_its_own_word() {
    let ns = TestNamespace::new("word").await;
    let _operator = ns.operator_with(&["--sweep-interval", "200ms"]);
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    ns.register("greeter", json!({ "ttl": "2s", "interval": "1s", "ports": ports })).await;
    let beats = ns.beats("greeter");
    for (instance, address, word) in [("vm-1", "192.0.2.1", 1), ("vm-2", "192.0.2.2", 3600)] {
        let mut lease = beats.outside(instance, address);
        lease.spec.as_mut().unwrap().lease_duration_seconds = Some(word);
        beats.create(&lease).await;
    }
    let last = Instant::now();
    ns.is_swept("greeter.vm-1").await;
    let after = last.elapsed();
    assert!(after >= Duration::from_secs(22), "ttl and ten times the ttl: {after:?}");
    ns.is_swept("greeter.vm-2").await;
}
