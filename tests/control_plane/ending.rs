//! A registration whose deletion is blocked by another party's finalizer.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::support::{Shop, Vigil, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_held_in_deletion_prunes_its_dead_and_adds_no_instance() {
    let shop = Shop::open("ending").await;
    let operator = shop.operator();
    shop.greeter().await;
    let finalizers = |names: &[&str]| json!({ "metadata": { "finalizers": names } });
    shop.patch::<ServiceRegistration>("greeter", finalizers(&["example.com/held"])).await;
    let mut beats = shop.beats("greeter");
    for n in 1..=3 {
        beats.start(&beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}")), INTERVAL).await;
    }
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    shop.api::<ServiceRegistration>().delete("greeter", &DeleteParams::default()).await.unwrap();
    let message = shop.condition("greeter", "Stalled", "True", "Deleting").await;
    assert!(message.contains("example.com/held"), "{message}");

    beats.start(&beats.outside("vm-4", "192.0.2.4"), INTERVAL).await;
    beats.die("vm-2");
    vigil.leaves("192.0.2.2").await;
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    // The same holds after a restart of the operator.
    operator.kill();
    let _operator = shop.operator();
    beats.leave("vm-3").await;
    vigil.leaves("192.0.2.3").await;
    shop.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert_eq!(vigil.left(), ["192.0.2.2", "192.0.2.3"]);

    shop.patch::<ServiceRegistration>("greeter", finalizers(&[])).await;
    eventually("what it owned is collected", async || {
        let slices = shop.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap();
        slices.items.is_empty().then_some(())
    })
    .await;
}
