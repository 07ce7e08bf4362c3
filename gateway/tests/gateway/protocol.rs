//! Who may open a stream, and what is said on it.

use std::{collections::BTreeMap, sync::Arc};

use beatkeeper_core::carriers::{
    frames::{Down, Up},
    set::PodUid,
};
use beatkeeper_gateway::{
    settings::PeerFiles,
    streams::dial::{DialSettings, Event, Streams},
    tls,
};

use crate::support::{
    clients::page,
    pki::{GATEWAY, OPERATOR, Pki},
    process::Gateway,
    raw::Raw,
    soon, until,
    world::{POD, World},
};

async fn ended(gateway: &Gateway, reason: &str) {
    let line = format!("streams_ended_total{{reason=\"{reason}\"}}");
    until(&line, async || page(gateway.addresses.admin, "/metrics").await.1.contains(&line)).await;
    assert_eq!(page(gateway.addresses.admin, "/readyz").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_opens_no_stream() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let other = Pki::new(world.folder.path(), "other");
    let files = PeerFiles { own: other.issue("replica", &[OPERATOR]), ..world.dials("x").files };
    // In TLS 1.3 the client learns it with the first thing that it reads.
    if let Ok(mut raw) = Raw::connect(gateway.addresses.streams, &files).await {
        let _ = raw.name("replica-0").await;
        soon("the end", raw.closed()).await;
    }
    ended(&gateway, "handshake").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_name_opens_no_stream() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let files = world.pki.peer("tenant", "some-tenant", GATEWAY);
    let mut raw = Raw::connect(gateway.addresses.streams, &files).await.unwrap();
    let _ = raw.name("replica-0").await;
    let _ = raw.send(&Down::Hello { have: None }).await;
    soon("the end", raw.closed()).await;
    ended(&gateway, "wrong_peer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_and_no_protocol_open_no_stream() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let files = world.dials("replica-0").files;
    for (protocols, reason) in [(vec![b"h2".to_vec()], "handshake"), (Vec::new(), "wrong_peer")] {
        let mut config = (*tls::client(&files).await.unwrap()).clone();
        config.alpn_protocols = protocols;
        let raw = Raw::with(gateway.addresses.streams, &files, Arc::new(config)).await;
        if let Ok(mut raw) = raw {
            let _ = raw.name("replica-0").await;
            soon("the end", raw.closed()).await;
        }
        ended(&gateway, reason).await;
    }
}

/// Dials once, and tells why there is no stream.
async fn why(settings: DialSettings, gateway: &Gateway, pod: &str) -> String {
    let mut streams = Streams::new(settings);
    let pod = PodUid::from(pod);
    streams.dial(&BTreeMap::from([(pod.clone(), gateway.addresses.streams)]));
    loop {
        match soon("an event", streams.next()).await.1 {
            Event::Connected => streams.send(&pod, Down::Hello { have: None }),
            Event::Frame(frame) => panic!("{frame:?}"),
            Event::Disconnected(ended) => return ended.to_string(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_does_not_take_the_gateway_of_another_pod_for_the_one_that_it_dialled() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let why = why(world.dials("replica-0"), &gateway, "another-pod").await;
    assert_eq!(why, format!("dialled the gateway of Pod another-pod, and found that of Pod {POD}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_does_not_speak_to_a_server_of_another_name() {
    let world = World::new();
    let mut settings = world.settings();
    settings.stream_certificate = world.pki.peer("impostor", "some-tenant", OPERATOR);
    let gateway = world.gateway(settings).await;
    let files = world.dials("replica-0").files;
    let error = Raw::connect(gateway.addresses.streams, &files).await.err().expect("an error");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    ended(&gateway, "handshake").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_out_of_order_and_bytes_that_are_no_frames_end_the_stream_and_no_other_one() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let address = gateway.addresses.streams;
    let files = world.dials("replica-0").files;
    let without_name = async |bytes: &[u8]| {
        let mut raw = Raw::connect(address, &files).await.unwrap();
        let _ = raw.write(bytes).await;
        soon("the end", raw.closed()).await;
    };
    let with_name = async |bytes: &[u8]| {
        let mut raw = Raw::open(address, &files, "replica-0").await;
        let _ = raw.write(bytes).await;
        soon("the end", raw.closed()).await;
    };
    let tick: &[u8] = &[0, 0, 0, 2, 0x18, 1];
    let name: &[u8] = &[0, 0, 0, 5, 0x0a, 3, 0x0a, 1, b'x'];
    let bad_field: &[u8] = &[0, 0, 0, 7, 0x3a, 5, 0x1a, 3, 0x08, 1, 0];
    without_name(tick).await;
    with_name(name).await;
    with_name(&[0xff; 64]).await;
    with_name(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).await;
    with_name(bad_field).await;
    ended(&gateway, "protocol").await;
    let mut good = Raw::open(address, &files, "replica-0").await;
    assert!(matches!(soon("hello", good.next()).await, Some(Up::Hello { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_says_is_skipped() {
    let world = World::new();
    let gateway = world.gateway(world.settings()).await;
    let files = world.dials("replica-0").files;
    let mut raw = Raw::connect(gateway.addresses.streams, &files).await.unwrap();
    // A kind with number 100 before the name, and after it.
    let later: &[u8] = &[0, 0, 0, 5, 0xa2, 0x06, 2, b'h', b'i'];
    raw.write(later).await.unwrap();
    raw.name("replica-0").await.unwrap();
    raw.write(later).await.unwrap();
    raw.send(&Down::Hello { have: None }).await.unwrap();
    assert!(matches!(soon("hello", raw.next()).await, Some(Up::Hello { .. })));
}
