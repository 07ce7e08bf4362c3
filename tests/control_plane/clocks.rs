//! The operator never compares renewTime with a clock (L1). It only counts changes of the value.

use std::time::Duration;

use beatkeeper_api::heartbeat;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::TestNamespace;

const INTERVAL: Duration = Duration::from_secs(1);

/// Beats each second with the result of `renew_time` for the n-th beat. It is sent as text, because
/// our types cannot hold all of these values.
fn beat(
    ns: &TestNamespace,
    instance: &str,
    renew_time: impl Fn(u32) -> String + Send + 'static,
) -> JoinHandle<()> {
    let any = ApiResource::erase::<Lease>(&());
    let leases: Api<DynamicObject> = Api::namespaced_with(ns.client.clone(), &ns.name, &any);
    let name = heartbeat::lease_name("greeter", instance);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        for n in 0.. {
            ticks.tick().await;
            let patch = Patch::Merge(json!({ "spec": { "renewTime": renew_time(n) } }));
            leases.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        }
    })
}

fn told(time: Timestamp) -> String {
    serde_json::to_value(heartbeat::renew_time(time)).unwrap().as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_changes_its_token_lives_whatever_its_clock_says() {
    let ns = TestNamespace::new("clocks").await;
    let operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    let instances = ["ahead", "behind", "backwards", "last-day", "beyond", "stopped"];
    for (n, instance) in instances.iter().enumerate() {
        beats.create(&beats.outside(instance, &format!("192.0.2.{}", n + 1))).await;
    }
    let day = SignedDuration::from_hours(24);
    let start = Timestamp::now();
    let stopped = start.to_string();
    let hearts = [
        beat(&ns, "ahead", move |_| told(Timestamp::now() + day)),
        beat(&ns, "behind", move |_| told(Timestamp::now() - day)),
        beat(&ns, "backwards", move |n| told(start - SignedDuration::from_secs(n.into()))),
        beat(&ns, "last-day", |n| format!("9999-12-31T23:59:59.{:06}Z", 999_999 - n % 1000)),
        beat(&ns, "beyond", |n| format!("9999-12-31T23:59:59.{:06}-23:59", n % 1000)),
        beat(&ns, "stopped", move |_| told(stopped.parse().unwrap())),
    ];
    let living = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    ns.instance("greeter", "stopped", "Expired", "TTLPassed").await;
    ns.published_as_ready("greeter", &living).await;
    let observer = ns.observe("greeter").await;
    // The test must last three ttls, because it is about that time.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(observer.left(), [""; 0]);
    ns.published_as_ready("greeter", &living).await;
    assert!(!operator.logged().contains("the watch broke"), "{}", operator.logged());

    // The other instances do not delay a new instance with a valid time.
    let sane = beats.outside("sane", "192.0.2.7");
    beats.start(&sane, INTERVAL).await;
    let mut all = living.to_vec();
    all.push("192.0.2.7");
    ns.published_as_ready("greeter", &all).await;
    for heart in &hearts {
        assert!(!heart.is_finished(), "a beat was refused");
        heart.abort();
    }
    beats.die("sane");
    // All of them are pruned by the same rule.
    ns.published_as_ready("greeter", &[]).await;
}
