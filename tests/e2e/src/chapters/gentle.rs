use std::time::Duration;

use anyhow::{Result, ensure};

use super::{left_out, quote};
use crate::caller::Caller;
use crate::stage::Stage;

pub(super) async fn play(stage: &Stage) -> Result<()> {
    let caller = Caller::start(stage, "greeter", 50).await?;

    let before = stage.pods("greeter").await?;
    stage.shop("rollout restart deployment/greeter").await?;
    stage.shop("rollout status deployment/greeter --timeout=120s").await?;
    settled(stage, 3).await?;
    let after = stage.pods("greeter").await?;
    ensure!(after.iter().all(|pod| !before.contains(pod)), "the rolling update replaced nobody");
    told(&caller, "a rolling update of all three").await?;

    if stage.host.is_some() {
        drain(stage).await?;
        settled(stage, 3).await?;
        told(&caller, "a drain").await?;
    } else {
        left_out("kubectl drain", "it would evict Pods of others from a node of yours");
    }

    for count in [20, 3] {
        stage.shop(&format!("scale deployment/greeter --replicas={count}")).await?;
        stage.shop("rollout status deployment/greeter --timeout=120s").await?;
        settled(stage, count).await?;
    }
    told(&caller, "3 to 20 to 3 replicas").await?;

    let account = caller.stop().await?;
    account.must_be_without_failure()?;
    println!("   in all {} requests, 50 a second: none failed", account.count());
    Ok(())
}

/// Waits until `count` instances are ready, and the leaving instances and their last connections are gone.
async fn settled(stage: &Stage, count: u64) -> Result<()> {
    stage.until_ready("greeter", count).await?;
    stage
        .until("Pods that were to end have ended", async || {
            let pods = stage.json("get pods --selector app=greeter").await?;
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
async fn drain(stage: &Stage) -> Result<()> {
    let node = stage.kubectl("get nodes --output jsonpath={.items[0].metadata.name}").await?;
    let drained = stage
        .kubectl(&format!(
            "drain {node} --pod-selector=app=greeter --ignore-daemonsets --timeout=20s"
        ))
        .await;
    let why = drained.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(why.contains("disruption budget"), "the drain was not held by the budget: {why}");
    quote(why.lines().find(|line| line.contains("disruption budget")).unwrap_or_default());
    stage.until_ready("greeter", 2).await?;
    stage.kubectl(&format!("uncordon {node}")).await?;
    Ok(())
}
