//! The console that the chart installs, reached through its Service.

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::quote;
use crate::cluster::{Cluster, NAMESPACE, RELEASE, chart};

/// The name by which Pods reach the Service.
const HOST: &str = "beatkeeper-console.beatkeeper";
/// A registration in a namespace that the reader may not see.
const HIDDEN: &str = "hidden-from-readers";

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    install(cluster).await?;
    let token = reader(cluster).await?;
    let events = format!("http://{HOST}/events");
    let own = format!("{events}?namespace={NAMESPACE}");

    let refused = cluster.once("console-no-token", &["read", &own]).await?;
    ensure!(
        refused.starts_with("status 401\n") && refused.contains("needs your token"),
        "without a token it answers: {refused}"
    );
    println!("   a request without a token is refused:");
    quote(&refused);

    let missing = "cannot list resource \\\"serviceregistrations\\\"";
    for url in [&events, &format!("{events}?namespace={RELEASE}")] {
        let arguments = ["read", "-token", &token, "-until", missing, url];
        let told = cluster.once("console-others", &arguments).await?;
        ensure!(told.starts_with("status 200\n"), "it answers: {told}");
        ensure!(!told.contains(HIDDEN), "a registration of another namespace is told: {told}");
    }
    println!("   of other namespaces, the reader is told which right is missing, and nothing else");
    a_death_is_seen(cluster, &token, &own).await?;
    cluster.kubectl(&format!("--namespace {RELEASE} delete sreg {HIDDEN}")).await?;
    Ok(())
}

/// Adds the console to the release.
async fn install(cluster: &Cluster) -> Result<()> {
    let before = cluster.operators().await?;
    let chart = chart().display().to_string();
    let hosts = format!("console.hosts={{{HOST}}}");
    let mut arguments = vec!["upgrade", RELEASE, &chart, "--reset-then-reuse-values"];
    arguments.extend(["--set", "console.enabled=true", "--set", &hosts]);
    arguments.extend(["--wait", "--timeout=3m"]);
    cluster.helm(&arguments).await?;
    ensure!(cluster.operators().await? == before, "the console has restarted the operator");
    println!("   helm upgrade --set console.enabled=true leaves the operator's Pods as they are:");
    quote(&cluster.kubectl(&format!("--namespace {RELEASE} get pods,services")).await?);
    Ok(())
}

/// Makes a reader of the app's namespace, and a registration that this reader may not see. Returns the reader's token.
async fn reader(cluster: &Cluster) -> Result<String> {
    let hidden = json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": HIDDEN, "namespace": RELEASE },
        "spec": { "ttl": "3s", "interval": "1s", "ports": [{ "port": 80 }] },
    });
    cluster.kubectl_with(&["apply", "--filename", "-"], &hidden.to_string()).await?;
    cluster.apply(include_str!("../../manifests/reader.yaml"), &[("$READER", "reader")]).await?;
    Ok(cluster.in_namespace("create token reader").await?.trim().to_owned())
}

/// A reader follows the stream while a Pod hangs, until it is told that this instance has expired.
async fn a_death_is_seen(cluster: &Cluster, token: &str, url: &str) -> Result<()> {
    let pods = cluster.pods("greeter").await?;
    let [pod, ..] = pods.as_slice() else { bail!("no Pod of greeter") };
    let death = format!("\"name\":\"{pod}\",\"state\":\"Expired\"");
    let name = "console-reader";
    cluster.pod(name, &["read", "-token", token, "-until", &death, url]).await?;
    let all = "[\"Ready\",3]";
    cluster
        .until("the reader is told of three instances", async || {
            Ok(cluster.in_namespace(&format!("logs {name}")).await?.contains(all).then_some(()))
        })
        .await?;
    let hang = format!("exec {pod} --container greeter -- /greeter hang greeter beatkeeper");
    cluster.in_namespace(&hang).await?;
    let told = cluster.end_of(name).await?;
    ensure!(told.contains("\"kind\":\"beats\""), "no beats are told: {told}");
    ensure!(!told.contains(HIDDEN), "a registration of another namespace is told: {told}");
    println!(
        "   through the Service, the reader of {NAMESPACE} follows beats, and is told that {pod} has expired"
    );
    cluster.in_namespace(&format!("delete pod {pod} --grace-period=1")).await?;
    cluster.until_ready("greeter", 3).await
}
