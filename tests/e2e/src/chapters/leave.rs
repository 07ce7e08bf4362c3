use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::quote;
use crate::caller::Caller;
use crate::cluster::{CRD, Cluster, RELEASE, TTL, chart};

/// After this time, an instance that the operator wrongly prunes would have left.
const LATER: Duration = TTL.saturating_mul(2);

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let observer = cluster.observe("greeter").await?;
    let three = observer.published();
    ensure!(three.len() == 3, "published are {three:?}");
    let caller = Caller::start(cluster, "greeter", 50).await?;
    let all_stay = async |what: &str| -> Result<()> {
        tokio::time::sleep(LATER).await;
        observer.always_published(&three)?;
        caller.account().await?.must_be_without_failure()?;
        println!("   {what}: no instance left, and no request failed");
        Ok(())
    };

    upgrade(cluster).await?;
    all_stay("helm upgrade, with other Pods").await?;
    cluster.helm(&["rollback", RELEASE, "1", "--wait", "--timeout=3m"]).await?;
    all_stay("helm rollback").await?;

    let published = published(cluster).await?;
    let said = cluster.helm(&["uninstall", RELEASE, "--wait"]).await?;
    ensure!(said.contains(CRD), "helm uninstall does not say what it keeps: {said}");
    cluster
        .until("the operator has ended", async || {
            Ok(cluster.operators().await?.is_empty().then_some(()))
        })
        .await?;
    all_stay("helm uninstall").await?;
    ensure!(self::published(cluster).await? == published, "uninstalling changed what is published");
    println!("   what is published stays as it was, to the resourceVersion:");
    quote(&cluster.in_namespace("get sreg,endpointslices").await?);
    caller.stop().await?;

    nothing_remains(cluster).await
}

/// Upgrades the release, and waits until other Pods of the operator run.
async fn upgrade(cluster: &Cluster) -> Result<()> {
    let before = cluster.operators().await?;
    let chart = chart().display().to_string();
    let change = "podAnnotations.example\\.com/changed=yes";
    cluster
        .helm(&[
            "upgrade",
            RELEASE,
            &chart,
            "--reset-then-reuse-values",
            "--set",
            change,
            "--wait",
            "--timeout=3m",
        ])
        .await?;
    cluster
        .until("other Pods run than before the upgrade", async || {
            let now = cluster.operators().await?;
            Ok((now.len() == 2 && before.iter().all(|pod| !now.contains(pod))).then_some(()))
        })
        .await
}

/// Runs the commands of docs/install.md, and waits until nothing is left.
async fn nothing_remains(cluster: &Cluster) -> Result<()> {
    let commands = commands_of_the_page()?;
    for command in &commands {
        cluster.shell(command).await?;
    }
    println!("   what docs/install.md says then removes all of it:");
    quote(&commands.join("\n"));
    cluster
        .until("nothing is left", async || {
            let slices = cluster
                .in_namespace("get endpointslices --selector kubernetes.io/service-name --ignore-not-found --output name")
                .await?;
            let objects = cluster
                .in_namespace("get service,endpoints greeter herd --ignore-not-found --output name")
                .await?;
            let crd = cluster.kubectl(&format!("get crd {CRD} --ignore-not-found --output name")).await?;
            let left = slices + &objects + &crd;
            // kubectl warns that Endpoints are deprecated.
            let left: Vec<_> = left.lines().filter(|line| !line.starts_with("Warning: ")).collect();
            ensure!(left.is_empty(), "there is {}", left.join(", "));
            Ok(Some(()))
        })
        .await
}

/// Returns every slice of ours with its version, so that even a write without a change is noticed.
async fn published(cluster: &Cluster) -> Result<Vec<Value>> {
    let slices =
        cluster.json("get endpointslices --selector kubernetes.io/service-name=greeter").await?;
    let slices = slices["items"].as_array().cloned().context("no list of slices")?;
    ensure!(!slices.is_empty(), "nothing is published");
    Ok(slices)
}

fn commands_of_the_page() -> Result<Vec<String>> {
    let page = include_str!("../../../../docs/install.md");
    let (_, after) =
        page.split_once("To remove all of that").context("docs/install.md has changed")?;
    let (_, block) = after.split_once("```console\n").context("no block in docs/install.md")?;
    let (block, _) = block.split_once("```").context("the block does not end")?;
    Ok(block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_commands_that_remove_what_remains() {
        let commands = commands_of_the_page().expect("commands");
        assert!(
            commands.len() >= 2 && commands.iter().all(|it| it.starts_with("kubectl delete ")),
            "{commands:?}"
        );
    }
}
