use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::left_out;
use crate::caller::Caller;
use crate::cluster::{Cluster, RELEASE, TTL};
use crate::host::Host;
use beatkeeper_test_support::SliceObserver;

const HERD: usize = 100;
/// Several ttls.
const KUBELET_AWAY: Duration = TTL.saturating_mul(3);

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let instances: Vec<_> = (1..=HERD)
        .map(|n| json!({ "instance": format!("vm-{n}"), "addresses": [format!("192.0.2.{n}")] }))
        .collect();
    let instances = serde_json::to_string(&instances)?;
    cluster.apply(include_str!("../../manifests/herd.yaml"), &[("$INSTANCES", &instances)]).await?;
    cluster.until_ready("herd", HERD as u64).await?;
    let herd = cluster.observe("herd").await?;
    let greeter = cluster.observe("greeter").await?;
    let (all, three) = (herd.published(), greeter.published());
    ensure!(
        all.len() == HERD && three.len() == 3,
        "published are {} and {}",
        all.len(),
        three.len()
    );
    let caller = Caller::start(cluster, "greeter", 50).await?;
    println!(
        "   {HERD} outside instances beat once a second, and three Pods are called 50 times a second"
    );
    let all_stay = async |what: &str| -> Result<()> {
        herd.always_published(&all).context("instances of herd")?;
        greeter.always_published(&three).context("instances of greeter")?;
        let account = caller.account().await?;
        account.must_be_without_failure()?;
        println!("   {what}: no instance left, {} requests so far, none failed", account.count());
        Ok(())
    };

    for (how, flags) in [("with grace", ""), ("without grace", "--grace-period=0 --force")] {
        let took = delete_the_leader(cluster, flags).await?;
        // Longer than a ttl: an instance that the new leader does not know would leave now.
        tokio::time::sleep(TTL + Duration::from_secs(2)).await;
        let what = format!(
            "the leader's Pod is deleted {how}, another one leads after {:.1} s",
            took.as_secs_f64()
        );
        all_stay(&what).await?;
        cluster
            .kubectl(&format!(
                "--namespace {RELEASE} rollout status deployment/{RELEASE} --timeout=120s"
            ))
            .await?;
    }

    if let Some(host) = &cluster.host {
        let what = kubelet_is_away(cluster, host).await?;
        all_stay(&what).await?;
    } else {
        left_out("the kubelet stops and starts", "it is not ours here");
    }
    a_dead_instance_still_leaves(cluster, &greeter, &three).await?;
    caller.stop().await?;
    Ok(())
}

/// Kills the kubelet and starts it again after several ttls. Returns what happened.
async fn kubelet_is_away(cluster: &Cluster, host: &Host) -> Result<String> {
    let kubelet = host.kill_kubelet()?;
    tokio::time::sleep(KUBELET_AWAY).await;
    // The kubelet keeps running after this, as long as the node.
    let _kubelet = kubelet.start()?;
    let asked = Instant::now();
    cluster
        .until("the kubelet answers again", async || {
            cluster.in_namespace("logs pod/herd --tail=1").await.map(Some)
        })
        .await?;
    let answers = asked.elapsed();
    tokio::time::sleep(TTL).await;
    Ok(format!(
        "the kubelet is killed, and started after {} s; it answers {:.1} s later",
        KUBELET_AWAY.as_secs(),
        answers.as_secs_f64()
    ))
}

/// Deletes the leader's Pod, and returns how long it took until another Pod led.
pub(super) async fn delete_the_leader(cluster: &Cluster, flags: &str) -> Result<Duration> {
    let leader = leader(cluster).await?.context("no replica leads")?;
    let began = Instant::now();
    cluster
        .kubectl(&format!("--namespace {RELEASE} delete pod {leader} --wait=false {flags}"))
        .await?;
    cluster
        .until("another Pod leads", async || {
            Ok(leader_now(cluster).await?.filter(|now| *now != leader).map(|_| began.elapsed()))
        })
        .await
}

async fn leader(cluster: &Cluster) -> Result<Option<String>> {
    cluster
        .until("a replica leads", async || leader_now(cluster).await.map(|it| it.map(Some)))
        .await
}

/// Returns the Pod with the name that the holder of the election's Lease begins with.
async fn leader_now(cluster: &Cluster) -> Result<Option<String>> {
    let of = format!("--namespace {RELEASE}");
    let holder = cluster
        .kubectl(&format!("{of} get lease {RELEASE} --output jsonpath={{.spec.holderIdentity}}"))
        .await?;
    let pods = cluster
        .kubectl(&format!("{of} get pods --output jsonpath={{.items[*].metadata.name}}"))
        .await?;
    Ok(pods.split_whitespace().find(|pod| holder.starts_with(pod)).map(str::to_owned))
}

/// No instance was pruned so far. This step shows that an instance that dies is still pruned.
async fn a_dead_instance_still_leaves(
    cluster: &Cluster,
    greeter: &SliceObserver,
    three: &BTreeSet<String>,
) -> Result<()> {
    let pod = cluster.pods("greeter").await?.pop().context("no Pod of greeter")?;
    cluster
        .in_namespace(&format!(
            "exec {pod} --container greeter -- /greeter hang greeter beatkeeper"
        ))
        .await?;
    cluster
        .until("the one that hangs has left", async || {
            let ready = greeter.published();
            Ok((ready.is_subset(three) && ready.len() == 2).then_some(()))
        })
        .await?;
    println!("   and after all that, a Pod that hangs still leaves");
    cluster.in_namespace(&format!("delete pod {pod} --grace-period=1")).await?;
    cluster.until_ready("greeter", 3).await
}
