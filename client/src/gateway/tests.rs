//! Tests of the connection against servers with TLS.

mod server;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use beatkeeper_api::beats::BeatLease;
use futures::{FutureExt, future::join_all};
use tempfile::TempDir;

use super::{
    handle::{CarriedBeat, Gateway, GatewayError},
    refusal::Refusal,
    settings::{GatewayNames, GatewaySettings, GatewayUrl},
};
use crate::{
    failure::Cause,
    transport::{Resolver, tests::server::Authority},
};
use server::{Received, Reply, Server};

/// Long enough for a machine under heavy load.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gateway and its clients show to each other.
struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let world =
            Self { folder: tempfile::tempdir().expect("a folder"), authority: Authority::new() };
        world.write("ca.crt", &world.authority.pem());
        world.write("token", "first\n");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file by renaming, as a kubelet does.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.path("draft"), content).expect("written");
        fs::rename(self.path("draft"), self.path(name)).expect("in place");
    }

    async fn server(&self, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Server {
        Server::start(self.authority.serving(None), answer).await
    }

    fn settings(&self, urls: &[String]) -> GatewaySettings {
        let url = |url: &String| url.parse::<GatewayUrl>().expect("a URL");
        GatewaySettings {
            urls: urls.iter().map(url).collect(),
            ca_file: self.path("ca.crt"),
            token_file: self.path("token"),
            names: GatewayNames::default(),
        }
    }

    /// A client of all these servers, each with a URL of its own.
    fn client(&self, servers: &[&Server]) -> Gateway {
        let urls: Vec<String> =
            servers.iter().map(|server| format!("https://{}", server.address)).collect();
        Gateway::open(&self.settings(&urls), "test").expect("a connection")
    }

    /// A client of servers behind one name, in this order.
    fn client_of_name(&self, addresses: &[SocketAddr]) -> Gateway {
        let addresses = addresses.to_vec();
        let resolver: Resolver =
            Arc::new(move |_, _| std::future::ready(Ok(addresses.clone())).boxed());
        let settings = self.settings(&["https://api.example:8443".to_owned()]);
        Gateway::open_with(&settings, "test", resolver).expect("a connection")
    }
}

fn lease(n: usize) -> BeatLease {
    BeatLease { namespace: "shop".to_owned(), name: format!("greeter.vm-{n}") }
}

async fn beat(gateway: &Gateway) -> Result<CarriedBeat, Refusal> {
    gateway.beat(lease(1), true, PATIENCE).await
}

async fn is_accepted(gateway: &Gateway) {
    let pace = CarriedBeat { ttl: Duration::from_secs(9), interval: Duration::from_secs(3) };
    assert_eq!(beat(gateway).await, Ok(pace));
}

fn accepts(received: &Received) -> Reply {
    Reply::each(200, received)
}

#[tokio::test]
async fn all_beats_of_a_process_share_one_connection_and_go_together() {
    let world = World::new();
    let server = world.server(|beats| accepts(beats).after(Duration::from_millis(50))).await;
    let gateway = world.client(&[&server]);
    is_accepted(&gateway).await;
    let beats = (0..50).map(|n| gateway.beat(lease(n), true, PATIENCE));
    assert!(join_all(beats).await.iter().all(Result::is_ok));
    let received = server.received();
    assert!(received.iter().all(|one| one.connection == 1 && one.token == "first"));
    assert!(received.len() <= 4, "{:?}", server.sizes());
    assert_eq!(server.sizes().iter().sum::<usize>(), 51);
}

#[tokio::test]
async fn each_beat_has_its_own_answer() {
    let world = World::new();
    let code = |name: &str| match name {
        "greeter.vm-1" => 403,
        "greeter.vm-2" => 503,
        _ => 200,
    };
    let server = world.server(move |beats| Reply::to(beats, code)).await;
    let gateway = world.client(&[&server]);
    let beats = join_all((0..3).map(|n| gateway.beat(lease(n), false, PATIENCE))).await;
    assert!(beats[0].is_ok());
    let refused = beats[1].as_ref().expect_err("403");
    assert_eq!((refused.is_final(), &*refused.details), (true, "told to greeter.vm-1"));
    let unavailable = beats[2].as_ref().expect_err("503");
    assert_eq!(unavailable.retry_after, Some(Duration::from_secs(2)));
    assert_eq!(unavailable.cause, Cause::ServerError);
}

