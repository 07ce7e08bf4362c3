use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::quote;
use crate::caller::Caller;
use crate::cluster::{Cluster, NAMESPACE, SAMPLE};

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    the_sample_application_works(cluster).await?;
    let began = Instant::now();
    cluster.apply(include_str!("../../manifests/shop.yaml"), &[]).await?;
    cluster.in_namespace("rollout status deployment/greeter --timeout=120s").await?;
    cluster.until_ready("greeter", 3).await?;
    println!(
        "   three Pods with the agent as a sidecar are published after {:.1} s:",
        began.elapsed().as_secs_f64()
    );
    quote(&cluster.in_namespace("get sreg greeter --output wide").await?);

    let address =
        cluster.in_namespace("get service greeter --output jsonpath={.spec.clusterIP}").await?;
    let resolved = cluster
        .once("resolver", &["resolve", &format!("greeter.{NAMESPACE}.svc.cluster.local")])
        .await?;
    ensure!(resolved.trim() == address, "DNS says {resolved}, the Service says {address}");
    println!(
        "   in a Pod, greeter.{NAMESPACE}.svc.cluster.local is {address}, the Service's ClusterIP"
    );

    let caller = Caller::start(cluster, "greeter", 50).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let account = caller.stop().await?;
    account.must_be_without_failure()?;
    let answers = account.answers();
    ensure!(answers.len() == 3, "not all three answer: {answers:?}");
    println!("   through it {} requests reach all three: {answers:?}", account.count());
    beats_have_their_own_priority(cluster).await
}

/// Uses the sample as a user does: copies the folder, and changes only the namespace and the images.
async fn the_sample_application_works(cluster: &Cluster) -> Result<()> {
    let copy = tempfile::tempdir()?;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/kubernetes");
    for entry in std::fs::read_dir(sample)? {
        let entry = entry?;
        std::fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    let file = copy.path().join("kustomization.yaml");
    let mut text = std::fs::read_to_string(&file)?;
    text = text.replace("namespace: default", &format!("namespace: {SAMPLE}"));
    for (name, image) in [
        ("ghcr.io/beatkeeper/beatkeeper", &cluster.images.beatkeeper),
        ("registry.example.com/greeter", &cluster.images.greeter),
    ] {
        let (image, tag) = image.rsplit_once(':').context("an image without a tag")?;
        let (before, after) =
            text.split_once(&format!("newName: {name}, newTag: ")).context("other images")?;
        let (_, after) = after.split_once(' ').context("no tag")?;
        text = format!("{before}newName: {image}, newTag: {tag} {after}");
    }
    std::fs::write(&file, text)?;
    let folder = copy.path().display().to_string();
    cluster.kubectl(&format!("apply --kustomize {folder}")).await?;
    cluster
        .until("the Pods of examples/kubernetes are published", async || {
            let ready = cluster
                .kubectl(&format!(
                    "--namespace {SAMPLE} get sreg greeter --output jsonpath={{.status.ready}}"
                ))
                .await?;
            Ok((ready == "3").then_some(()))
        })
        .await?;
    cluster.kubectl(&format!("delete namespace {SAMPLE} --wait=false")).await?;
    println!(
        "   the Deployment of examples/kubernetes is published with other images in another namespace"
    );
    Ok(())
}

/// The API server counts the requests that each FlowSchema matched.
async fn beats_have_their_own_priority(cluster: &Cluster) -> Result<()> {
    let metrics = cluster.kubectl("get --raw /metrics").await?;
    let dispatched = metrics.lines().find(|line| {
        line.starts_with("apiserver_flowcontrol_dispatched_requests_total")
            && line.contains("flow_schema=\"beatkeeper-heartbeats\"")
    });
    let count = dispatched.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
    ensure!(count != "0", "no beat went through the FlowSchema beatkeeper-heartbeats");
    println!("   {count} requests took the beats' own FlowSchema in the API server");
    Ok(())
}
