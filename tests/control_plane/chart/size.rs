//! The size limit for a heartbeat in the chart's admission policy.

use beatkeeper_api::heartbeat;
use beatkeeper_cluster::Options;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    helm::{Helm, chart},
    own_plane,
};
use crate::support::eventually;

async fn create(api: &Api<Lease>, lease: &Lease) -> kube::Result<Lease> {
    api.create(&PostParams::default(), lease).await
}

async fn patch(api: &Api<Lease>, name: &str, patch: Value) -> kube::Result<Lease> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

async fn delete(api: &Api<Lease>, name: &str) {
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_has_no_room_for_what_is_none_and_one_from_before_the_policy_goes_on_beating() {
    let plane = own_plane(Options::default()).await;
    let old = plane.namespace("old").await.unwrap();
    let admin: Api<Lease> = Api::namespaced(plane.admin_client().unwrap(), &old);
    let many = |count: usize| -> Value {
        let labels = (0..count).map(|number| (format!("example.com/label-{number}"), json!("x")));
        Value::Object(labels.collect())
    };
    let large = |name: &str, labels: Value, annotations: Value| -> Lease {
        let mut metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
        metadata["labels"][heartbeat::REGISTRATION_LABEL] = json!("greeter");
        from(json!({ "metadata": metadata, "spec": { "holderIdentity": "x" } }))
    };
    let annotations = |bytes: usize| json!({ "example.com/note": "x".repeat(bytes) });
    let before = large("greeter.before", many(100), annotations(50_000));
    create(&admin, &before).await.unwrap();
    Helm::on(plane).release("install", &chart(), &[]).await;
    let message = eventually("the policy is in force", async || {
        let error = create(&admin, &large("greeter.labels", many(40), json!({}))).await.err();
        if error.is_none() {
            delete(&admin, "greeter.labels").await;
        }
        error
    })
    .await
    .to_string();
    assert!(
        message.contains("Lease greeter.labels has 41 labels; a heartbeat may have 32"),
        "{message}"
    );
    let too_large = [
        (
            large("greeter.notes", json!({}), annotations(20_000)),
            "have 20016 bytes; those of a heartbeat may have 16384",
        ),
        (holder("h".repeat(300)), "is no heartbeat"),
    ];
    for (lease, words) in too_large {
        let message = create(&admin, &lease).await.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    create(&admin, &large("greeter.fine", many(20), annotations(10_000))).await.unwrap();

    patch(&admin, "greeter.before", heartbeat::beat_patch(Timestamp::now())).await.unwrap();
    let note = |bytes: usize| json!({ "metadata": { "annotations": annotations(bytes) } });
    patch(&admin, "greeter.before", note(40_000)).await.unwrap();
    let message = patch(&admin, "greeter.before", note(45_000)).await.unwrap_err().to_string();
    assert!(message.contains("have 45016 bytes"), "{message}");
    delete(&admin, "greeter.before").await;
}

fn from<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn holder(name: String) -> Lease {
    let labels = json!({ heartbeat::REGISTRATION_LABEL: "greeter" });
    from(json!({
        "metadata": { "name": "greeter.holder", "labels": labels },
        "spec": { "holderIdentity": name },
    }))
}
