//! Beats through gateways. Gateways and operator are replaced under them, and no instance leaves.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use beatkeeper_test_support::SliceObserver;
use serde_json::{Value, json};

use super::operator::delete_the_leader;
use super::quote;
use crate::caller::Caller;
use crate::cluster::{Cluster, PATIENCE, RELEASE, TTL, chart};

/// The gateways' Deployment.
const DEPLOYMENT: &str = "deployment/beatkeeper-gateway";
/// After this time, an instance that the operator wrongly prunes would have left.
const LATER: Duration = TTL.saturating_add(Duration::from_secs(2));

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    install(cluster).await?;
    join(cluster).await?;
    let observer = cluster.observe("carried").await?;
    let three = observer.published();
    ensure!(three.len() == 3, "published are {three:?}");
    beats_write_no_lease(cluster).await?;
    they_stay(cluster, &observer, &three).await?;
    a_dead_instance_leaves(cluster, &observer).await?;
    remove(cluster).await
}

/// Adds gateways to the release.
async fn install(cluster: &Cluster) -> Result<()> {
    let greeter = cluster.observe("greeter").await?;
    let before = greeter.published();
    upgrade(cluster, "gateway.enabled=true").await?;
    greeter.always_published(&before).context("instances of greeter")?;
    println!(
        "   helm upgrade --set gateway.enabled=true; no instance that beats by its Lease left:"
    );
    let of = format!("--namespace {RELEASE}");
    quote(
        &cluster
            .kubectl(&format!("{of} get pods,leases --selector beatkeeper.dev/gateway"))
            .await?,
    );
    Ok(())
}

/// Upgrades the release with one value changed, and waits until all its Pods run.
async fn upgrade(cluster: &Cluster, value: &str) -> Result<()> {
    let chart = chart().display().to_string();
    let mut arguments = vec!["upgrade", RELEASE, &chart, "--reset-then-reuse-values"];
    arguments.extend(["--set", value, "--wait", "--timeout=3m"]);
    cluster.helm(&arguments).await?;
    for deployment in [DEPLOYMENT, "deployment/beatkeeper"] {
        rolled_out(cluster, deployment).await?;
    }
    Ok(())
}

async fn rolled_out(cluster: &Cluster, deployment: &str) -> Result<()> {
    let status = format!("rollout status {deployment} --timeout=120s");
    cluster.kubectl(&format!("--namespace {RELEASE} {status}")).await.map(drop)
}

/// Gives the namespace the CA of the gateways, and starts three Pods.
async fn join(cluster: &Cluster) -> Result<()> {
    let of = format!("--namespace {RELEASE} get configmap beatkeeper-gateway-ca");
    let published = cluster.kubectl(&format!("{of} --output json")).await?;
    let published: Value = serde_json::from_str(&published)?;
    let copy = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "beatkeeper-gateway-ca" }, "data": published["data"],
    });
    cluster.apply(&copy.to_string(), &[]).await?;
    cluster.apply(include_str!("../../manifests/carried.yaml"), &[]).await?;
    cluster.in_namespace("rollout status deployment/carried --timeout=120s").await?;
    cluster.until_ready("carried", 3).await
}

/// Waits until gateways carry all beats: for two ttls no Lease is written, and the instances stay ready.
async fn beats_write_no_lease(cluster: &Cluster) -> Result<()> {
    let accepted = cluster
        .until("no beat writes a Lease any more", async || {
            let (before, accepted) = (versions(cluster).await?, accepted(cluster).await?);
            tokio::time::sleep(TTL + TTL).await;
            ensure!(versions(cluster).await? == before, "a Lease was written");
            ensure!(before.len() == 3, "there are other Leases than three: {before:?}");
            Ok(self::accepted(cluster).await?.checked_sub(accepted).filter(|count| *count > 0))
        })
        .await?;
    cluster.until_ready("carried", 3).await?;
    println!(
        "   in {} s, gateways accept {accepted} beats, no Lease is written, and all three stay ready",
        (TTL + TTL).as_secs()
    );
    Ok(())
}

/// The names and the versions of the Leases of the instances.
async fn versions(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let leases = cluster.json("get leases --selector beatkeeper.dev/registration=carried").await?;
    let leases = leases["items"].as_array().context("no list of Leases")?;
    let version = |lease: &Value| {
        let metadata = &lease["metadata"];
        format!("{} {}", metadata["name"], metadata["resourceVersion"])
    };
    Ok(leases.iter().map(version).collect())
}

async fn gateways(cluster: &Cluster) -> Result<Vec<String>> {
    let of = "get pods --selector app.kubernetes.io/component=gateway --output name";
    let pods = cluster.kubectl(&format!("--namespace {RELEASE} {of}")).await?;
    Ok(pods.lines().filter_map(|line| line.strip_prefix("pod/")).map(str::to_owned).collect())
}

