//! `beatkeeper gateway` as a process of a cluster: its Lease, its tokens, its end.

use beatkeeper_api::gateway::Lifetime;
use k8s_openapi::api::coordination::v1::Lease;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    TestNamespace, eventually,
    gateway::{Certificates, Gateway},
    http,
};

const SOON: &[&str] = &["--drain-timeout=100ms", "--leader-elect-lease-duration=100ms"];
const OWN: &str = "beatkeeper-gateway-edge-0";

async fn renewals_of(ns: &TestNamespace) -> Option<(Lease, String)> {
    let lease = ns.lease(OWN).await?;
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0.to_string();
    Some((lease, renewed))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_find_a_gateway_by_its_lease_and_it_goes_with_the_gateway() {
    let ns = TestNamespace::new("gateway-lease").await;
    let uid = ns.pod("edge-0", &["192.0.2.1"], json!({})).await;
    // A Pod of the same name has left its Lease behind.
    let old = json!({
        "metadata": { "name": OWN, "annotations": { "beatkeeper.dev/streams": "192.0.2.9:1" } },
        "spec": { "holderIdentity": "another", "leaseDurationSeconds": 1 },
    });
    ns.create::<Lease>(old).await;
    let certificates = Certificates::new();
    let flags = [SOON, &["--leader-elect-resource-name=of-this-test"]].concat();
    let gateway = Gateway::start(&ns, &certificates, ("edge-0", &uid), &flags);

    let (lease, first) = eventually("the gateway has taken its Lease", async || {
        let (lease, renewed) = renewals_of(&ns).await?;
        let holder = lease.spec.as_ref()?.holder_identity.clone()?;
        (holder == uid).then_some((lease, renewed))
    })
    .await;
    let labels = lease.metadata.labels.unwrap();
    assert_eq!(labels["beatkeeper.dev/gateway"], "of-this-test");
    let annotations = lease.metadata.annotations.unwrap();
    assert_eq!(annotations["beatkeeper.dev/streams"], gateway.address("streams").await);
    let lifetime: Lifetime = annotations["beatkeeper.dev/certificate"].parse().unwrap();
    // Until when certificates of rcgen last that are not told otherwise.
    assert_eq!(lifetime.until.to_string(), "4096-01-01T00:00:00Z");
    let owners = lease.metadata.owner_references.unwrap();
    assert_eq!((owners.len(), owners[0].kind.as_str(), &owners[0].uid), (1, "Pod", &uid));
    eventually("it is renewed", async || {
        renewals_of(&ns).await.filter(|(_, renewed)| *renewed != first)
    })
    .await;

    assert!(gateway.stop().await);
    assert!(ns.lease(OWN).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_replaced_leaves_the_lease_of_its_successor() {
    let ns = TestNamespace::new("gateway-successor").await;
    let uid = ns.pod("edge-0", &["192.0.2.1"], json!({})).await;
    let certificates = Certificates::new();
    let gateway = Gateway::start(&ns, &certificates, ("edge-0", &uid), SOON);
    eventually("the gateway has its Lease", async || ns.lease(OWN).await).await;
    // It is suspended, so that it does not take the Lease back before its end.
    gateway.signal(Signal::STOP);
    ns.patch::<Lease>(OWN, json!({ "spec": { "holderIdentity": "the-next-one" } })).await;
    gateway.signal(Signal::TERM);
    gateway.signal(Signal::CONT);
    assert!(gateway.stop().await);
    let left = ns.lease(OWN).await;
    let holder = left.and_then(|lease| lease.spec?.holder_identity);
    // It may have renewed once between the two signals, and then the Lease was its own.
    assert!(holder.is_none_or(|holder| holder == "the-next-one"));
}

/// Waits until a beat with this token is answered with this code, and returns the message. Until the API server has
/// answered the gateway, no token can be checked.
async fn answered(ns: &TestNamespace, gateway: &Gateway, token: &str, code: u16) -> String {
    eventually(&format!("a beat is answered with {code}"), async || {
        let answer = gateway.beat(&ns.name, "greeter.greeter-0", token).await;
        assert!(matches!(answer.code, 0 | 401 | 503), "{answer:?}");
        let checked = !answer.message.contains("the token cannot be checked");
        (checked && answer.code == code).then_some(answer.message)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_the_cluster_are_known_by_their_keys_and_others_are_refused_with_a_remedy() {
    let ns = TestNamespace::new("gateway-tokens").await;
    let uid = ns.pod("greeter-0", &["192.0.2.1"], json!({})).await;
    let certificates = Certificates::new();
    let (by_keys, by_reviews) = (&[][..], &["--token-review"][..]);
    for (way, why) in [
        (
            by_keys,
            "the token is for the audience elsewhere: request one for the audience beatkeeper",
        ),
        (by_reviews, "the API server does not accept the token"),
    ] {
        let flags = [SOON, way].concat();
        let gateway = Gateway::start(&ns, &certificates, ("edge-0", "edge-uid"), &flags);
        let good = ns.token("beatkeeper", Some(("greeter-0", &uid))).await;
        // The token is good; no replica of an operator is there to hold the beat.
        answered(&ns, &gateway, &good, 503).await;
        let elsewhere = ns.token("elsewhere", Some(("greeter-0", &uid))).await;
        let answer = answered(&ns, &gateway, &elsewhere, 401).await;
        assert!(answer.contains(why), "{answer}");
        let forged = format!("{}x", &good[..good.len() - 2]);
        answered(&ns, &gateway, &forged, 401).await;
        assert!(gateway.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lives_without_an_operator_and_is_not_ready() {
    let ns = TestNamespace::new("gateway-health").await;
    let certificates = Certificates::new();
    let gateway = Gateway::start(&ns, &certificates, ("edge-0", "edge-uid"), SOON);
    let admin = gateway.address("admin").await;
    let live = eventually("it lives", async || http::get(&admin, "/livez").await).await;
    assert_eq!(live.code, 200);
    // Before it knows the issuer of tokens, that is the reason it gives.
    let why = "no replica of the operator has a stream to it\n";
    let ready = eventually("it knows the issuer of tokens", async || {
        http::get(&admin, "/readyz").await.filter(|ready| ready.body == why)
    })
    .await;
    assert_eq!(ready.code, 503);
    let metrics =
        eventually("it tells metrics", async || http::get(&admin, "/metrics").await).await;
    assert!(metrics.body.contains("beatkeeper_gateway_streams 0\n"), "{}", metrics.body);
    assert!(gateway.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_missing_ends_the_gateway_with_the_name_of_its_file() {
    let ns = TestNamespace::new("gateway-certificate").await;
    let certificates = Certificates::new();
    let file = certificates.of("streams").join("ca.crt");
    std::fs::remove_file(&file).unwrap();
    let mut gateway = Gateway::start(&ns, &certificates, ("edge-0", "edge-uid"), SOON);
    assert!(!gateway.ended().await);
    assert!(gateway.logged().contains(&file.display().to_string()), "{}", gateway.logged());
}
