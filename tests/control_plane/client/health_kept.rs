//! The end of an agent says nothing about the health of the instance that it has beaten for.

use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use rustix::process::Signal;
use serde_json::json;

use super::{address, agent::Agent, no_instance_has_left};
use crate::support::{TestNamespace, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_restarts_does_not_unready_what_serves() {
    let ns = TestNamespace::new("health-kept").await;
    let _operator = ns.operator();
    // A busy machine may take a while to start the agent again.
    let mut spec = TestNamespace::usual_spec();
    spec["ttl"] = "30s".into();
    ns.register("greeter", spec).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, probed) = (folder.path().join("agent.yaml"), folder.path().join("probed"));
    let probe = format!(
        "probes: [{{ exec: {{ command: [touch, {}] }}, initialDelaySeconds: 2, periodSeconds: 1,
                     timeoutSeconds: 30 }}]",
        probed.display()
    );
    std::fs::write(&config, probe).unwrap();
    let address = address(1).to_string();
    let flags = ["--instance=vm-1", "--address", &address, "--config", config.to_str().unwrap()];
    let mut agent = Agent::start_with(&ns, &flags);
    ns.published_as_ready("greeter", &[&address]).await;
    let observer = ns.observe_all().await;
    for _ in 0..2 {
        agent.signal(Signal::KILL);
        agent.exit_code().await;
        std::fs::remove_file(&probed).unwrap();
        agent = Agent::start_with(&ns, &flags);
        agent.says("with the Lease of its earlier life").await;
        eventually("it was probed", async || probed.exists().then_some(())).await;
    }
    no_instance_has_left(&observer, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_an_earlier_life_drained_is_not_kept() {
    let ns = TestNamespace::new("not-kept").await;
    ns.greeter().await;
    let flags = ["--instance=vm-1", "--address=192.0.2.1", "--probe=exec:false"];
    let mut agent = Agent::start_with(&ns, &flags);
    agent.says("beating as").await;
    agent.signal(Signal::KILL);
    agent.exit_code().await;
    // As the earlier process would have written it, and not a person.
    let fields = ns.lease("greeter.vm-1").await.unwrap().metadata.managed_fields.unwrap();
    let beats = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:renewTime"].is_null())
    };
    let field_manager = fields.iter().find(beats).unwrap().manager.clone();
    let drains = json!({ "metadata": { "annotations": { "beatkeeper.dev/health": "Draining" } } });
    ns.api::<Lease>()
        .patch(
            "greeter.vm-1",
            &PatchParams { field_manager, ..PatchParams::default() },
            &Patch::Merge(drains),
        )
        .await
        .unwrap();
    let agent = Agent::start_with(&ns, &flags);
    agent.says("with the Lease of its earlier life").await;
    eventually("it says that it fails", async || {
        let lease = ns.lease("greeter.vm-1").await?;
        (lease.annotations().get("beatkeeper.dev/health")? == "Failing").then_some(())
    })
    .await;
}
