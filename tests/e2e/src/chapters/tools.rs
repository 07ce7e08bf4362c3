//! The tools of those who operate an installation.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{explain, left_out, quote};
use crate::cluster::{Cluster, NAMESPACE, RELEASE};
use crate::command;
use crate::plugin::Plugin;

/// The ClusterRole with the rights of the operator.
const ROLE: &str = "clusterrole/beatkeeper-operator";
/// How each token of a ServiceAccount begins: it is a JSON object in base64 whose first field is `alg`.
const TOKEN: &str = "eyJhbGciOi";

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let Some(plugin) = &cluster.plugin else {
        left_out("what kubectl beatkeeper says", "BEATKEEPER_PLUGIN names no kubectl-beatkeeper");
        return Ok(());
    };
    check(cluster, plugin).await?;
    explain::play(cluster, plugin).await?;
    log_level(cluster, plugin).await?;
    support_bundle(cluster, plugin).await
}

async fn check(cluster: &Cluster, plugin: &Plugin) -> Result<()> {
    until_failed(cluster, plugin, &[]).await?;
    println!("   kubectl beatkeeper check finds that all is well, and ends with 0:");
    quote(&plugin.succeed(&["check"]).await?);

    let role = cluster.kubectl(&format!("get {ROLE} --output json")).await?;
    let role: Value = serde_json::from_str(&role)?;
    let rules = role["rules"].as_array().context("a role without rules")?;
    let of_events = rules.iter().position(|rule| rule["resources"] == json!(["events"]));
    let of_events = of_events.context("no rule for events")?;
    patch(cluster, &json!([{ "op": "remove", "path": format!("/rules/{of_events}") }])).await?;
    until_failed(cluster, plugin, &["operator-rights"]).await?;
    println!("   without the operator's right to write events, exactly this check fails, with 1:");
    quote(&plugin.run(&["check", "--output", "short"]).await?.out);
    patch(cluster, &json!([{ "op": "replace", "path": "/rules", "value": rules }])).await?;
    until_failed(cluster, plugin, &[]).await
}

async fn patch(cluster: &Cluster, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    cluster.kubectl_with(&["patch", ROLE, "--type=json", "--patch", &patch], "").await?;
    Ok(())
}

/// Waits until exactly these checks fail, and the exit code agrees.
async fn until_failed(cluster: &Cluster, plugin: &Plugin, expected: &[&str]) -> Result<()> {
    let code = if expected.is_empty() { 0 } else { 1 };
    cluster
        .until(&format!("these checks fail: {expected:?}"), async || {
            let ended = plugin.run(&["check", "--output", "json"]).await?;
            let document: Value = serde_json::from_str(&ended.out).context(ended.err)?;
            let checks = document["checks"].as_array().context("no checks")?;
            let of = |outcome: &str| -> Vec<&str> {
                let some = checks.iter().filter(|it| it["outcome"] == outcome);
                some.filter_map(|it| it["name"].as_str()).collect()
            };
            let failed = of("failed");
            let unknown = of("unknown");
            ensure!(failed == expected, "failed are {failed:?}");
            ensure!(unknown.is_empty(), "unknown are {unknown:?}");
            ensure!(ended.code == Some(code), "the exit code is {:?}", ended.code);
            Ok(Some(()))
        })
        .await
}