#[tokio::test]
async fn a_gateway_that_is_gone_costs_no_beat_where_the_name_has_another_address() {
    let world = World::new();
    let (first, second) = (world.server(accepts).await, world.server(accepts).await);
    let gateway = world.client_of_name(&[first.address, second.address]);
    is_accepted(&gateway).await;
    assert_eq!((first.sizes().len(), second.sizes().len()), (1, 0));
    // Its connections end without an answer, and its port is closed.
    drop(first);
    is_accepted(&gateway).await;
    assert_eq!(second.sizes(), [1]);
}

#[tokio::test]
async fn a_gateway_that_closes_its_connections_is_left_for_another_address() {
    let world = World::new();
    let ending = world.server(|beats| accepts(beats).closing()).await;
    let other = world.server(accepts).await;
    let gateway = world.client_of_name(&[ending.address, other.address]);
    for _ in 0..3 {
        is_accepted(&gateway).await;
    }
    assert_eq!((ending.sizes().len(), other.sizes().len()), (1, 2));
    assert!(other.received().iter().all(|one| one.connection == 1));
}

#[tokio::test]
async fn where_there_is_only_one_address_a_closed_connection_is_made_anew() {
    let world = World::new();
    let server = world.server(|beats| accepts(beats).closing()).await;
    let gateway = world.client(&[&server]);
    for _ in 0..3 {
        is_accepted(&gateway).await;
    }
    assert_eq!(connections(&server), [1, 2, 3]);
}

