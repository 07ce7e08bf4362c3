//! A process that hangs, by SIGSTOP: the kernel still accepts connections for it, and the process answers none.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::caller::{Account, Caller};
use crate::cluster::{Cluster, NAMESPACE, PATIENCE, TTL};
use beatkeeper_test_support::SliceObserver;

/// Longer than the kubelet's default probe needs: three failures, ten seconds apart.
const WINDOW: Duration = Duration::from_secs(50);
const RATE: u32 = 20;

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    cluster.apply(include_str!("../../manifests/plain.yaml"), &[]).await?;
    for service in ["unprobed", "probed"] {
        cluster
            .in_namespace(&format!("rollout status deployment/{service} --timeout=120s"))
            .await?;
    }
    let observer = cluster.observe("greeter").await?;
    let callers = [
        Caller::start(cluster, "greeter", RATE).await?,
        Caller::start(cluster, "probed", RATE).await?,
        Caller::start(cluster, "unprobed", RATE).await?,
    ];
    let before: Vec<_> = sent(&callers).await?;

    // First the app alone hangs, at the same moment in each Service; later, where the app beats, a whole Pod with
    // its agent.
    let began = Instant::now();
    for service in ["greeter", "probed", "unprobed"] {
        hang(cluster, service, 0, "greeter").await?;
    }
    let app = left_after(&observer, began, 2).await?;
    tokio::time::sleep(WINDOW.saturating_sub(began.elapsed())).await;
    let mut accounts = Vec::new();
    for (caller, before) in callers.iter().zip(&before) {
        accounts.push(caller.account().await?.since(*before));
    }
    println!(
        "   an app hangs, ttl {} s; {RATE} requests a second for {} s:",
        TTL.as_secs(),
        WINDOW.as_secs()
    );
    tell("   Beatkeeper", &accounts[0]);
    tell("   the kubelet's default readiness probe", &accounts[1]);
    tell("   no readiness probe", &accounts[2]);
    println!("   it was no longer ready in the slices after {:.2} s", app.as_secs_f64());
    let failed: Vec<_> = accounts.iter().map(|account| account.failed().len()).collect();
    ensure!(failed.iter().all(|count| *count > 0), "something did not hang: {failed:?}");
    ensure!(failed[0] < failed[1] && failed[1] < failed[2], "no difference: {failed:?}");

    let before = callers[0].account().await?.last_sent();
    let began = Instant::now();
    hang(cluster, "greeter", 1, "greeter beatkeeper").await?;
    let pod = left_after(&observer, began, 1).await?;
    tokio::time::sleep(TTL + TTL).await;
    let account = callers[0].account().await?.since(before);
    println!("   a whole Pod hangs, with its agent: no beats arrive, and it is pruned");
    tell("   Beatkeeper", &account);
    println!("   it was no longer ready in the slices after {:.2} s", pod.as_secs_f64());
    let late = account.since(account.last_sent().saturating_sub(3000));
    ensure!(!account.failed().is_empty() && late.failed().is_empty(), "requests still fail");

    cluster.in_namespace("delete pods --selector app=client").await?;
    cluster.in_namespace("delete deployment,service unprobed probed --wait=false").await?;
    // Hanging processes do not handle SIGTERM.
    cluster.in_namespace("delete pods --selector app=greeter --grace-period=1").await?;
    cluster.in_namespace("rollout status deployment/greeter --timeout=120s").await?;
    cluster.until_ready("greeter", 3).await
}

async fn sent(callers: &[Caller<'_>]) -> Result<Vec<u64>> {
    let mut sent = Vec::new();
    for caller in callers {
        let account = caller.account().await?;
        account.must_be_without_failure()?;
        sent.push(account.last_sent());
    }
    Ok(sent)
}

async fn hang(cluster: &Cluster, app: &str, which: usize, programs: &str) -> Result<()> {
    let mut pods = cluster.pods(app).await?;
    pods.sort();
    let pod = pods.get(which).with_context(|| format!("too few Pods of {app}"))?;
    cluster
        .kubectl(&format!(
            "--namespace {NAMESPACE} exec {pod} --container greeter -- /greeter hang {programs}"
        ))
        .await
        .map(|_| ())
}

/// Returns how long it took until only `count` instances were left.
async fn left_after(observer: &SliceObserver, began: Instant, left: usize) -> Result<Duration> {
    let what = format!("{left} are left in the slices");
    observer
        .until(&what, PATIENCE, |history| {
            let last = history.changes().last().filter(|last| last.at > began)?;
            (history.published().len() == left).then(|| last.at - began)
        })
        .await
}

fn tell(who: &str, account: &Account) {
    println!(
        "{who}: {} of {} requests failed, the last one {:.1} s after the first",
        account.failed().len(),
        account.count(),
        account.failed_for().as_secs_f64()
    );
}