/// A gateway that is not ending already, as those that were replaced do for a while.
async fn one_that_stays(cluster: &Cluster) -> Result<String> {
    let of = "get pods --selector app.kubernetes.io/component=gateway --output json";
    let pods = cluster.kubectl(&format!("--namespace {RELEASE} {of}")).await?;
    let pods: Value = serde_json::from_str(&pods)?;
    let mut pods = pods["items"].as_array().into_iter().flatten();
    let pod = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let name = pod.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).context("no gateway runs")
}

/// How many beats the gateways that run have accepted.
async fn accepted(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for pod in gateways(cluster).await? {
        let path = format!("/api/v1/namespaces/{RELEASE}/pods/{pod}:8081/proxy/metrics");
        let page = cluster.kubectl(&format!("get --raw {path}")).await?;
        let series = "beatkeeper_gateway_beats_total{result=\"accepted\"} ";
        let value = page.lines().find_map(|line| line.strip_prefix(series));
        sum += value.with_context(|| format!("{pod} has no {series}"))?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Replaces, kills and removes gateways and operators, and looks whether all instances stay.
async fn they_stay(
    cluster: &Cluster,
    observer: &SliceObserver,
    three: &BTreeSet<String>,
) -> Result<()> {
    let caller = Caller::start(cluster, "carried", 50).await?;
    let stay = async |what: &str| -> Result<()> {
        tokio::time::sleep(LATER).await;
        observer.always_published(three)?;
        let account = caller.account().await?;
        account.must_be_without_failure()?;
        println!("   {what}: no instance left, {} requests so far, none failed", account.count());
        Ok(())
    };

    cluster.kubectl(&format!("--namespace {RELEASE} rollout restart {DEPLOYMENT}")).await?;
    rolled_out(cluster, DEPLOYMENT).await?;
    stay("all gateways are replaced").await?;

    let changed =
        "podAnnotations.example\\.com/for=both,gateway.podAnnotations.example\\.com/for=both";
    upgrade(cluster, changed).await?;
    stay("helm upgrade replaces gateways and operator side by side").await?;

    let gateway = one_that_stays(cluster).await?;
    let kill = format!("delete pod {gateway} --wait=false --grace-period=0 --force");
    cluster.kubectl(&format!("--namespace {RELEASE} {kill}")).await?;
    let took = delete_the_leader(cluster, "--grace-period=0 --force").await?;
    let took = took.as_secs_f64();
    stay(&format!("a gateway and the leader are killed together, another leads after {took:.1} s"))
        .await?;
    rolled_out(cluster, DEPLOYMENT).await?;

    scale(cluster, 0).await?;
    tokio::time::sleep(TTL).await;
    stay("all gateways are gone for more than two ttls").await?;
    scale(cluster, 2).await?;
    rolled_out(cluster, DEPLOYMENT).await?;
    cluster
        .until("gateways carry beats again", async || {
            Ok((accepted(cluster).await? > 0).then_some(()))
        })
        .await?;
    stay("they are back").await?;
    caller.stop().await?.must_be_without_failure()
}

/// Changes the number of gateways, and waits until there are no more than that.
async fn scale(cluster: &Cluster, count: usize) -> Result<()> {
    let of = format!("--namespace {RELEASE}");
    cluster.kubectl(&format!("{of} scale {DEPLOYMENT} --replicas={count}")).await?;
    cluster
        .until("the other gateways have ended", async || {
            Ok((gateways(cluster).await?.len() <= count).then_some(()))
        })
        .await
}

/// No instance was pruned so far. This step shows that one that dies is still pruned.
async fn a_dead_instance_leaves(cluster: &Cluster, observer: &SliceObserver) -> Result<()> {
    let pod = cluster.pods("carried").await?.pop().context("no Pod of carried")?;
    let hang = format!("exec {pod} --container greeter -- /greeter hang greeter beatkeeper");
    cluster.in_namespace(&hang).await?;
    let began = Instant::now();
    observer
        .until("the one that hangs has left", PATIENCE, |history| {
            (history.published().len() == 2).then_some(())
        })
        .await?;
    println!(
        "   and after all that, a Pod that hangs leaves after {:.1} s, ttl {} s:",
        began.elapsed().as_secs_f64(),
        TTL.as_secs()
    );
    quote(&cluster.until_told("carried", &pod, "Expired").await?);
    Ok(())
}

/// Removes the instances that need gateways. The gateways stay, so that the rest of the story is told beside them.
async fn remove(cluster: &Cluster) -> Result<()> {
    cluster.in_namespace("delete deployment carried --wait=false").await?;
    // A hanging process does not handle SIGTERM.
    cluster.in_namespace("delete pods --selector app=carried --grace-period=1").await?;
    cluster
        .in_namespace(
            "delete sreg,service,configmap carried beatkeeper-gateway-ca --ignore-not-found",
        )
        .await
        .map(drop)
}
