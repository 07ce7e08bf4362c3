use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::quote;
use crate::caller::Caller;
use crate::cluster::{Cluster, NAMESPACE, RELEASE};

const GATE: &str = "beatkeeper.dev/published";

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let caller = Caller::start(cluster, "greeter", 50).await?;
    a_rollout_waits(cluster).await?;
    a_registration_is_replaced(cluster).await?;
    caller.account().await?.must_be_without_failure()?;
    let account = caller.stop().await?;
    account.must_be_without_failure()?;
    println!("   meanwhile {} requests, 50 a second: none failed", account.count());
    a_selector_is_removed(cluster).await
}

/// With the readiness gate, a roll-out waits until its Pods are published.
async fn a_rollout_waits(cluster: &Cluster) -> Result<()> {
    let gate = json!({ "spec": { "template": { "spec": {
        "readinessGates": [{ "conditionType": GATE }],
    }}}});
    patch(cluster, "deployment/greeter", &gate).await?;
    cluster.in_namespace("rollout status deployment/greeter --timeout=120s").await?;
    cluster.until_ready("greeter", 3).await?;
    println!("   Pods with the readiness gate {GATE} become Ready, and the roll-out ends");

    scale_operator(cluster, 0).await?;
    cluster.in_namespace("rollout restart deployment/greeter").await?;
    let waited = cluster.in_namespace("rollout status deployment/greeter --timeout=20s").await;
    ensure!(waited.is_err(), "the roll-out ended without an operator: {waited:?}");
    let pods = cluster.json("get pods --selector app=greeter").await?;
    let ready = pods["items"].as_array().into_iter().flatten().filter(|pod| is_ready(pod)).count();
    ensure!(ready == 3, "{ready} of the Pods before it are Ready without an operator");
    println!("   without an operator a roll-out waits, and those that were Ready stay so");
    scale_operator(cluster, 2).await?;
    cluster.in_namespace("rollout status deployment/greeter --timeout=120s").await?;
    cluster.until_ready("greeter", 3).await?;
    println!("   it goes on when the operator is back");
    Ok(())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

async fn patch(cluster: &Cluster, what: &str, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let patch = ["--namespace", NAMESPACE, "patch", what, "--type=merge", "--patch", &patch];
    cluster.kubectl_with(&patch, "").await.map(drop)
}

async fn scale_operator(cluster: &Cluster, count: u8) -> Result<()> {
    let of = format!("--namespace {RELEASE}");
    cluster.kubectl(&format!("{of} scale deployment/{RELEASE} --replicas={count}")).await?;
    cluster
        .until("the operator has that many replicas", async || {
            // Only the Pods of the Deployment: the Pod of `helm test` stays.
            let pods = format!("{of} get pods --selector pod-template-hash --output name");
            let pods = cluster.kubectl(&pods).await?;
            Ok((pods.lines().count() == usize::from(count)).then_some(()))
        })
        .await?;
    cluster
        .kubectl(&format!("{of} rollout status deployment/{RELEASE} --timeout=120s"))
        .await
        .map(drop)
}

/// `kubectl replace --force` deletes a registration and makes it anew.
async fn a_registration_is_replaced(cluster: &Cluster) -> Result<()> {
    let service = async || -> Result<Value> {
        let service = cluster.json("get service greeter").await?;
        Ok(json!([service["metadata"]["uid"], service["spec"]]))
    };
    let before = service().await?;
    for _ in 0..3 {
        let mut registration = cluster.json("get sreg greeter").await?;
        let uid = registration["metadata"]["uid"].clone();
        registration.as_object_mut().map(|object| object.remove("status"));
        if let Some(metadata) = registration["metadata"].as_object_mut() {
            metadata.retain(|field, _| ["name", "namespace"].contains(&field.as_str()));
        }
        let replace = ["replace", "--force", "--filename", "-"];
        cluster.kubectl_with(&replace, &registration.to_string()).await?;
        cluster.until_ready("greeter", 3).await?;
        ensure!(
            cluster.json("get sreg greeter").await?["metadata"]["uid"] != uid,
            "it was not replaced"
        );
        ensure!(service().await? == before, "the Service is another");
    }
    println!(
        "   kubectl replace --force of the registration, three times: its Service is the same"
    );
    Ok(())
}

/// Removes a Service's selector: the operator takes over the endpoints that the cluster published.
async fn a_selector_is_removed(cluster: &Cluster) -> Result<()> {
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "chosen" },
            "spec": {
                "selector": { "app": "greeter" },
                "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            },
        },
        {
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "metadata": { "name": "chosen" },
            "spec": {
                "ttl": "5s", "interval": "1s",
                "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
                "podSelector": { "matchLabels": { "app": "greeter" } },
            },
        },
    ]});
    cluster.apply(&objects.to_string(), &[]).await?;
    let caller = Caller::start(cluster, "chosen", 50).await?;
    let selector = json!({ "spec": { "selector": null } });
    patch(cluster, "service/chosen", &selector).await?;
    cluster.until_ready("chosen", 3).await?;
    cluster
        .until("only Beatkeeper publishes it", async || {
            let slices = cluster
                .json("get endpointslices --selector kubernetes.io/service-name=chosen")
                .await?;
            let slices = slices["items"].as_array().cloned().unwrap_or_default();
            let ours = |slice: &Value| {
                let labels = &slice["metadata"]["labels"];
                labels["endpointslice.kubernetes.io/managed-by"] == "beatkeeper.dev"
            };
            Ok((!slices.is_empty() && slices.iter().all(ours)).then_some(()))
        })
        .await?;
    let account = caller.stop().await?;
    account.must_be_without_failure()?;
    println!(
        "   the selector of a Service is removed: {} requests, none failed, and its Pods that do not beat stay",
        account.count()
    );
    quote(&cluster.in_namespace("get sreg chosen").await?);
    cluster.in_namespace("delete sreg,service chosen").await.map(drop)
}
