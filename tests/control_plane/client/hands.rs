//! No agent undoes what a person has set on a Lease.

use beatkeeper_api::heartbeat::{CORDONED_ANNOTATION, HEALTH_ANNOTATION, NOTE_ANNOTATION};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::agent::Agent;
use crate::support::{TestNamespace, eventually};

/// Waits until an annotation of the Lease has a value that `said` accepts.
async fn is_said(
    ns: &TestNamespace,
    annotation: &str,
    said: impl Fn(Option<&str>) -> bool,
) -> Lease {
    eventually(&format!("{annotation} is as it should be"), async || {
        let lease = ns.lease("greeter.vm-1").await?;
        said(lease.annotations().get(annotation).map(String::as_str)).then_some(lease)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_by_hand_outlives_probes_and_restarts_until_that_hand_ends_it() {
    let ns = TestNamespace::new("by-hand").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let (config, up) = (folder.path().join("agent.yaml"), folder.path().join("up"));
    let probe = format!(
        "probes: [{{ exec: {{ command: [test, -e, {}] }}, periodSeconds: 1, failureThreshold: 1 }}]",
        up.display()
    );
    std::fs::write(&config, probe).unwrap();
    std::fs::write(&up, "").unwrap();
    let flags = ["--instance=vm-1", "--address=192.0.2.1", "--config", config.to_str().unwrap()];
    let mut agent = Agent::start_with(&ns, &flags);
    agent.says("beating as").await;
    is_said(&ns, HEALTH_ANNOTATION, |health| health.is_none()).await;
    let health =
        |value: Value| json!({ "metadata": { "annotations": { HEALTH_ANNOTATION: value } } });
    ns.patch::<Lease>("greeter.vm-1", health("Draining".into())).await;
    // The agent has seen the annotation in a beat.
    let set = ns.lease("greeter.vm-1").await.unwrap();
    eventually("it beats", async || {
        let lease = ns.lease("greeter.vm-1").await?;
        (lease.spec?.renew_time? > set.spec.as_ref()?.renew_time.clone()?).then_some(())
    })
    .await;

    std::fs::remove_file(&up).unwrap();
    let failing = is_said(&ns, NOTE_ANNOTATION, |note| note.is_some()).await;
    assert_eq!(failing.annotations()[HEALTH_ANNOTATION], "Draining");
    std::fs::write(&up, "").unwrap();
    let passing = is_said(&ns, NOTE_ANNOTATION, |note| note.is_none()).await;
    assert_eq!(passing.annotations()[HEALTH_ANNOTATION], "Draining");

    agent.signal(Signal::KILL);
    agent.exit_code().await;
    let agent = Agent::start_with(&ns, &flags);
    agent.says("with the Lease of its earlier life").await;
    let taken = ns.lease("greeter.vm-1").await.unwrap();
    assert_eq!(taken.annotations()[HEALTH_ANNOTATION], "Draining");

    ns.patch::<Lease>("greeter.vm-1", health(Value::Null)).await;
    std::fs::remove_file(&up).unwrap();
    is_said(&ns, HEALTH_ANNOTATION, |health| health == Some("Failing")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_lease_says_of_health_is_mended_with_the_next_beat() {
    let ns = TestNamespace::new("put-back-health").await;
    ns.greeter().await;
    let agent = Agent::start_with(&ns, &["--instance=vm-1", "--address=192.0.2.1"]);
    agent.says("beating as").await;
    // As after a rollback of the store: the same agent has written this when its health was
    // failing.
    let params = PatchParams {
        field_manager: Some("beatkeeper-agent".to_owned()),
        ..PatchParams::default()
    };
    let failing = json!({ "metadata": { "annotations": { HEALTH_ANNOTATION: "Failing" } } });
    ns.api::<Lease>().patch("greeter.vm-1", &params, &Patch::Merge(failing)).await.unwrap();
    is_said(&ns, HEALTH_ANNOTATION, |health| health.is_none()).await;
}

/// Two machines under one name. The first stands by, and the second is dead.
async fn one_that_stands_by_takes_over(
    ns: &TestNamespace,
    set_by_hand: impl AsyncFnOnce(&TestNamespace),
) -> Lease {
    ns.greeter().await;
    let first = Agent::start_with(ns, &["--instance=vm-1", "--address=192.0.2.1"]);
    first.says("beating as").await;
    let mut second = Agent::start_with(ns, &["--instance=vm-1", "--address=192.0.2.2"]);
    first.says("this process stands by").await;
    second.signal(Signal::KILL);
    second.exit_code().await;
    set_by_hand(ns).await;
    first.says("since the other process of that name has fallen silent").await;
    // The wait is long enough for any change that the agent has to make.
    let taken = ns.lease("greeter.vm-1").await.unwrap();
    eventually("it beats", async || {
        let lease = ns.lease("greeter.vm-1").await?;
        (lease.spec?.renew_time? > taken.spec.as_ref()?.renew_time.clone()?).then_some(())
    })
    .await;
    ns.lease("greeter.vm-1").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_a_note_and_a_cordon_by_hand_outlive_that_one_that_stood_by_takes_over() {
    let ns = TestNamespace::new("stood-by-hand").await;
    let by_hand = json!({
        HEALTH_ANNOTATION: "Draining", NOTE_ANNOTATION: "new disk", CORDONED_ANNOTATION: "bad disk",
    });
    let lease = one_that_stands_by_takes_over(&ns, async |ns| {
        let patch = json!({ "metadata": { "annotations": by_hand } });
        ns.patch::<Lease>("greeter.vm-1", patch).await;
    })
    .await;
    for (name, set) in by_hand.as_object().unwrap() {
        assert_eq!(Some(&lease.annotations()[name][..]), set.as_str(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_by_command_outlives_that_one_that_stood_by_takes_over() {
    let ns = TestNamespace::new("stood-by-drain").await;
    let lease = one_that_stands_by_takes_over(&ns, async |ns| {
        let drain = ["--registration=greeter", "--instance=vm-1", "--note=new disk"];
        let drained = ns.agent_once("drain", &drain).await;
        assert!(drained.status.success(), "{drained:?}");
    })
    .await;
    assert_eq!(lease.annotations()[HEALTH_ANNOTATION], "Draining");
    assert_eq!(lease.annotations()[NOTE_ANNOTATION], "new disk");
}
