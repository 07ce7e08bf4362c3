//! Streams that break, hang, or are replaced.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::beats::{BEATS_PATH, BeatLease, Beats};
use beatkeeper_core::{
    carriers::frames::{Down, Up},
    vocabulary::rate_limit::RateLimit,
};
use beatkeeper_gateway::{
    settings::Settings,
    streams::dial::{Event, Streams},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::support::pki::GATEWAY;
use crate::support::{
    clients::{page, request},
    pki::OPERATOR,
    proxy::Proxy,
    raw::Raw,
    soon, until,
    world::{POD, SILENCE, World, ready, served},
};

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_hears_of_each_beat() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let files = world.pki.peer("standby", OPERATOR, GATEWAY);
    let mut standby = Raw::open(gateway.addresses.streams, &files, "replica-1").await;
    let mut seen = vec![soon("hello", standby.next()).await.expect("a frame")];
    // What comes before the first frames is told in them, and not in a batch.
    let batch = async {
        loop {
            standby.tick().await.expect("an open stream");
            match standby.next().await.expect("a frame") {
                Up::Batch { ids, .. } if !ids.is_empty() => break ids,
                other => seen.push(other),
            }
        }
    };
    let token = world.token("a");
    let both = async { tokio::join!(batch, client.beat("reg.a", &token)) };
    let (ids, answer) = soon("a batch with the beat", both).await;
    assert_eq!(answer.code, 200, "{answer:?}");
    assert!(matches!(seen[0], Up::Hello { .. }), "{seen:?}");
    let introduces = |frame: &Up| match frame {
        Up::Introduce { id, lease, .. } => *id == ids[0] && lease.name == "reg.a",
        _ => false,
    };
    assert!(seen.iter().any(introduces), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_read_is_cut_off_and_instances_do_not_notice() {
    let world = World::new();
    let (gateway, leader) = served(&world, |settings: &mut Settings| {
        // On a busy machine the leader may be late with so many introductions.
        settings.lease_duration = Duration::from_secs(10);
        settings.limits.introductions =
            RateLimit { burst: 1_000_000, every: Duration::from_millis(1) };
        settings.limits.rate = settings.limits.introductions;
    })
    .await;
    let files = world.pki.peer("deaf", OPERATOR, GATEWAY);
    let mut deaf = Raw::open(gateway.addresses.streams, &files, "replica-1").await;
    let metrics = async || page(gateway.addresses.admin, "/metrics").await.1;
    until("two streams", async || metrics().await.contains("beatkeeper_gateway_streams 2")).await;
    let alive = tokio::spawn(async move { while deaf.tick().await.is_ok() {} });
    let mut client = world.client(&gateway).await;
    let mut flood = world.client(&gateway).await;
    // Each of these Leases has to be introduced to each replica.
    let name =
        |n| BeatLease { namespace: "shop".to_owned(), name: format!("{}-{n}", "x".repeat(240)) };
    let many = serde_json::to_string(&Beats::of((0..1000).map(name).collect())).unwrap();
    until("the end of the deaf one", async || {
        let request =
            request("POST", BEATS_PATH, Some(&world.agent()), "application/json", many.clone());
        assert_eq!(flood.send(request).await.unwrap().code, 200);
        assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
        metrics().await.contains("beatkeeper_gateway_streams 1")
    })
    .await;
    let text = metrics().await;
    let reasons = ["stalled", "full"];
    let cut = |reason| format!("streams_ended_total{{reason=\"{reason}\"}} 1");
    assert!(reasons.iter().any(|reason| text.contains(&cut(reason))), "{text}");
    assert!(leader.state().ended.is_empty(), "{:?}", leader.state().ended);
    soon("the deaf one to notice", alive).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_becomes_silent_is_found_at_both_ends_and_dialled_again() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let proxy = Proxy::start(gateway.addresses.streams).await;
    let leader = world.leader_at(proxy.address);
    ready(&gateway).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    proxy.silence();
    let ended = async || page(gateway.addresses.admin, "/metrics").await.1;
    until("the end at the replica", async || !leader.state().ended.is_empty()).await;
    until("the end at the gateway", async || {
        let text = ended().await;
        let reasons = ["silent", "replaced"];
        reasons.iter().any(|it| text.contains(&format!("streams_ended_total{{reason=\"{it}\"}} 1")))
    })
    .await;
    assert_eq!(leader.state().ended[0], format!("nothing came for {SILENCE:?}"));
    ready(&gateway).await;
    until("a beat", async || client.beat("reg.a", &world.token("a")).await.code == 200).await;
    // The same process: what the replica knows of it stays.
    let hellos = leader.state().hellos.clone();
    assert!(hellos.len() >= 2 && hellos.iter().all(|hello| *hello == hellos[0]), "{hellos:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_late_end_of_a_stream_is_not_the_end_of_the_one_that_replaced_it() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let files = world.pki.peer("twice", OPERATOR, GATEWAY);
    let streams = gateway.addresses.streams;
    let mut first = Raw::open(streams, &files, "replica-0").await;
    assert!(matches!(soon("hello", first.next()).await, Some(Up::Hello { .. })));
    let mut second = Raw::open(streams, &files, "replica-0").await;
    assert!(matches!(soon("hello", second.next()).await, Some(Up::Hello { .. })));
    soon("the end of the first one", first.closed()).await;
    for _ in 0..6 {
        second.tick().await.unwrap();
        assert!(soon("a frame", second.next()).await.is_some());
    }
    let (code, text) = page(gateway.addresses.admin, "/readyz").await;
    assert_eq!((code, &*text), (200, "ok, with 1 streams\n"));
    drop(second);
    until("the end of the second one", async || {
        page(gateway.addresses.admin, "/readyz").await.0 == 503
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_moved_is_dialled_at_its_new_address_and_the_end_of_the_old_stream_comes_first()
 {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let proxy = Proxy::start(gateway.addresses.streams).await;
    let mut streams = Streams::new(world.dials("replica-0"));
    let pod = beatkeeper_core::carriers::set::PodUid::from(POD);
    streams.dial(&BTreeMap::from([(pod.clone(), proxy.address)]));
    let (from, event) = soon("a stream", streams.next()).await;
    assert!(from == pod && matches!(event, Event::Connected), "{event:?}");
    streams.send(&pod, Down::Hello { have: None });
    let (_, event) = soon("hello", streams.next()).await;
    assert!(matches!(event, Event::Frame(Up::Hello { .. })), "{event:?}");

    streams.dial(&BTreeMap::from([(pod.clone(), gateway.addresses.streams)]));
    let mut told = Vec::new();
    soon("the new stream", async {
        while !matches!(told.last(), Some(Event::Connected)) {
            told.push(streams.next().await.1);
        }
    })
    .await;
    assert!(matches!(&told[..], [Event::Disconnected(_), Event::Connected]), "{told:?}");
    // Nothing of the old one follows.
    streams.send(&pod, Down::Hello { have: None });
    let (_, event) = soon("hello", streams.next()).await;
    assert!(matches!(event, Event::Frame(Up::Hello { .. })), "{event:?}");

    streams.dial(&BTreeMap::new());
    let mut last = None;
    soon("the end", async {
        while !matches!(last, Some(Event::Disconnected(_))) {
            last = Some(streams.next().await.1);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_fit_are_refused_and_the_open_ones_go_on() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |settings| {
        settings.stream_limits.streams = 2;
        // The second one says nothing more, and keeps its place all the same.
        settings.stream_limits.silence = Duration::from_secs(60);
    })
    .await;
    let files = world.pki.peer("crowd", OPERATOR, GATEWAY);
    let mut second = Raw::open(gateway.addresses.streams, &files, "replica-1").await;
    assert!(matches!(soon("hello", second.next()).await, Some(Up::Hello { .. })));
    // A place is taken after the handshake, so the third one may connect, and is closed then.
    if let Ok(third) = Raw::connect(gateway.addresses.streams, &files).await {
        soon("the end of the third one", third.closed()).await;
    }
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    assert!(text.contains("streams_ended_total{reason=\"too_many\"} 1"), "{text}");
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_handshake_keep_no_replica_out() {
    let world = World::new();
    let mut settings = world.settings();
    settings.stream_limits.streams = 1;
    // Longer than the test: what is idle does not go by itself.
    settings.stream_limits.handshake = Duration::from_secs(60);
    let gateway = world.gateway(settings).await;
    let connect = async || TcpStream::connect(gateway.addresses.streams).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..7 {
        idle.push(connect().await);
    }
    let leader = world.leader(&gateway);
    ready(&gateway).await;
    // The replica has finished its handshake, so there is room for one more, and not for two.
    idle.push(connect().await);
    let mut refused = connect().await;
    let _ = soon("the end of the ninth one", refused.read(&mut [0])).await;
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    assert!(text.contains("streams_ended_total{reason=\"too_many_handshakes\"} 1"), "{text}");
    assert!(leader.state().ended.is_empty(), "{:?}", leader.state().ended);
}