#[tokio::test]
async fn a_gateway_that_cannot_answer_makes_way_for_another_one_at_once() {
    let world = World::new();
    let no = |_: &Received| Reply::whole(503, r#"{"message":"busy"}"#);
    let (busy, other) = (world.server(no).await, world.server(accepts).await);
    let gateway = world.client_of_name(&[busy.address, other.address]);
    for _ in 0..2 {
        is_accepted(&gateway).await;
    }
    assert_eq!((busy.sizes().len(), other.sizes().len()), (1, 2));
    // The one beat of two that a gateway without a stream did not take.
    let half = |beats: &Received| {
        Reply::to(beats, |name| if name == "greeter.vm-1" { 503 } else { 200 }).closing()
    };
    let (half, other) = (world.server(half).await, world.server(accepts).await);
    let gateway = world.client_of_name(&[half.address, other.address]);
    let beats = join_all((0..2).map(|n| gateway.beat(lease(n), true, PATIENCE))).await;
    assert!(beats.iter().all(Result::is_ok), "{beats:?}");
    let again: Vec<String> =
        other.received().into_iter().flat_map(|one| one.leases).map(|lease| lease.name).collect();
    assert_eq!((half.sizes(), again), (vec![2], vec!["greeter.vm-1".to_owned()]));
}

/// The connection of each request, by its number.
fn connections(server: &Server) -> Vec<usize> {
    server.received().iter().map(|one| one.connection).collect()
}

#[tokio::test]
async fn a_connection_is_left_when_two_answers_in_a_row_take_no_beat() {
    let world = World::new();
    let no = |beats: &Received| Reply::each(503, beats);
    let (busy, other) = (world.server(no).await, world.server(accepts).await);
    let gateway = world.client_of_name(&[busy.address, other.address]);
    for _ in 0..2 {
        let refusal = beat(&gateway).await.expect_err("503");
        assert_eq!(refusal.cause, Cause::ServerError);
    }
    is_accepted(&gateway).await;
    assert_eq!((connections(&busy), other.sizes().len()), (vec![1, 1], 1));

    let alone = world.server(no).await;
    let gateway = world.client(&[&alone]);
    for _ in 0..4 {
        assert!(beat(&gateway).await.is_err());
    }
    assert_eq!(connections(&alone), [1, 1, 2, 2]);
}

#[tokio::test]
async fn a_beat_that_is_not_taken_now_and_then_costs_no_connection() {
    let world = World::new();
    let count = AtomicUsize::new(0);
    let code = move || if count.fetch_add(1, Relaxed).is_multiple_of(2) { 503 } else { 200 };
    let server = world.server(move |beats| Reply::each(code(), beats)).await;
    let gateway = world.client(&[&server]);
    for _ in 0..3 {
        assert!(beat(&gateway).await.is_err());
        is_accepted(&gateway).await;
    }
    assert_eq!(connections(&server), [1; 6]);
}

#[tokio::test]
async fn several_urls_are_tried_in_turn() {
    let world = World::new();
    let no = |_: &Received| Reply::whole(503, "");
    let (busy, other) = (world.server(no).await, world.server(accepts).await);
    let gateway = world.client(&[&busy, &other]);
    for _ in 0..5 {
        is_accepted(&gateway).await;
    }
    assert!(busy.sizes().len() <= 1, "it is left after the first answer");
    assert_eq!(other.sizes().len(), 5);
}

#[tokio::test]
async fn when_no_gateway_answers_the_reason_is_told_and_the_next_beat_is_sent() {
    let world = World::new();
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let server = world
        .server(move |beats| match back.load(Relaxed) {
            true => accepts(beats),
            false => Reply::whole(503, r#"{"message":"no leader"}"#),
        })
        .await;
    let gateway = world.client(&[&server]);
    let refusal = beat(&gateway).await.expect_err("503");
    assert_eq!((refusal.cause, &*refusal.details), (Cause::ServerError, "no leader"));
    assert_eq!(server.sizes().len(), 2, "another address is tried once");
    is_back.store(true, Relaxed);
    is_accepted(&gateway).await;
    let port = server.stop().await;
    let refusal = beat(&gateway).await.expect_err("nothing listens");
    assert_eq!(refusal.cause, Cause::NoConnection);
    let _server = Server::start_at(port, world.authority.serving(None), accepts).await;
    is_accepted(&gateway).await;
}

#[tokio::test]
async fn a_gateway_without_an_answer_is_left_when_the_most_urgent_beat_has_waited_enough() {
    let world = World::new();
    let (hangs, other) = (
        world.server(|beats| accepts(beats).after(Duration::from_secs(3600))).await,
        world.server(accepts).await,
    );
    let gateway = world.client_of_name(&[hangs.address, other.address]);
    // Enough for the handshake with the first one on a busy machine.
    let urgent = gateway.beat(lease(1), true, Duration::from_secs(2));
    let patient = gateway.beat(lease(2), true, PATIENCE);
    let (urgent, patient) = tokio::join!(urgent, patient);
    assert_eq!(urgent.expect_err("too late").cause, Cause::Timeout);
    assert!(patient.is_ok(), "{patient:?}");
    is_accepted(&gateway).await;
    assert_eq!(hangs.sizes().len(), 1);
}

#[tokio::test]
async fn a_new_token_and_a_new_ca_are_used_as_soon_as_they_are_there() {
    let world = World::new();
    let answer = |beats: &Received| match &*beats.token {
        "second" => accepts(beats),
        _ => Reply::whole(401, r#"{"message":"it has expired"}"#),
    };
    let server = world.server(answer).await;
    let gateway = world.client(&[&server]);
    let refusal = beat(&gateway).await.expect_err("expired");
    assert_eq!((refusal.cause.clone(), refusal.is_final()), (Cause::Unauthenticated, true));
    world.write("token", "second");
    is_accepted(&gateway).await;

    let (port, new) = (server.stop().await, Authority::new());
    let _server = Server::start_at(port, new.serving(None), answer).await;
    let refusal = beat(&gateway).await.expect_err("another CA");
    assert!(refusal.details.contains("invalid peer certificate"), "{}", refusal.details);
    world.write("ca.crt", &new.pem());
    is_accepted(&gateway).await;
}

#[tokio::test]
async fn an_answer_that_is_not_for_these_beats_accepts_none() {
    let world = World::new();
    for body in ["{}", "[]", "<html>", r#"{"apiVersion":"","kind":"","items":[]}"#] {
        let server = world.server(move |_| Reply::whole(200, body)).await;
        let refusal = beat(&world.client(&[&server])).await.expect_err(body);
        assert_eq!((refusal.cause.clone(), refusal.is_final()), (Cause::Other, false), "{body}");
    }
    let swapped = |beats: &Received| {
        let leases = beats.leases.iter().map(|_| lease(9)).collect();
        accepts(&Received { leases, ..beats.clone() })
    };
    let server = world.server(swapped).await;
    let refusal = beat(&world.client(&[&server])).await.expect_err("of another instance");
    assert_eq!(refusal.details, "the answer is not for the beats that were sent");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_its_setting_and_used_as_soon_as_it_can() {
    let world = World::new();
    let server = world.server(accepts).await;
    let url = [format!("https://{}", server.address)];
    let settings = || world.settings(&url);
    let refused = async |settings: GatewaySettings| {
        let gateway = Gateway::open(&settings, "test").expect("a gateway, later");
        let refusal = beat(&gateway).await.expect_err("it cannot be used");
        assert_eq!((refusal.cause.clone(), refusal.is_final()), (Cause::Other, false));
        (gateway, refusal.details)
    };
    let (_, error) = refused(GatewaySettings { ca_file: world.path("no.crt"), ..settings() }).await;
    let ca_file = "gateway_ca_file ($BEATKEEPER_GATEWAY_CA_FILE): ";
    assert!(error.starts_with(ca_file) && error.contains("no.crt"), "{error}");
    let (_, error) = refused(GatewaySettings { ca_file: world.path("token"), ..settings() }).await;
    assert!(error.starts_with(ca_file) && error.contains("no certificate"), "{error}");
    let (_, error) = refused(GatewaySettings { token_file: world.path("no"), ..settings() }).await;
    let token_file = "gateway_token_file ($BEATKEEPER_GATEWAY_TOKEN_FILE): ";
    assert!(error.starts_with(token_file) && error.contains("audience"), "{error}");
    world.write("token", "\n");
    let (gateway, error) = refused(settings()).await;
    assert!(error.starts_with(token_file) && error.ends_with("is empty"), "{error}");
    assert!(server.received().is_empty());
    world.write("token", "late");
    is_accepted(&gateway).await;
    assert_eq!(server.received()[0].token, "late");
    let nowhere = GatewaySettings { urls: Vec::new(), ..settings() };
    assert!(matches!(Gateway::open(&nowhere, "test"), Err(GatewayError::NoUrl(_))));
}

#[test]
fn settings_that_need_each_other_are_named() {
    let url = || vec!["https://gateway:8443".parse::<GatewayUrl>().expect("a URL")];
    let file = || Some(PathBuf::from("/x"));
    let names = GatewayNames { gateway: "--at", ca_file: "--ca", token_file: "--token" };
    let of = |urls, ca, token| GatewaySettings::of(urls, ca, token, names);
    let error = of(url(), None, file()).expect_err("no CA").to_string();
    assert!(error.starts_with("--at needs --ca, the file with the CA"), "{error}");
    let error = of(vec![], file(), None).expect_err("no gateway").to_string();
    assert!(error.starts_with("--ca has no effect without --at: "), "{error}");
    let error = of(vec![], None, file()).expect_err("no gateway").to_string();
    assert!(error.starts_with("--token has no effect without --at: "), "{error}");
    assert_eq!(of(vec![], None, None).expect("none"), None);
    let settings = of(url(), file(), None).expect("settings").expect("some");
    assert_eq!(settings.token_file, PathBuf::from("/var/run/secrets/beatkeeper/token"));
}
