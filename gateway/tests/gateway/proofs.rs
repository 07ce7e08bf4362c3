//! The gateway proves that beats arrive, by beats of its own that no other program can make (G3).

use std::time::Duration;

use beatkeeper_gateway::http::proofs::NAMESPACE;

use crate::support::{
    clients::{page, path, renewal, request},
    pki::GATEWAY,
    process::Gateway,
    until,
    world::{World, kept_port, served},
};

const FAILED: &str = "beatkeeper_gateway_path_proofs_failed_total";
const EXPIRY: &str =
    "beatkeeper_gateway_certificate_expiry_timestamp_seconds{certificate=\"beats\"}";
const STREAMS_EXPIRY: &str =
    "beatkeeper_gateway_certificate_expiry_timestamp_seconds{certificate=\"streams\"}";
/// When the expired certificates of the tests expired.
const LONG_AGO: i64 = 1_609_459_200;

/// The value of a series.
async fn number(gateway: &Gateway, metric: &str) -> i64 {
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    let line = text.lines().find(|line| line.split(' ').next() == Some(metric));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_after_a_beat_through_the_published_address() {
    let world = World::new();
    let (_gateway, leader) = served(&world, |_| {}).await;
    let before = leader.state().proofs;
    until("three proofs", async || leader.state().proofs >= before + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_reached_proves_nothing_though_its_streams_are_open() {
    let world = World::new();
    let (_unheard, address) = kept_port();
    let (gateway, leader) = served(&world, |settings| settings.published = Some(address)).await;
    until("failed proofs", async || number(&gateway, FAILED).await >= 5).await;
    assert_eq!(leader.state().proofs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_an_expired_certificate_proves_nothing_until_it_is_renewed() {
    let world = World::new();
    let names = ["127.0.0.1"];
    let (gateway, leader) = served(&world, |settings| {
        settings.certificate = world.pki.issue_expired("beats", &names);
    })
    .await;
    assert_eq!(number(&gateway, EXPIRY).await, LONG_AGO);
    assert!(number(&gateway, STREAMS_EXPIRY).await > LONG_AGO);
    until("failed proofs", async || number(&gateway, FAILED).await >= 5).await;
    assert_eq!(leader.state().proofs, 0);
    world.pki.issue("beats", &names);
    until("a proof", async || leader.state().proofs > 0).await;
    // It is noted after both certificates were read, so a proof may come before.
    until("its end is told", async || number(&gateway, EXPIRY).await > LONG_AGO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_tells_when_the_certificate_of_its_streams_expires_and_follows_its_renewal() {
    let world = World::new();
    let mut settings = world.settings();
    settings.stream_certificate.own = world.pki.issue_expired("stream", &[GATEWAY]);
    let gateway = world.gateway(settings).await;
    until("the expiry", async || number(&gateway, STREAMS_EXPIRY).await == LONG_AGO).await;
    until("the other", async || number(&gateway, EXPIRY).await > LONG_AGO).await;
    world.pki.issue("stream", &[GATEWAY]);
    until("the renewal", async || number(&gateway, STREAMS_EXPIRY).await > LONG_AGO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_at_the_published_address_proves_nothing() {
    let world = World::new();
    let other = world.gateway(world.settings()).await;
    // The same certificate, so that the beat is sent.
    let (_gateway, leader) =
        served(&world, |settings| settings.published = Some(other.addresses.beats)).await;
    let refused = async || page(other.addresses.admin, "/metrics").await.1;
    until("refused beats", async || {
        let text = refused().await;
        text.contains("requests_refused_total{reason=\"token\"}")
    })
    .await;
    assert_eq!(leader.state().proofs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_cannot_make_a_proof() {
    let world = World::new();
    let (_unheard, address) = kept_port();
    let (gateway, leader) = served(&world, |settings| settings.published = Some(address)).await;
    let mut client = world.client(&gateway).await;
    for n in 0..20 {
        let proof = path(&format!("proof.{n}")).replace("/shop/", &format!("/{NAMESPACE}/"));
        for token in [world.token("a"), "00".repeat(32), String::new()] {
            let forged = request(
                "PATCH",
                &proof,
                Some(&token),
                "application/merge-patch+json",
                renewal().to_string(),
            );
            let answer = client.send(forged).await.unwrap();
            assert!(matches!(answer.code, 401 | 403 | 404), "{answer:?}");
        }
    }
    assert_eq!(leader.state().proofs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_takes_no_further_connection_soon_proves_nothing() {
    let world = World::new();
    let (gateway, leader) = served(&world, |settings| settings.limits.connections = 4).await;
    let target = world.target(&gateway);
    // The gateway's own connection has to be among those that are refused: it is made anew every 5 s.
    let crowd = tokio::spawn(async move {
        let mut crowd = Vec::new();
        loop {
            crowd.extend(target.http1().await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    until("no proof for a second", async || {
        let before = leader.state().proofs;
        tokio::time::sleep(Duration::from_secs(1)).await;
        leader.state().proofs == before
    })
    .await;
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    assert!(text.contains("connections_refused_total{reason=\"full\"}"), "{text}");
    let before = leader.state().proofs;
    crowd.abort();
    until("proofs again", async || leader.state().proofs > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_at_the_address_of_the_gateway_do_not_stop_its_proofs() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.connections_per_address = 1;
    let gateway = world.gateway(settings).await;
    // Nothing asks for a proof yet, so this one has the only place of the address.
    let _client = world.client(&gateway).await;
    assert!(world.target(&gateway).http1().await.is_err());
    let leader = world.leader(&gateway);
    until("a proof", async || leader.state().proofs > 0).await;
    let (_, text) = page(gateway.addresses.admin, "/metrics").await;
    assert!(text.contains("connections_refused_total{reason=\"address\"} 1"), "{text}");
}
