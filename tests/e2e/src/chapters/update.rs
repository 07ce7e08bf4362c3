//! An agent beside an app: its settings change and its program is replaced, and the app stays published.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use tokio::process::{Child, Command};

use super::outside::{end, signal};
use crate::caller::Caller;
use crate::cluster::{Cluster, NAMESPACE};
use crate::host::Host;

const INSTANCE: &str = "vm-4";

/// Adds an instance at `address` to the three Pods, and removes it at the end.
pub(super) async fn play(
    cluster: &Cluster,
    host: &Host,
    kubeconfig: &Path,
    address: &str,
) -> Result<()> {
    let _app = serve(host, address)?;
    let settings = kubeconfig.with_file_name("agent.yaml");
    write(&settings, address, "1")?;
    let mut agent = run(host, kubeconfig, &settings)?;
    cluster.until_ready("greeter", 4).await?;
    let observer = cluster.observe("greeter").await?;
    let caller = Caller::start(cluster, "greeter", 50).await?;

    write(&settings, address, "2")?;
    signal(&agent, Signal::HUP)?;
    let is_reloaded = async || {
        let lease = lease(cluster).await?;
        Ok((lease["metadata"]["annotations"]["beatkeeper.dev/version"] == "2").then_some(()))
    };
    cluster.until("the agent beats with its new settings", is_reloaded).await?;
    for _ in 0..3 {
        end(&mut agent, Signal::USR1).await?;
        let last = lease(cluster).await?["spec"]["renewTime"].clone();
        agent = run(host, kubeconfig, &settings)?;
        let beats = async || Ok((lease(cluster).await?["spec"]["renewTime"] != last).then_some(()));
        cluster.until("the next agent beats", beats).await?;
    }
    let account = caller.account().await?;
    account.must_be_without_failure()?;
    observer.always_published(&BTreeSet::from([address.to_owned()]))?;
    println!(
        "   the agent of {INSTANCE} is reloaded once and replaced three times: it never leaves; {} requests, none failed",
        account.count()
    );

    end(&mut agent, Signal::TERM).await?;
    cluster.until_ready("greeter", 3).await?;
    caller.stop().await?.must_be_without_failure()
}

async fn lease(cluster: &Cluster) -> Result<serde_json::Value> {
    cluster.json(&format!("get lease greeter.{INSTANCE}")).await
}

fn write(settings: &Path, address: &str, version: &str) -> Result<()> {
    let instance = json!({ "instance": INSTANCE, "addresses": [address], "appVersion": version });
    let text = json!({ "instances": [instance] }).to_string();
    std::fs::write(settings, text).with_context(|| format!("cannot write {}", settings.display()))
}

/// Starts the app alone. It is killed with the node at the latest.
fn serve(host: &Host, address: &str) -> Result<Child> {
    let mut app = Command::new(&host.greeter);
    app.args(["serve", &format!("{address}:8080")]).env("GREETER_NAME", INSTANCE);
    start(app)
}

fn run(host: &Host, kubeconfig: &Path, settings: &Path) -> Result<Child> {
    let mut agent = Command::new(&host.beatkeeper);
    agent.args(["agent", "run", "--registration", "greeter", "--namespace", NAMESPACE]);
    agent.args(["--drain-delay", "3s", "--config"]).arg(settings);
    agent.env("KUBECONFIG", kubeconfig).env_remove("POD_NAME");
    start(agent)
}

fn start(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.kill_on_drop(true).spawn();
    child.with_context(|| format!("cannot run {:?}", command.as_std().get_program()))
}
