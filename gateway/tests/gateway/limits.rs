//! A client that misbehaves is cut, and others do not notice.

use std::time::Duration;

use beatkeeper_api::beats::BEATS_PATH;
use beatkeeper_core::vocabulary::rate_limit::RateLimit;
use beatkeeper_gateway::settings::Settings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::support::{
    clients::{Client, page, path, renewal, request},
    process::Gateway,
    soon, until,
    world::{World, served},
};

/// A limit that a test waits for. A machine that stands still for a moment does not reach it for those that behave.
const SHORT: Duration = Duration::from_secs(1);

async fn metric(gateway: &Gateway, line: &str) -> bool {
    page(gateway.addresses.admin, "/metrics").await.1.contains(line)
}

/// How many connections were cut for a reason. On a busy machine this may be one of the gateway's own, too.
async fn cut(gateway: &Gateway, reason: &str) -> u32 {
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    let series = format!("beatkeeper_gateway_connections_cut_total{{reason=\"{reason}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok());
    count.unwrap_or(0)
}

/// A client that beats again and again, beside one that misbehaves.
struct Bystander {
    client: Client,
    token: String,
}

impl Bystander {
    async fn new(world: &World, gateway: &Gateway) -> Self {
        let mut bystander = Self { client: world.client(gateway).await, token: world.token("b") };
        bystander.beats().await;
        bystander
    }

    async fn beats(&mut self) {
        let answer = soon("the beat of another one", self.client.beat("reg.b", &self.token)).await;
        assert_eq!(answer.code, 200, "{answer:?}");
    }
}

/// Waits until the other end has closed a connection. Returns what it has said.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut said = Vec::new();
    // A connection that is cut may end with an error.
    let _ = soon("the end of the connection", stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_its_head_byte_by_byte_is_cut() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| settings.limits.head = SHORT).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    // One from its first request on, and one after a good request.
    let mut slow = world.target(&gateway).tls("http/1.1").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(&mut slow);
    let drip = async {
        for byte in format!("PATCH {} HTTP/1.1\r\nx: {}", path("reg.a"), "x".repeat(1000)).bytes() {
            if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        said = closed(&mut reader) => assert_eq!(said, ""),
        () = drip => {}
    }
    assert!(cut(&gateway, "slow_head").await >= 1);
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_in_the_head_of_a_later_request_is_cut_and_one_that_rests_is_not() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| settings.limits.head = SHORT).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let mut stream = world.target(&gateway).tls("http/1.1").await.unwrap();
    let beat = format!(
        "PATCH {} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-type: application/merge-patch+json\r\n\
         content-length: 52\r\n\r\n{}",
        path("reg.a"),
        world.token("a"),
        r#"{"spec":{"renewTime":"2026-01-02T03:04:05.678901Z"}}"#
    );
    stream.write_all(beat.as_bytes()).await.unwrap();
    let mut start = [0; 15];
    soon("an answer", stream.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    stream.write_all(b"PATCH /half").await.unwrap();
    closed(&mut stream).await;
    // Meanwhile this one was idle for longer than a head may take.
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_for_long_is_closed() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| {
        // A connection is looked at as often as a head may be late.
        (settings.limits.head, settings.limits.idle) = (SHORT, SHORT);
    })
    .await;
    let mut http2 = world.target(&gateway).http2().await.unwrap();
    assert_eq!(http2.beat("reg.a", &world.token("a")).await.code, 200);
    until("the end of the connection", async || cut(&gateway, "idle").await >= 1).await;
    let token = world.token("a");
    let beat = request(
        "PATCH",
        &path("reg.a"),
        Some(&token),
        "application/merge-patch+json",
        renewal().to_string(),
    );
    until("the client to notice", async || http2.send(beat.clone()).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_handshake_is_cut() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| settings.limits.handshake = SHORT).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let mut silent = TcpStream::connect(gateway.addresses.beats).await.unwrap();
    assert_eq!(closed(&mut silent).await, "");
    let mut plain = TcpStream::connect(gateway.addresses.beats).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: g\r\n\r\n").await.unwrap();
    closed(&mut plain).await;
    assert!(cut(&gateway, "slow_handshake").await >= 1);
    assert!(cut(&gateway, "handshake").await >= 1);
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_and_a_body_that_are_too_long_are_refused() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let before = leader.state().beats;
    let token = world.token("a");
    let beat = path("reg.a");

    let mut client = world.client(&gateway).await;
    let mut long = request("PATCH", &beat, Some(&token), "application/merge-patch+json", "{}");
    long.headers_mut().insert("x-long", "x".repeat(20_000).parse().unwrap());
    assert_eq!(client.send(long).await.unwrap().code, 431);

    for (method, path, content_type, most) in [
        ("PATCH", &*beat, "application/merge-patch+json", 4096),
        ("POST", BEATS_PATH, "application/json", 512 * 1024),
    ] {
        let mut client = world.client(&gateway).await;
        let body = " ".repeat(most + 1);
        let answer = client.send(request(method, path, Some(&token), content_type, body)).await;
        let answer = answer.unwrap();
        assert_eq!((answer.code, answer.closes()), (413, true), "{answer:?}");
        assert!(answer.message().contains(&format!("longer than {most} bytes")), "{answer:?}");
    }
    let mut http2 = world.target(&gateway).http2().await.unwrap();
    let body = " ".repeat(5000);
    let long = request("PATCH", &beat, Some(&token), "application/merge-patch+json", body);
    assert_eq!(http2.send(long).await.unwrap().code, 413);
    assert_eq!(leader.state().beats, before);
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_and_the_connection_ends() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| settings.limits.body = SHORT).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let mut stream = world.target(&gateway).tls("http/1.1").await.unwrap();
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-type: application/merge-patch+json\r\n\
         content-length: 52\r\n\r\n{{",
        path("reg.a"),
        world.token("a"),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = closed(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!(said.contains(&format!("the body did not come within {SHORT:?}")), "{said}");
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_answers_is_cut() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| {
        // A connection is looked at as often as a head may be late.
        (settings.limits.head, settings.limits.write) = (SHORT, SHORT);
    })
    .await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let mut stream = world.target(&gateway).tls("http/1.1").await.unwrap();
    // Each is refused with some hundred bytes.
    let request = "GET /nothing HTTP/1.1\r\nhost: g\r\n\r\n".repeat(1000);
    let flood = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    soon("the end of the connection", flood).await;
    assert!(cut(&gateway, "slow_reader").await >= 1);
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_before_tls_and_the_open_ones_go_on() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| settings.limits.connections = 8).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let mut crowd = Vec::new();
    let mut refused = 0;
    for _ in 0..20 {
        match world.target(&gateway).http1().await {
            Ok(client) => crowd.push(client),
            Err(_) => refused += 1,
        }
    }
    assert!(refused >= 12, "{refused} of 20 were refused");
    assert!(metric(&gateway, r#"connections_refused_total{reason="full"}"#).await);
    bystander.beats().await;
    drop(crowd);
    until("room", async || world.target(&gateway).http1().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_connections() {
    let world = World::new();
    let change = |settings: &mut Settings| settings.limits.connections_per_address = 4;
    let (gateway, _leader) = served(&world, change).await;
    let mut crowd = Vec::new();
    for _ in 0..10 {
        crowd.extend(world.target(&gateway).http1().await);
    }
    assert!(crowd.len() <= 4, "{}", crowd.len());
    assert!(metric(&gateway, r#"connections_refused_total{reason="address"}"#).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_beats_too_often_waits_and_another_one_does_not() {
    let world = World::new();
    let change = |settings: &mut Settings| {
        settings.limits.rate = RateLimit { burst: 5, every: Duration::from_secs(60) };
    };
    let (gateway, _leader) = served(&world, change).await;
    let mut bystander = Bystander::new(&world, &gateway).await;
    let mut client = world.client(&gateway).await;
    let token = world.token("a");
    for _ in 0..5 {
        assert_eq!(client.beat("reg.a", &token).await.code, 200);
    }
    let answer = client.beat("reg.a", &token).await;
    assert_eq!(answer.code, 429, "{answer:?}");
    assert!(answer.message().contains("beats too often"), "{answer:?}");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{wait}");
    bystander.beats().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_tries_one_lease_after_the_other_waits_and_beats_for_its_own_meanwhile() {
    let world = World::new();
    let change = |settings: &mut Settings| {
        settings.limits.introductions = RateLimit { burst: 3, every: Duration::from_secs(60) };
    };
    let (gateway, _leader) = served(&world, change).await;
    let mut client = world.client(&gateway).await;
    let token = world.token("a");
    assert_eq!(client.beat("reg.a", &token).await.code, 200);
    for code in [404, 404, 429, 429] {
        assert_eq!(client.beat("reg.gone", &token).await.code, code);
    }
    assert_eq!(client.beat("reg.a", &token).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn beats_that_wait_are_bounded() {
    let world = World::new();
    let (gateway, leader) = served(&world, |settings| settings.limits.open_beats = 3).await;
    leader.state().judges = false;
    let client = world.target(&gateway).http2().await.unwrap();
    let mut beats = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (mut client, token) = (client.share(), world.agent());
        beats.spawn(async move { client.beat(&format!("reg.vm-{n}"), &token).await });
    }
    let mut busy = 0;
    while let Some(answer) = soon("the beats", beats.join_next()).await {
        let answer = answer.unwrap();
        assert_eq!(answer.code, 503, "{answer:?}");
        busy += usize::from(answer.message().contains("too many beats wait"));
    }
    assert_eq!(busy, 3);
}
