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

use crate::support::{Shop, Vigil};

const INTERVAL: Duration = Duration::from_secs(1);

/// Beats each second with the result of `renew_time` for the n-th beat. It is sent as text, because
/// our types cannot hold all of these values.
fn beat(
    shop: &Shop,
    instance: &str,
    renew_time: impl Fn(u32) -> String + Send + 'static,
) -> JoinHandle<()> {
    let any = ApiResource::erase::<Lease>(&());
    let leases: Api<DynamicObject> =
        Api::namespaced_with(shop.client.clone(), &shop.namespace, &any);
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
    let shop = Shop::open("clocks").await;
    let operator = shop.operator();
    shop.greeter().await;
    let beats = shop.beats("greeter");
    let instances = ["ahead", "behind", "backwards", "last-day", "beyond", "stopped"];
    for (n, instance) in instances.iter().enumerate() {
        beats.create(&beats.outside(instance, &format!("192.0.2.{}", n + 1))).await;
    }
    let day = SignedDuration::from_hours(24);
    let start = Timestamp::now();
    let stopped = start.to_string();
    let hearts = [
        beat(&shop, "ahead", move |_| told(Timestamp::now() + day)),
        beat(&shop, "behind", move |_| told(Timestamp::now() - day)),
        beat(&shop, "backwards", move |n| told(start - SignedDuration::from_secs(n.into()))),
        beat(&shop, "last-day", |n| format!("9999-12-31T23:59:59.{:06}Z", 999_999 - n % 1000)),
        beat(&shop, "beyond", |n| format!("9999-12-31T23:59:59.{:06}-23:59", n % 1000)),
        beat(&shop, "stopped", move |_| told(stopped.parse().unwrap())),
    ];
    let living = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    shop.instance("greeter", "stopped", "Expired", "TTLPassed").await;
    shop.published_as_ready("greeter", &living).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    // The test must last three ttls, because it is about that time.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(vigil.left(), [""; 0]);
    shop.published_as_ready("greeter", &living).await;
    assert!(!operator.logged().contains("the watch broke"), "{}", operator.logged());

    // The other instances do not delay a new instance with a valid time.
    let sane = beats.outside("sane", "192.0.2.7");
    beats.create(&sane).await;
    let mut all = living.to_vec();
    all.push("192.0.2.7");
    shop.published_as_ready("greeter", &all).await;
    for heart in &hearts {
        assert!(!heart.is_finished(), "a beat was refused");
        heart.abort();
    }
    // All of them are pruned by the same rule.
    shop.published_as_ready("greeter", &[]).await;
}
