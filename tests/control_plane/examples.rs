//! The programs in examples/ beat on a real control plane, each in its own language.

mod manifests;
mod program;
mod rust;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{coordination::v1::Lease, rbac::v1::RoleBinding};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::support::{Shop, Vigil, eventually};
use program::{Program, Settings};

const ADDRESS: &str = "192.0.2.11";
const LEASE: &str = "greeter.vm-1";

/// Runs an instance twice: it loses its Lease and its rights, is killed, returns, and deregisters.
async fn beats_is_pruned_comes_back_and_leaves(program: Program) {
    let shop = Shop::open(&format!("example-{}", program.name())).await;
    let _operator = shop.operator();
    let settings = Settings::of(&shop, "vm-1", ADDRESS).await;
    declare(&shop).await;

    let first = program.start(&settings);
    shop.published_as_ready("greeter", &[ADDRESS]).await;
    for _ in 0..3 {
        beats_on(&shop).await;
    }
    let uid = lease(&shop).await.unwrap().metadata.uid;
    shop.api::<Lease>().delete(LEASE, &DeleteParams::default()).await.unwrap();
    eventually("the Lease that was deleted is made again", async || {
        lease(&shop).await.filter(|again| again.metadata.uid != uid)
    })
    .await;
    shop.published_as_ready("greeter", &[ADDRESS]).await;
    shop.api::<RoleBinding>().delete("heartbeat", &DeleteParams::default()).await.unwrap();
    first.says("beat failed").await;
    program::apply(&shop, program::ROLE).await;
    beats_on(&shop).await;
    shop.published_as_ready("greeter", &[ADDRESS]).await;
    first.kill();
    shop.published_as_ready("greeter", &[]).await;
    shop.instance("greeter", "vm-1", "Expired", "TTLPassed").await;

    let uid = lease(&shop).await.unwrap().metadata.uid;
    let second = program.start(&settings);
    shop.published_as_ready("greeter", &[ADDRESS]).await;
    assert_eq!(
        lease(&shop).await.unwrap().metadata.uid,
        uid,
        "it makes another Lease than its own"
    );
    second.terminate().await;
    assert_eq!(lease(&shop).await, None, "it has ended, and its Lease is there");
    shop.published_as_ready("greeter", &[]).await;

    // A Pod gets these settings from its kubelet. The API server knows the address.
    let uid = shop.pod("greeter-0", &["192.0.2.12"], json!({})).await;
    let in_pod = program.start(&settings.in_pod("greeter-0", &uid));
    shop.published_as_ready("greeter", &["192.0.2.12"]).await;
    in_pod.terminate().await;
    shop.published_as_ready("greeter", &[]).await;
}

/// Replaces the file of a token that is bound to a Pod, and revokes the old token.
async fn keeps_its_place_with_another_token(program: Program) {
    let shop = Shop::open(&format!("token-{}", program.name())).await;
    let _operator = shop.operator();
    let settings = Settings::of(&shop, "vm-1", ADDRESS).await;
    let token = async |pod: &str| {
        shop.pod(pod, &[], json!({ "serviceAccountName": "heartbeat" })).await;
        shop.plane.token(&shop.namespace, "heartbeat", Some(pod)).await.unwrap()
    };
    let (old, new) = (token("first").await, token("second").await);
    settings.replace_token(&old);
    declare(&shop).await;
    let running = program.start(&settings);
    shop.published_as_ready("greeter", &[ADDRESS]).await;
    let vigil = Vigil::keep(&shop, "greeter").await;

    settings.replace_token(&new);
    shop.delete_pod("first", 0).await;
    let client = shop.plane.client_with_token(&old).unwrap();
    let registrations: Api<ServiceRegistration> = Api::namespaced(client, &shop.namespace);
    eventually("the API server refuses the old token", async || {
        let refused = registrations.get("greeter").await.err()?;
        matches!(refused, kube::Error::Api(status) if status.code == 401).then_some(())
    })
    .await;
    // This takes longer than the ttl.
    for _ in 0..10 {
        beats_on(&shop).await;
    }
    assert_eq!(vigil.left(), [""; 0]);
    running.terminate().await;
    assert_eq!(lease(&shop).await, None, "it has ended, and its Lease is there");
}

/// The registration of the examples, with a short ttl and interval.
async fn declare(shop: &Shop) {
    program::apply(shop, program::REGISTRATION).await;
    let spec = json!({ "spec": { "ttl": "4s", "interval": "500ms" } });
    shop.patch::<ServiceRegistration>("greeter", spec).await;
}

async fn lease(shop: &Shop) -> Option<Lease> {
    shop.api().get_opt(LEASE).await.unwrap()
}

async fn beats_on(shop: &Shop) {
    let renewed = async || lease(shop).await?.spec?.renew_time;
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
