//! A registration whose deletion is blocked by another party's finalizer.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_held_in_deletion_prunes_its_dead_and_adds_no_instance() {
    let ns = TestNamespace::new("ending").await;
    let operator = ns.operator();
    ns.greeter().await;
    let finalizers = |names: &[&str]| json!({ "metadata": { "finalizers": names } });
    ns.patch::<ServiceRegistration>("greeter", finalizers(&["example.com/held"])).await;
    let mut beats = ns.beats("greeter");
    for n in 1..=3 {
        beats.start(&beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}")), INTERVAL).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    let observer = ns.observe("greeter").await;
    ns.api::<ServiceRegistration>().delete("greeter", &DeleteParams::default()).await.unwrap();
    let message = ns.condition("greeter", "Stalled", "True", "Deleting").await;
    assert!(message.contains("example.com/held"), "{message}");

    beats.start(&beats.outside("vm-4", "192.0.2.4"), INTERVAL).await;
    beats.die("vm-2");
    observer.leaves("192.0.2.2").await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    // The same holds after a restart of the operator.
    operator.kill();
    let _operator = ns.operator();
    beats.leave("vm-3").await;
    observer.leaves("192.0.2.3").await.unwrap();
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert_eq!(observer.left(), ["192.0.2.2", "192.0.2.3"]);

    ns.patch::<ServiceRegistration>("greeter", finalizers(&[])).await;
    eventually("what it owned is collected", async || {
        let slices = ns.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap();
        slices.items.is_empty().then_some(())
    })
    .await;
}