async fn log_level(cluster: &Cluster, plugin: &Plugin) -> Result<()> {
    let pods = cluster.operators().await?;
    ensure!(pods.len() == 2, "the operator has other Pods than two: {pods:?}");
    for (level, changed, registration) in [
        ("debug", "level=Debug", "told-in-detail"),
        ("configured", "level=Configured", "told-in-brief"),
    ] {
        let said = plugin.succeed(&["--namespace", RELEASE, "loglevel", "all", level]).await?;
        quote(&said);
        for pod in &pods {
            let told = format!("pod/{pod} log level set to {level}");
            ensure!(said.lines().any(|line| line == told), "{pod} is missing: {said}");
        }
        cluster
            .until(&format!("all replicas log {changed}"), async || {
                let logs = logs_since(cluster, &pods, changed).await?;
                Ok(logs.iter().all(Option::is_some).then_some(()))
            })
            .await?;
        // Work that the leader does, and describes in detail if it was told to.
        let object = json!({
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "metadata": { "name": registration },
            "spec": { "ttl": "3s", "interval": "1s", "ports": [{ "port": 80 }] },
        });
        cluster.apply(&object.to_string(), &[]).await?;
        cluster.in_namespace(&format!("wait --for=condition=Ready sreg/{registration}")).await?;
        // The creation of the Service is logged on either level. A line comes to the kubelet a moment after it was written.
        let words = format!("registration={NAMESPACE}/{registration}");
        let in_detail = level == "debug";
        let logs = cluster
            .until(&format!("they log what they do after loglevel all {level}"), async || {
                let logs = logs_since(cluster, &pods, changed).await?;
                let logs: String = logs.into_iter().flatten().collect();
                let is_told = logs.contains(&words) && (!in_detail || logs.contains("DEBUG"));
                ensure!(is_told, "they log: {logs}");
                Ok(Some(logs))
            })
            .await?;
        let detailed = logs.contains("DEBUG");
        ensure!(detailed == in_detail, "after loglevel all {level} they log: {logs}");
        cluster.in_namespace(&format!("delete sreg {registration}")).await?;
    }
    println!(
        "   both replicas logged the change; what they do is in the log in between, and not afterwards"
    );
    Ok(())
}

/// Returns what each Pod has logged after the last line with these words, or `None` if it has no such line.
async fn logs_since(
    cluster: &Cluster,
    pods: &[String],
    words: &str,
) -> Result<Vec<Option<String>>> {
    let mut logs = Vec::new();
    for pod in pods {
        let log = cluster
            .kubectl(&format!("--namespace {RELEASE} logs {pod} --container controller --tail=-1"))
            .await?;
        logs.push(log.rsplit_once(words).map(|(_, after)| after.to_owned()));
    }
    Ok(logs)
}

async fn support_bundle(cluster: &Cluster, plugin: &Plugin) -> Result<()> {
    let (file, folder) = (cluster.file("bundle.tar.gz"), cluster.file("bundle"));
    let output = format!("--output={}", file.display());
    let said = plugin.succeed(&["--namespace", NAMESPACE, "support-bundle", &output]).await?;
    quote(&said);
    std::fs::create_dir(&folder)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(&file).arg("--directory").arg(&folder);
    command::run(tar, "").await?;
    let mut files = Vec::new();
    read(&folder, &mut files)?;

    for pod in cluster.operators().await? {
        for (name, words) in [("log.txt", "level=Debug"), ("metrics.txt", "beatkeeper_beats_total")]
        {
            let ending = format!("/operator/{pod}/{name}");
            let found = files.iter().find(|(path, _)| path.ends_with(&ending));
            let (path, text) = found.with_context(|| format!("the bundle has no {ending}"))?;
            ensure!(text.contains(words), "{path} has no {words}");
        }
    }
    let tokens: BTreeSet<String> = match &cluster.host {
        Some(host) => host.tokens()?.into_iter().collect(),
        None => BTreeSet::new(),
    };
    for (path, text) in &files {
        ensure!(!text.contains(TOKEN), "{path} has a token of a ServiceAccount");
        ensure!(
            tokens.iter().all(|token| !text.contains(&**token)),
            "{path} has the token of a Pod"
        );
    }
    println!(
        "   it has the logs and the metrics of both replicas, and nothing in it looks like a token"
    );
    if cluster.host.is_some() {
        let known = tokens.iter().all(|token| token.starts_with(TOKEN));
        ensure!(tokens.len() > 4 && known, "the tokens of Pods are others: {}", tokens.len());
        println!("   none of the {} tokens that Pods on this node have is in it", tokens.len());
    }
    Ok(())
}

/// Reads all files in a folder and below it, with their paths.
fn read(folder: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => read(&path, files)?,
            false => files.push((path.display().to_string(), std::fs::read_to_string(&path)?)),
        }
    }
    Ok(())
}
