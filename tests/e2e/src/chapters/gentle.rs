use std::time::Duration;

use anyhow::{Result, ensure};

use super::{left_out, quote};
use crate::caller::Caller;
use crate::cluster::Cluster;

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let caller = Caller::start(cluster, "greeter", 50).await?;

    let before = cluster.pods("greeter").await?;
    cluster.in_namespace("rollout restart deployment/greeter").await?;
    cluster.in_namespace("rollout status deployment/greeter --timeout=120s").await?;
    settled(cluster, 3).await?;
    let after = cluster.pods("greeter").await?;
    ensure!(
        after.iter().all(|pod| !before.contains(pod)),
        "the rolling update did not replace all Pods"
    );
    told(&caller, "a rolling update of all three").await?;

    if cluster.host.is_some() {
        drain(cluster).await?;
        settled(cluster, 3).await?;
        told(&caller, "a drain").await?;
    } else {
        left_out("kubectl drain", "it would evict Pods of others from a node of yours");
    }

    for count in [20, 3] {
        cluster.in_namespace(&format!("scale deployment/greeter --replicas={count}")).await?;
        cluster.in_namespace("rollout status deployment/greeter --timeout=120s").await?;
        settled(cluster, count).await?;
    }
    told(&caller, "3 to 20 to 3 replicas").await?;

    let account = caller.stop().await?;
    account.must_be_without_failure()?;
    println!("   in all {} requests, 50 a second: none failed", account.count());
    Ok(())
}

/// Waits until `count` instances are ready, and the leaving instances and their last connections are gone.
async fn settled(cluster: &Cluster, count: u64) -> Result<()> {
    cluster.until_ready("greeter", count).await?;
    cluster
        .until("Pods that were to end have ended", async || {
            let pods = cluster.json("get pods --selector app=greeter").await?;
            Ok((pods["items"].as_array().map(Vec::len) == usize::try_from(count).ok())
                .then_some(()))
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn told(caller: &Caller<'_>, what: &str) -> Result<()> {
    let account = caller.account().await?;
    account.must_be_without_failure()?;
    println!("   {what}: {} requests so far, none failed", account.count());
    Ok(())
}

/// An evicted Pod cannot move to another node, because there is only one. Its disruption budget lets one Pod leave,
/// and holds the next two until that Pod is back.
async fn drain(cluster: &Cluster) -> Result<()> {
    let node = cluster.kubectl("get nodes --output jsonpath={.items[0].metadata.name}").await?;
    let drained = cluster
        .kubectl(&format!(
            "drain {node} --pod-selector=app=greeter --ignore-daemonsets --timeout=20s"
        ))
        .await;
    let why = drained.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(why.contains("disruption budget"), "the drain was not held by the budget: {why}");
    quote(why.lines().find(|line| line.contains("disruption budget")).unwrap_or_default());
    cluster.until_ready("greeter", 2).await?;
    cluster.kubectl(&format!("uncordon {node}")).await?;
    Ok(())
}
