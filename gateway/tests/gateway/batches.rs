//! Many instances in one request, and in one connection.

use std::time::Duration;

use beatkeeper_api::beats::{BEATS_PATH, BeatAnswers, BeatLease, Beats};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::{
    clients::{Answer, Client, request},
    process::Gateway,
    soon, until,
    world::{World, served},
};

fn lease(name: &str) -> BeatLease {
    BeatLease { namespace: "shop".to_owned(), name: name.to_owned() }
}

async fn send(client: &mut Client, token: &str, leases: Vec<BeatLease>) -> Answer {
    let body = serde_json::to_string(&Beats::of(leases)).unwrap();
    let request = request("POST", BEATS_PATH, Some(token), "application/json", body);
    soon("the answers", client.send(request)).await.unwrap()
}

fn answers(answer: &Answer) -> BeatAnswers {
    assert_eq!(answer.code, 200, "{answer:?}");
    serde_json::from_value(answer.body.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_of_a_request_has_its_own_answer_in_the_order_of_the_request() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let leases = ["reg.vm-3", "reg.gone", "reg.a", "reg.vm-7"].map(lease).to_vec();
    let answers = answers(&send(&mut client, &world.agent(), leases).await);
    let items: Vec<_> = answers.items.iter().map(|item| (&*item.name, item.code)).collect();
    assert_eq!(
        items,
        [("reg.vm-3", 200), ("reg.gone", 404), ("reg.a", 403), ("reg.vm-7", 200)],
        "{answers:?}"
    );
    let [accepted, unknown, refused, _] = &answers.items[..] else { panic!("{answers:?}") };
    assert_eq!((accepted.ttl.as_deref(), accepted.interval.as_deref()), (Some("30s"), Some("10s")));
    assert_eq!(unknown.reason.as_deref(), Some("NotFound"));
    assert!(unknown.message.as_ref().unwrap().contains("create it"), "{answers:?}");
    assert!(refused.message.as_ref().unwrap().contains("Pod a owns Lease reg.a"), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_instances_share_a_request_and_a_batch() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let leases: Vec<_> = (0..100).map(|n| lease(&format!("reg.vm-{n}"))).collect();
    for _ in 0..2 {
        let answers = answers(&send(&mut client, &world.agent(), leases.clone()).await);
        assert!(answers.items.iter().all(|item| item.code == 200), "{answers:?}");
    }
    let batches = leader.state().batches.clone();
    assert!(batches.iter().any(|size| *size >= 99), "{batches:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_an_answer_does_not_hold_back_the_others() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let known = vec![lease("reg.vm-1")];
    assert_eq!(answers(&send(&mut client, &world.agent(), known).await).items[0].code, 200);
    leader.state().judges = false;
    let both = vec![lease("reg.vm-1"), lease("reg.vm-2")];
    let answers = answers(&send(&mut client, &world.agent(), both).await);
    let codes: Vec<_> = answers.items.iter().map(|item| item.code).collect();
    assert_eq!(codes, [200, 503]);
    assert_eq!(answers.items[1].retry_after_seconds, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_list_of_leases_is_refused_as_a_whole() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let token = world.agent();
    let many = (0..1001).map(|n| lease(&format!("reg.vm-{n}"))).collect();
    let answer = send(&mut client, &token, many).await;
    assert_eq!(answer.code, 422);
    assert!(answer.message().contains("has 1001 Leases, and may have 1000"), "{answer:?}");
    let head = json!({ "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "Beats" });
    for (leases, why) in [
        (json!([]), "it has no Leases"),
        (json!([{ "namespace": "shop", "name": "A" }]), "no Lease can be named shop/A"),
        (json!([{ "namespace": "shop/x", "name": "a" }]), "no Lease can be named"),
        (json!([{ "namespace": "shop", "name": "a", "health": "Failing" }]), "unknown field"),
        (json!([{ "namespace": "shop" }]), "missing field"),
        (json!("all"), "invalid type"),
    ] {
        let mut body = head.clone();
        body["leases"] = leases;
        let body = body.to_string();
        let request = request("POST", BEATS_PATH, Some(&token), "application/json", body.clone());
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.code, 400, "{body}: {answer:?}");
        assert!(answer.message().contains(why), "{body}: {answer:?}");
    }
    let other = json!({ "apiVersion": "v2", "kind": "Beats", "leases": [{ "namespace": "shop", "name": "a" }] });
    let request = request("POST", BEATS_PATH, Some(&token), "application/json", other.to_string());
    assert_eq!(client.send(request).await.unwrap().code, 400);
    assert_eq!(leader.state().beats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_http2_connection_carries_many_beats_at_once() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let client = world.target(&gateway).http2().await.unwrap();
    let token = world.agent();
    for _ in 0..3 {
        let mut beats = tokio::task::JoinSet::new();
        for n in 0..100 {
            let (mut client, token) = (client.share(), token.clone());
            beats.spawn(async move { client.beat(&format!("reg.vm-{n}"), &token).await });
        }
        while let Some(answer) = soon("the beats", beats.join_next()).await {
            let answer = answer.unwrap();
            assert_eq!((answer.code, answer.version), (200, http::Version::HTTP_2), "{answer:?}");
        }
    }
    let state = leader.state();
    assert!(state.beats >= 300 && state.batches.len() < state.beats, "{:?}", state.batches);
}

/// The start of a request with many beats. Its body does not come.
async fn half(world: &World, gateway: &Gateway, token: &str) -> TlsStream<TcpStream> {
    let mut stream = world.target(gateway).tls("http/1.1").await.unwrap();
    let head = format!(
        "POST {BEATS_PATH} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_body_of_one_identity_waits_and_so_do_those_of_all_beyond_the_limit() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| {
        settings.limits.bodies = 3;
        // The bodies below stay open until the test ends them.
        settings.limits.body = Duration::from_secs(60);
    })
    .await;
    let (agent, pod) = (world.agent(), world.token("a"));
    // A new connection for each request, because a refusal before the body may end it.
    let refused = async |token: &str, code: u16| {
        let mut client = world.client(&gateway).await;
        let long = serde_json::to_string(&Beats::of(vec![lease("reg.a")])).unwrap();
        let long = long + &" ".repeat(5000);
        let request = request("POST", BEATS_PATH, Some(token), "application/json", long);
        let answer = soon("an answer", client.send(request)).await.unwrap();
        assert!(matches!(answer.code, 200 | 429 | 503), "{answer:?}");
        let retry = answer.headers.get("retry-after").and_then(|wait| wait.to_str().ok());
        assert_eq!(retry, (answer.code != 200).then_some("1"), "{answer:?}");
        answer.code == code
    };
    let first = half(&world, &gateway, &agent).await;
    let _second = half(&world, &gateway, &agent).await;
    until("the limit of one identity", async || refused(&agent, 429).await).await;
    let mut client = world.client(&gateway).await;
    let short = send(&mut client, &agent, vec![lease("reg.vm")]).await;
    assert_eq!(answers(&short).items[0].code, 200, "a short one is not counted");
    assert!(refused(&pod, 200).await, "another one is not refused");
    let _third = half(&world, &gateway, &pod).await;
    until("the limit of all", async || refused(&pod, 503).await).await;
    drop(first);
    until("room for all", async || refused(&agent, 200).await).await;
    assert!(refused(&pod, 200).await);
}
