use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::quote;
use crate::caller::Caller;
use crate::stage::{CRD, RELEASE, Stage, TTL, chart};
use crate::witness::Witness;

/// After this time, an instance that the operator wrongly prunes would have left.
const LATER: Duration = TTL.saturating_mul(2);

pub(super) async fn play(stage: &Stage) -> Result<()> {
    let witness = Witness::of(stage, "greeter").await?;
    let three = witness.ready();
    ensure!(three.len() == 3, "published are {three:?}");
    let caller = Caller::start(stage, "greeter", 50).await?;
    let operators = async || -> Result<Vec<String>> {
        let of = format!(
            "--namespace {RELEASE} get pods --selector app.kubernetes.io/component=operator --output jsonpath={{.items[*].metadata.name}}"
        );
        Ok(stage.kubectl(&of).await?.split_whitespace().map(str::to_owned).collect())
    };
    let nobody_left = async |what: &str| -> Result<()> {
        tokio::time::sleep(LATER).await;
        witness.never_missed(&three)?;
        caller.account().await?.must_be_without_failure()?;
        println!("   {what}: nobody left for a moment, and no request failed");
        Ok(())
    };

    let before = operators().await?;
    let chart = chart().display().to_string();
    let change = "podAnnotations.example\\.com/changed=yes";
    stage
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
    stage
        .until("other Pods run than before the upgrade", async || {
            let now = operators().await?;
            Ok((now.len() == 2 && before.iter().all(|pod| !now.contains(pod))).then_some(()))
        })
        .await?;
    nobody_left("helm upgrade, with other Pods").await?;
    stage.helm(&["rollback", RELEASE, "1", "--wait", "--timeout=3m"]).await?;
    nobody_left("helm rollback").await?;

    let published = published(stage).await?;
    let said = stage.helm(&["uninstall", RELEASE, "--wait"]).await?;
    ensure!(said.contains(CRD), "helm uninstall does not say what it keeps: {said}");
    stage
        .until("the operator has ended", async || Ok(operators().await?.is_empty().then_some(())))
        .await?;
    nobody_left("helm uninstall").await?;
    ensure!(self::published(stage).await? == published, "uninstalling changed what is published");
    println!("   what is published stays as it was, to the resourceVersion:");
    quote(&stage.shop("get sreg,endpointslices").await?);
    caller.stop().await?;

    let commands = commands_of_the_page()?;
    for command in &commands {
        stage.shell(command).await?;
    }
    println!("   what docs/install.md says then removes all of it:");
    quote(&commands.join("\n"));
    stage
        .until("nothing is left", async || {
            let slices = stage
                .shop("get endpointslices --selector kubernetes.io/service-name --ignore-not-found --output name")
                .await?;
            let objects = stage
                .shop("get service,endpoints greeter herd --ignore-not-found --output name")
                .await?;
            let crd = stage.kubectl(&format!("get crd {CRD} --ignore-not-found --output name")).await?;
            let left = slices + &objects + &crd;
            // kubectl warns that Endpoints are deprecated.
            let left: Vec<_> = left.lines().filter(|line| !line.starts_with("Warning: ")).collect();
            ensure!(left.is_empty(), "there is {}", left.join(", "));
            Ok(Some(()))
        })
        .await
}

/// Returns every slice of ours with its version, so that even a write without a change is noticed.
async fn published(stage: &Stage) -> Result<Vec<Value>> {
    let slices =
        stage.json("get endpointslices --selector kubernetes.io/service-name=greeter").await?;
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
