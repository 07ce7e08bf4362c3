//! How much other tenants' instances count when an instance's ttl has passed (L6).

use std::time::Duration;

use beatkeeper_cluster::Options;
use futures::future::join_all;
use serde_json::json;

use crate::support::{Operator, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_always_late_does_not_hold_the_dead_of_another_namespace() {
    // The operator counts the whole cluster, so the cluster must contain no other test.
    let plane = crate::support::crd::install_on_own(Options::default()).await;
    let (ns, fleet) =
        (TestNamespace::new_on(plane, "flow").await, TestNamespace::new_on(plane, "fleet").await);
    let ranges: Vec<String> = ns.ranges().into_iter().chain(fleet.ranges()).collect();
    let flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
    let _operator = Operator::start(plane, "", &flags);
    let mut absurd = TestNamespace::usual_spec();
    absurd["ttl"] = json!("24h");
    absurd["interval"] = json!("100ms");
    fleet.register("device", absurd).await;
    let devices = fleet.beats("device");
    join_all((1..=60).map(|n| {
        let device = devices.outside(&format!("device-{n}"), &format!("192.0.2.{n}"));
        let devices = &devices;
        async move { devices.create(&device).await }
    }))
    .await;
    eventually("the fleet is published", async || {
        (fleet.registration("device").await.status?.ready == 60).then_some(())
    })
    .await;
    ns.register("greeter", TestNamespace::usual_spec()).await;
    let mut beats = ns.beats("greeter");
    for n in 1..=5 {
        beats.start(&beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}")), INTERVAL).await;
    }
    let all: Vec<String> = (1..=5).map(|n| format!("192.0.2.{n}")).collect();
    ns.published_as_ready("greeter", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let observer = ns.observe("greeter").await;
    beats.die("vm-3");
    ns.instance("greeter", "vm-3", "Expired", "TTLPassed").await;
    assert_eq!(observer.left(), ["192.0.2.3"]);
}
