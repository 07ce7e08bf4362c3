//! The start of a gateway, its end, and its next life.

use std::time::Duration;

use beatkeeper_gateway::{
    run::{Bound, on_this_thread},
    settings::Settings,
};

use crate::support::{
    clients::page,
    soon, until,
    world::{World, kept_port, ready, served},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_lets_its_instances_go_and_tells_the_replicas() {
    let world = World::new();
    let (mut gateway, leader) =
        served(&world, |settings| settings.drain = Duration::from_secs(4)).await;
    let mut http1 = world.client(&gateway).await;
    let mut http2 = world.target(&gateway).http2().await.unwrap();
    let token = world.token("a");
    assert!(!http1.beat("reg.a", &token).await.closes());
    assert_eq!(http2.beat("reg.a", &token).await.code, 200);
    gateway.stop.cancel();
    let admin = gateway.addresses.admin;
    until("the drain", async || page(admin, "/readyz").await == (503, "it ends\n".to_owned()))
        .await;

    let answer = http1.beat("reg.a", &token).await;
    assert_eq!((answer.code, answer.closes()), (200, true), "{answer:?}");
    let mut late = world.client(&gateway).await;
    let answer = late.beat("reg.a", &token).await;
    assert_eq!((answer.code, answer.closes()), (200, true), "a late one beats, {answer:?}");
    let answer = http2.beat("reg.a", &token).await;
    assert_eq!(answer.code, 200, "{answer:?}");
    let beat = crate::support::clients::beat("reg.a", &token, &crate::support::clients::renewal());
    until("HTTP/2 to end", async || http2.send(beat.clone()).await.is_err()).await;

    gateway.ended().await;
    until("the word of its end", async || leader.state().leaving == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_crashed_returns_with_another_epoch_and_the_replica_dials_it_again() {
    let world = World::new();
    let ((_beats, beats), (_streams, streams)) = (kept_port(), kept_port());
    let change = |settings: &mut Settings| (settings.beats, settings.streams) = (beats, streams);
    let (gateway, leader) = served(&world, change).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    drop(gateway);
    until("the end of the stream", async || leader.state().open.is_empty()).await;

    let mut settings = world.settings();
    change(&mut settings);
    let gateway = world.gateway(settings).await;
    ready(&gateway).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    let hellos = leader.state().hellos.clone();
    let [first, second] = &hellos[..] else { panic!("{hellos:?}") };
    assert_eq!(first.pod, second.pod);
    assert_ne!(first.epoch, second.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_replaced_is_shown_to_the_next_client() {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let shown = async || {
        let stream = world.target(&gateway).tls("http/1.1").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let before = shown().await;
    let files = world.pki.issue("beats", &["127.0.0.1"]);
    let next = CertificateDer::from_pem_file(&files.certificate).unwrap();
    assert_ne!(before, next);
    until("the new certificate", async || shown().await == next).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200, "the old connection lives");
    let proofs = leader.state().proofs;
    until("proofs by the new certificate", async || leader.state().proofs > proofs + 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_old_ends_with_an_answer_so_that_its_client_may_go_elsewhere() {
    let world = World::new();
    let (gateway, _leader) =
        served(&world, |settings| settings.limits.lasts = Duration::from_secs(2)).await;
    let mut http1 = world.client(&gateway).await;
    let mut http2 = world.target(&gateway).http2().await.unwrap();
    let token = world.token("a");
    assert!(!http1.beat("reg.a", &token).await.closes(), "it is young");
    until("the last answer", async || {
        let answer = http1.beat("reg.a", &token).await;
        assert_eq!(answer.code, 200, "{answer:?}");
        answer.closes()
    })
    .await;
    let beat = crate::support::clients::beat("reg.a", &token, &crate::support::clients::renewal());
    until("HTTP/2 to end", async || http2.send(beat.clone()).await.is_err()).await;
    let mut anew = world.client(&gateway).await;
    assert_eq!(anew.beat("reg.a", &token).await.code, 200);
}

#[test]
fn a_gateway_that_does_not_know_the_issuer_lives_and_is_not_ready() {
    let world = World::new();
    let running = on_this_thread(async {
        let bound = Bound::bind(world.settings()).await.unwrap();
        let admin = bound.addresses().admin;
        let probes = async {
            let livez = page(admin, "/livez").await;
            (livez, page(admin, "/readyz").await, page(admin, "/metrics").await.0)
        };
        bound.not_ready_until(soon("the answers", probes), "it is not known yet").await
    });
    let (livez, readyz, metrics) = running.unwrap();
    assert_eq!(livez, (200, "ok\n".to_owned()));
    assert_eq!(readyz, (503, "it is not known yet\n".to_owned()));
    assert_eq!(metrics, 200);
}
