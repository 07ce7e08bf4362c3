//! The targets of `beatkeeper agent proxy` change while it runs.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use rustix::process::Signal;
use tokio::net::TcpListener;

use super::{address, agent::Agent};
use crate::support::{
    ServiceObserver, TestNamespace, eventually, observer::set, prometheus::free_port,
};

/// A target that is probed at a port of this machine.
fn target(n: usize, more: &str, probe: &str, port: u16) -> String {
    format!(
        "- {{ instance: db-{n}, addresses: [{}]{more}, probes: [{{ tcpSocket: {{ port: {port} }}, \
         periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 30{probe} }}] }}\n",
        address(n)
    )
}

fn write(file: &Path, targets: &[String]) {
    std::fs::write(file, format!("instances:\n{}", targets.concat())).unwrap();
}

async fn has_left(ns: &TestNamespace, lease: &str) {
    eventually(&format!("{lease} is gone"), async || ns.lease(lease).await.is_none().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_changes_keeps_its_place_until_it_was_probed_and_one_that_is_removed_leaves()
{
    let ns = TestNamespace::new("targets").await;
    let _operator = ns.operator();
    ns.greeter().await;
    // Nobody else listens at the second port later.
    let (port, other) = (free_port(), free_port());
    let _up = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let down = TcpListener::bind(("127.0.0.1", other)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.yaml");
    write(&config, &[target(1, "", "", port), target(2, "", "", port), target(3, "", "", other)]);
    let flags = ["--config", config.to_str().unwrap()];
    let mut agent = Agent::start_to(&ns, "proxy", &flags);
    let [one, two, three] = [1, 2, 3].map(|n| address(n).to_string());
    ns.published_as_ready("greeter", &[&one, &two, &three]).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;

    // One target will be probed later than its ttl, one is removed while it is alive, and one while
    // it is silent.
    drop(down);
    agent.says("greeter.db-3: silent from here on").await;
    write(&config, &[target(1, ", appVersion: '2'", ", initialDelaySeconds: 8", port)]);
    let asked = Instant::now();
    agent.signal(Signal::HUP);
    agent.says("reloaded: 0 added, 1 changed, 2 removed").await;
    has_left(&ns, "greeter.db-2").await;
    has_left(&ns, "greeter.db-3").await;
    let version = async || {
        let lease = ns.lease("greeter.db-1").await?;
        lease.annotations().get("beatkeeper.dev/version").cloned()
    };
    let told = version().await;
    // The probes by its new settings begin after eight seconds.
    let early = asked.elapsed() < Duration::from_secs(8);
    assert!(told.is_none() || !early, "nothing is known of it by its new settings: {told:?}");
    eventually("it is beaten for by its new settings", async || version().await).await;
    observer.never_missed(&set(&[&one]));

    // The agent stops beating for a target that is dead with its new settings.
    write(&config, &[target(1, ", appVersion: '3'", "", other)]);
    agent.signal(Signal::HUP);
    ns.instance("greeter", "db-1", "Expired", "TTLPassed").await;
    assert_eq!(version().await.as_deref(), Some("2"));

    // The target is changed before its state is known, and then removed.
    write(&config, &[target(1, "", "", port)]);
    agent.signal(Signal::HUP);
    ns.published_as_ready("greeter", &[&one]).await;
    write(&config, &[target(1, "", ", initialDelaySeconds: 3600", port), target(2, "", "", port)]);
    agent.signal(Signal::HUP);
    ns.published_as_ready("greeter", &[&one, &two]).await;
    write(&config, &[target(2, "", "", port)]);
    agent.signal(Signal::HUP);
    has_left(&ns, "greeter.db-1").await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit_code().await, Some(0));
    assert!(ns.lease("greeter.db-2").await.is_some(), "the target did not end with the agent");
}
