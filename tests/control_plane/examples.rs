//! The programs in examples/ beat on a real control plane, each in its own language.

mod manifests;
mod program;
mod rust;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{coordination::v1::Lease, rbac::v1::RoleBinding};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::support::{TestNamespace, eventually};
use program::{Program, Settings};

const ADDRESS: &str = "192.0.2.11";
const LEASE: &str = "greeter.vm-1";

/// Runs an instance twice: it loses its Lease and its rights, is killed, returns, and deregisters.
async fn beats_is_pruned_comes_back_and_leaves(program: Program) {
    let ns = TestNamespace::new(&format!("example-{}", program.name())).await;
    let _operator = ns.operator();
    let settings = Settings::of(&ns, "vm-1", ADDRESS).await;
    declare(&ns).await;

    let first = program.start(&settings);
    ns.published_as_ready("greeter", &[ADDRESS]).await;
    for _ in 0..3 {
        beats_on(&ns).await;
    }
    let uid = lease(&ns).await.unwrap().metadata.uid;
    ns.api::<Lease>().delete(LEASE, &DeleteParams::default()).await.unwrap();
    eventually("the Lease that was deleted is made again", async || {
        lease(&ns).await.filter(|again| again.metadata.uid != uid)
    })
    .await;
    ns.published_as_ready("greeter", &[ADDRESS]).await;
    ns.api::<RoleBinding>().delete("heartbeat", &DeleteParams::default()).await.unwrap();
    first.says("beat failed").await;
    program::apply(&ns, program::ROLE).await;
    beats_on(&ns).await;
    ns.published_as_ready("greeter", &[ADDRESS]).await;
    first.kill();
    ns.published_as_ready("greeter", &[]).await;
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;

    let uid = lease(&ns).await.unwrap().metadata.uid;
    let second = program.start(&settings);
    ns.published_as_ready("greeter", &[ADDRESS]).await;
    assert_eq!(lease(&ns).await.unwrap().metadata.uid, uid, "it makes another Lease than its own");
    second.terminate().await;
    assert_eq!(lease(&ns).await, None, "it has ended, and its Lease is there");
    ns.published_as_ready("greeter", &[]).await;

    // A Pod gets these settings from its kubelet. The API server knows the address.
    let uid = ns.pod("greeter-0", &["192.0.2.12"], json!({})).await;
    let in_pod = program.start(&settings.in_pod("greeter-0", &uid));
    ns.published_as_ready("greeter", &["192.0.2.12"]).await;
    in_pod.terminate().await;
    ns.published_as_ready("greeter", &[]).await;
}

/// Replaces the file of a token that is bound to a Pod, and revokes the old token.
async fn keeps_its_place_with_another_token(program: Program) {
    let ns = TestNamespace::new(&format!("token-{}", program.name())).await;
    let _operator = ns.operator();
    let settings = Settings::of(&ns, "vm-1", ADDRESS).await;
    let token = async |pod: &str| {
        ns.pod(pod, &[], json!({ "serviceAccountName": "heartbeat" })).await;
        ns.plane.token(&ns.name, "heartbeat", Some(pod)).await.unwrap()
    };
    let (old, new) = (token("first").await, token("second").await);
    settings.replace_token(&old);
    declare(&ns).await;
    let running = program.start(&settings);
    ns.published_as_ready("greeter", &[ADDRESS]).await;
    let observer = ns.observe("greeter").await;

    settings.replace_token(&new);
    ns.delete_pod("first", 0).await;
    let client = ns.plane.client_with_token(&old).unwrap();
    let registrations: Api<ServiceRegistration> = Api::namespaced(client, &ns.name);
    eventually("the API server refuses the old token", async || {
        let refused = registrations.get("greeter").await.err()?;
        matches!(refused, kube::Error::Api(status) if status.code == 401).then_some(())
    })
    .await;
    // This takes longer than the ttl.
    for _ in 0..10 {
        beats_on(&ns).await;
    }
    assert_eq!(observer.left(), [""; 0]);
    running.terminate().await;
    assert_eq!(lease(&ns).await, None, "it has ended, and its Lease is there");
}

/// The registration of the examples, with a short ttl and interval.
async fn declare(ns: &TestNamespace) {
    program::apply(ns, program::REGISTRATION).await;
    let spec = json!({ "spec": { "ttl": "4s", "interval": "500ms" } });
    ns.patch::<ServiceRegistration>("greeter", spec).await;
}

async fn lease(ns: &TestNamespace) -> Option<Lease> {
    ns.api().get_opt(LEASE).await.unwrap()
}

async fn beats_on(ns: &TestNamespace) {
    let renewed = async || lease(ns).await?.spec?.renew_time;
    let before = renewed().await;
    eventually("another beat", async || renewed().await.filter(|now| Some(now) != before.as_ref()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_script_beats_is_pruned_when_killed_and_leaves_at_once_when_stopped() {
    beats_is_pruned_comes_back_and_leaves(Program::Shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_beats_is_pruned_when_killed_and_leaves_at_once_when_stopped() {
    beats_is_pruned_comes_back_and_leaves(Program::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_program_beats_is_pruned_when_killed_and_leaves_at_once_when_stopped() {
    beats_is_pruned_comes_back_and_leaves(Program::Go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_program_beats_is_pruned_when_killed_and_leaves_at_once_when_stopped() {
    beats_is_pruned_comes_back_and_leaves(Program::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_keeps_its_place_when_its_token_is_replaced_and_the_old_one_revoked() {
    keeps_its_place_with_another_token(Program::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_program_keeps_its_place_when_its_token_is_replaced_and_the_old_one_revoked() {
    keeps_its_place_with_another_token(Program::Go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_program_keeps_its_place_when_its_token_is_replaced_and_the_old_one_revoked() {
    keeps_its_place_with_another_token(Program::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_script_keeps_its_place_when_its_token_is_replaced_and_the_old_one_revoked() {
    keeps_its_place_with_another_token(Program::Shell).await;
}

#[test]
fn every_example_is_short_enough_to_be_read_at_once() {
    let languages = Program::ALL.map(|program| (program.source(), 75));
    let services = ["plain", "web", "grpc"].map(|name| (program::sdk_source(name), 70));
    for (path, limit) in languages.into_iter().chain(services) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < limit, "{} has {lines} lines", path.display());
    }
}
