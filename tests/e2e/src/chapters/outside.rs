//! Processes on the node itself, of which Kubernetes does not know.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{left_out, quote, update};
use crate::caller::Caller;
use crate::cluster::{Cluster, NAMESPACE, PATIENCE, TTL};
use crate::host::{ADDRESSES, Host};
use beatkeeper_test_support::SliceObserver;

pub(super) async fn play(cluster: &Cluster) -> Result<()> {
    let Some(host) = &cluster.host else {
        left_out(
            "instances outside the cluster",
            "no address of this machine is known to be reachable from Pods",
        );
        return Ok(());
    };
    host.take_addresses().await?;
    let [declared, registered, _] = ADDRESSES;
    cluster.in_namespace("create serviceaccount outside").await?;
    cluster
        .in_namespace(&format!(
            "create rolebinding outside --clusterrole beatkeeper-register --serviceaccount {NAMESPACE}:outside"
        ))
        .await?;
    let token = cluster.in_namespace("create token outside").await?;
    let kubeconfig = cluster.kubeconfig("outside", token.trim()).await?;
    declare(cluster, &json!([{ "name": "vm-1", "addresses": [declared] }])).await?;

    let observer = cluster.observe("greeter").await?;
    let first = spawn(host, &kubeconfig, "vm-1", declared, false)?;
    let mut second = spawn(host, &kubeconfig, "vm-2", registered, true)?;
    cluster.until_ready("greeter", 5).await?;
    let both: BTreeSet<_> = [declared, registered].map(str::to_owned).into();
    observer
        .until("both are published", PATIENCE, |history| {
            history.published().is_superset(&both).then_some(())
        })
        .await?;
    let caller = Caller::start(cluster, "greeter", 50).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let account = caller.account().await?;
    account.must_be_without_failure()?;
    let answers = account.answers();
    ensure!(
        answers.contains_key("vm-1") && answers.contains_key("vm-2"),
        "they are not reached: {answers:?}"
    );
    println!(
        "   vm-1 is declared, vm-2 registers itself; the ClusterIP leads to both, too: {answers:?}"
    );

    forbidden_is_rejected(cluster, host, &kubeconfig, &observer).await?;

    let before = caller.account().await?.last_sent();
    end(&mut second, Signal::TERM).await?;
    gone(&observer, registered, Instant::now()).await?;
    caller.account().await?.since(before).must_be_without_failure()?;
    println!("   vm-2 is stopped: it drains, deregisters and ends; no request failed");

    killed_is_pruned(first, &observer, caller).await?;
    declare(cluster, &Value::Null).await?;
    cluster.until_ready("greeter", 3).await?;
    update::play(cluster, host, &kubeconfig, registered).await
}

/// Declares the outside instances of the registration.
async fn declare(cluster: &Cluster, instances: &Value) -> Result<()> {
    // As one argument: this JSON has no spaces.
    let patch = json!({ "spec": { "instances": instances } });
    cluster.in_namespace(&format!("patch sreg greeter --type=merge --patch {patch}")).await?;
    Ok(())
}

async fn forbidden_is_rejected(
    cluster: &Cluster,
    host: &Host,
    kubeconfig: &Path,
    observer: &SliceObserver,
) -> Result<()> {
    let [.., forbidden] = ADDRESSES;
    let mut third = spawn(host, kubeconfig, "vm-3", forbidden, true)?;
    let why = cluster.until_told("greeter", "vm-3", "Rejected").await?;
    ensure!(!observer.published().contains(forbidden), "{forbidden} is published");
    println!(
        "   vm-3 registers itself with an address outside the allowed ranges, and is not published:"
    );
    quote(&why);
    end(&mut third, Signal::KILL).await?;
    Ok(())
}

async fn killed_is_pruned(
    mut first: Child,
    observer: &SliceObserver,
    caller: Caller<'_>,
) -> Result<()> {
    let [declared, ..] = ADDRESSES;
    let before = caller.account().await?.last_sent();
    let killed = Instant::now();
    end(&mut first, Signal::KILL).await?;
    let took = gone(observer, declared, killed).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let account = caller.stop().await?.since(before);
    println!(
        "   vm-1 is killed: pruned after {:.2} s, ttl {} s; {} of {} requests failed, the last one {:.1} s after the first",
        took.as_secs_f64(),
        TTL.as_secs(),
        account.failed().len(),
        account.count(),
        account.failed_for().as_secs_f64()
    );
    let late = account.since(account.last_sent().saturating_sub(1500));
    ensure!(late.failed().is_empty(), "requests still fail");
    Ok(())
}

/// Starts the agent, which starts the app. Both are killed with the node at the latest.
fn spawn(
    host: &Host,
    kubeconfig: &Path,
    name: &str,
    address: &str,
    names_it: bool,
) -> Result<Child> {
    let mut agent = Command::new(&host.beatkeeper);
    agent.args([
        "agent",
        "exec",
        "--registration",
        "greeter",
        "--namespace",
        NAMESPACE,
        "--instance",
        name,
    ]);
    agent.args(["--drain-delay", "3s"]);
    if names_it {
        agent.args(["--address", address]);
    }
    agent
        .arg("--")
        .arg(&host.greeter)
        .args(["serve", &format!("{address}:8080")])
        .env("KUBECONFIG", kubeconfig)
        .env("GREETER_NAME", name)
        .env_remove("POD_NAME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Both processes are killed at once, as if a machine loses its power.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", host.beatkeeper.display()))
}

/// Sends a signal to the agent. SIGKILL is also sent to the app.
pub(super) fn signal(agent: &Child, how: Signal) -> Result<()> {
    let id = agent.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let id = id.context("it has ended already")?;
    match how {
        Signal::KILL => kill_process_group(id, how)?,
        _ => kill_process(id, how)?,
    }
    Ok(())
}

/// Ends an agent by a signal, and waits until it has ended.
pub(super) async fn end(agent: &mut Child, how: Signal) -> Result<()> {
    signal(agent, how)?;
    agent.wait().await?;
    Ok(())
}

async fn gone(observer: &SliceObserver, address: &str, since: Instant) -> Result<Duration> {
    let what = format!("{address} has left the slices");
    let left = observer.until(&what, PATIENCE, |history| history.since(address, false)).await?;
    Ok(left.saturating_duration_since(since))
}
