//! Signals that arrive while a wrapped command is about to end.

use std::fs;

use beatkeeper_api::heartbeat::HEALTH_ANNOTATION;
use kube::ResourceExt;
use rustix::process::Signal;

use super::{exit_code, signal, vm_1};
use crate::support::{TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_every_signal_while_it_drains_and_is_drained_for_once() {
    let ns = TestNamespace::new("agent-ending").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    // The command ends on the second request only.
    let script = format!(
        "n=0; trap 'n=$((n+1)); touch {place}/term-$n; [ $n = 1 ] || exit 9' TERM; \
         trap 'touch {place}/hup' HUP; touch {place}/listens; while :; do sleep 0.05; done"
    );
    let mut agent = ns.agent("exec", &vm_1(&["--drain-delay=1h", "--", "sh", "-c", &script]));
    let is_there = async |name: &str| {
        let path = folder.path().join(name);
        eventually(&format!("there is {name}"), async || fs::exists(&path).unwrap().then_some(()))
            .await;
    };
    is_there("listens").await;
    eventually("it is registered", async || ns.lease("greeter.vm-1").await).await;
    signal(&agent, Signal::TERM);
    eventually("it drains", async || {
        let lease = ns.lease("greeter.vm-1").await?;
        (lease.annotations().get(HEALTH_ANNOTATION)? == "Draining").then_some(())
    })
    .await;
    signal(&agent, Signal::HUP);
    is_there("hup").await;
    assert!(!folder.path().join("term-1").exists(), "the drain was cut short");
    // The second request ends the drain. The next one goes to the command.
    signal(&agent, Signal::TERM);
    is_there("term-1").await;
    signal(&agent, Signal::TERM);
    assert_eq!(exit_code(&mut agent).await, Some(9));
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}
