//! Two processes of one instance, of which the earlier one ends last.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{ResourceExt, api::DeleteParams};
use rustix::process::Signal;
use serde_json::json;

use super::{address, agent::Agent, fleet, no_instance_has_left};
use crate::support::TestNamespace;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_deregistration_leaves_a_recreated_lease_alone() {
    let ns = TestNamespace::new("client-late").await;
    let _operator = ns.operator();
    ns.patient_greeter().await;
    let config = ns.plane.admin_config("client-test").unwrap();
    // The process beats only once, so it does not notice that its Lease is gone.
    let (earlier, _) = fleet::start_with(&ns, 1, config.clone(), |service| {
        service.register_interval(Duration::ZERO)
    })
    .await;
    ns.published_as_ready("greeter", &[&address(1).to_string()]).await;
    let leases = ns.api::<Lease>();
    leases.delete("greeter.vm-1", &DeleteParams::default()).await.unwrap();
    ns.published_as_ready("greeter", &[]).await;

    let observer = ns.observe_all().await;
    let (later, _) = fleet::start(&ns, 1, config).await;
    ns.published_as_ready("greeter", &[&address(1).to_string()]).await;
    let made = leases.get("greeter.vm-1").await.unwrap();
    earlier.stop().await.unwrap();
    let now = leases.get("greeter.vm-1").await.unwrap();
    assert_eq!(now.uid(), made.uid());
    no_instance_has_left(&observer, 1);
    later.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_after_its_successor_began_takes_nothing_with_it() {
    let ns = TestNamespace::new("client-overlap").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let observer = ns.observe_all().await;
    let mut earlier = Agent::start(&ns, "vm-1", &address(1).to_string());
    ns.published_as_ready("greeter", &[&address(1).to_string()]).await;
    let made = ns.lease("greeter.vm-1").await.unwrap();
    let mut later = Agent::start(&ns, "vm-1", &address(1).to_string());
    later.says("with the Lease of its earlier life").await;
    earlier.says("another process has taken over the Lease").await;
    earlier.signal(Signal::TERM);
    assert_eq!(earlier.exit_code().await, Some(0));
    assert!(earlier.said().contains("is left to the process that has taken it over"));
    let now = ns.lease("greeter.vm-1").await.expect("the successor's Lease");
    assert_eq!(now.uid(), made.uid());
    // The wait is long enough to prune a Lease that is not renewed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    no_instance_has_left(&observer, 1);
    later.signal(Signal::TERM);
    assert_eq!(later.exit_code().await, Some(0));
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn deregistering_deletes_a_lease_that_was_annotated_meanwhile() {
    let ns = TestNamespace::new("client-annotated").await;
    ns.greeter().await;
    let config = ns.plane.admin_config("client-test").unwrap();
    let (service, _) =
        fleet::start_with(&ns, 1, config, |service| service.register_interval(Duration::ZERO))
            .await;
    let note = json!({ "metadata": { "annotations": { "example.com/rack": "b" } } });
    ns.patch::<Lease>("greeter.vm-1", note).await;
    service.stop().await.unwrap();
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}
