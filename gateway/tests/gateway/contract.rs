//! The contract of docs/heartbeat.md, with the host name of a gateway.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use beatkeeper_gateway::settings::Settings;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::AuthInfo,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use crate::support::{
    clients::{beat, page, renewal},
    leader::{PACE, lease},
    soon, until,
    world::{World, ready, served},
};

const PAGE: &str = include_str!("../../../docs/heartbeat.md");

/// The block of the page that beats with curl.
fn curl_of_the_page() -> &'static str {
    let blocks = PAGE.split("```bash\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut blocks = blocks.filter(|block| block.starts_with("curl"));
    blocks.next().expect("a block with curl")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_command_of_the_page_beats_at_a_gateway() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let now = r#"now() { date -u +%Y-%m-%dT%H:%M:%S.%6NZ; }"#;
    for _ in 0..2 {
        let mut command = tokio::process::Command::new("bash");
        command
            .args(["-euc", &format!("{now}\n{}", curl_of_the_page())])
            .env("NAMESPACE", "shop")
            .env("CA_FILE", world.pki.ca())
            .env("TOKEN", world.agent())
            .env("API_SERVER", format!("https://{}", gateway.addresses.beats))
            .stdin(Stdio::null());
        let output = soon("curl", command.output()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(leader.state().beats >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_kubernetes_beats_by_a_patch_and_reads_its_pace_from_the_answer() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let address = format!("https://{}", gateway.addresses.beats);
    let mut config = Config::new(address.parse().unwrap());
    let ca = CertificateDer::from_pem_slice(world.pki.pem().as_bytes()).unwrap();
    config.root_cert = Some(vec![ca.to_vec()]);
    config.auth_info = AuthInfo { token: Some(world.token("a").into()), ..AuthInfo::default() };
    let leases: Api<Lease> = Api::namespaced(Client::try_from(config).unwrap(), "shop");
    let typed = Lease {
        metadata: kube::api::ObjectMeta { name: Some("reg.a".to_owned()), ..Default::default() },
        spec: Some(k8s_openapi::api::coordination::v1::LeaseSpec {
            renew_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
                "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            )),
            ..Default::default()
        }),
    };
    let parameters = PatchParams::default();
    for patched in [
        leases.patch("reg.a", &parameters, &Patch::Merge(renewal())).await,
        leases.patch("reg.a", &PatchParams::apply("me"), &Patch::Strategic(renewal())).await,
        leases.patch("reg.a", &parameters, &Patch::Merge(&typed)).await,
    ] {
        let patched = patched.unwrap();
        assert_eq!(patched.metadata.name.as_deref(), Some("reg.a"));
        let annotations = patched.metadata.annotations.unwrap();
        assert_eq!(annotations["beatkeeper.dev/ttl"], "30s");
        assert_eq!(annotations["beatkeeper.dev/interval"], "10s");
    }
    let error = leases.patch("reg.gone", &parameters, &Patch::Merge(renewal())).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, &*status.reason), (404, "NotFound"));
    assert!(status.message.contains("create it through the API server first"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_is_accepted_when_the_leader_has_acknowledged_it_and_is_refused_until_then() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);

    leader.state().acknowledges = false;
    let began = Instant::now();
    let answer = client.beat("reg.a", &world.token("a")).await;
    assert_eq!(answer.code, 503, "{answer:?}");
    assert!(answer.message().contains("no leader of the operator holds the beat yet"));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.body["details"]["retryAfterSeconds"], 1);
    assert!(!answer.closes(), "a replica has a stream here");
    // The lease duration, and two seconds.
    assert!(began.elapsed() >= Duration::from_millis(2000), "{:?}", began.elapsed());

    leader.state().acknowledges = true;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    assert_eq!(PACE.ttl, Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_is_accepted_is_in_the_memory_of_the_leader() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    client.beat("reg.a", &world.token("a")).await;
    let before = leader.state().now();
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    let state = leader.state();
    let record = state
        .index
        .record(&beatkeeper_core::vocabulary::key::Key::new("shop", "reg"), &lease("a").name);
    assert!(record.unwrap().silence().since >= before, "{record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_a_gateway_is_not_ready_and_sends_instances_to_another_one() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let admin = gateway.addresses.admin;
    assert_eq!(page(admin, "/livez").await.0, 200);
    let (code, why) = page(admin, "/readyz").await;
    assert_eq!((code, &*why), (503, "no replica of the operator has a stream to it\n"));

    let mut client = world.client(&gateway).await;
    let answer = client.beat("reg.a", &world.token("a")).await;
    assert_eq!((answer.code, answer.closes()), (503, true), "{answer:?}");
    assert!(answer.message().contains("try another one"), "{answer:?}");
    assert_eq!(answer.headers["retry-after"], "1");

    let leader = world.leader(&gateway);
    ready(&gateway).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    drop(leader);
    until("the end of the stream", async || page(admin, "/readyz").await.0 == 503).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_its_beat() {
    let world = World::new();
    let change = |settings: &mut Settings| settings.lease_duration = Duration::from_secs(600);
    let (gateway, leader) = served(&world, change).await;
    leader.state().judges = false;
    let mut client = world.client(&gateway).await;
    let metrics = async || page(gateway.addresses.admin, "/metrics").await.1;
    let waiting = async |count: u32| {
        metrics().await.contains(&format!("beatkeeper_gateway_beats_waiting {count}\n"))
    };
    let token = world.token("a");
    // The request is open until the beat is seen to wait: its end would cancel the beat.
    tokio::select! {
        answer = client.send(beat("reg.a", &token, &renewal())) => panic!("{answer:?}"),
        () = until("the wait", async || waiting(1).await) => {}
    }
    drop(client);
    until("the end of the request", async || waiting(0).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    assert_eq!(client.beat("reg.b", &world.token("a")).await.code, 403);
    assert_eq!(client.beat("reg.gone", &world.token("a")).await.code, 404);
    let wrong = beat("reg.a", &world.token("a"), &json!({ "spec": {} }));
    assert_eq!(client.send(wrong).await.unwrap().code, 422);
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    for line in [
        r#"beatkeeper_gateway_beats_total{result="accepted"} 1"#,
        r#"beatkeeper_gateway_beats_total{result="refused"} 1"#,
        r#"beatkeeper_gateway_beats_total{result="unknown"} 1"#,
        r#"beatkeeper_gateway_requests_refused_total{reason="body"} 1"#,
        "beatkeeper_gateway_streams 1",
        "beatkeeper_gateway_acknowledge_seconds_count 1",
        "beatkeeper_gateway_batch_instances_count",
        "beatkeeper_gateway_path_proofs_total",
        "# EOF",
    ] {
        assert!(text.contains(line), "no {line} in:\n{text}");
    }
}
