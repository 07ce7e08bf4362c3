//! Who beats: tokens, their keys, and their end.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use beatkeeper_core::carriers::rights::{BoundPod, Identity};
use beatkeeper_gateway::{identity::authenticator::Way, run::Ports};
use serde_json::{Value, json};

use crate::support::{
    clients::{path, renewal, request},
    process::Gateway,
    tokens::{BESIDES, ISSUER, Reviews, SigningKey, base64_url, claims},
    until,
    world::{World, expected, ready, served},
};

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The claims of Pod `a` with one that differs.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("a");
    claims[name] = value;
    claims
}

/// Tokens that are not accepted, each with a part of the reason.
fn no_good(world: &World) -> Vec<(String, &'static str)> {
    let forged = SigningKey::ecdsa("key-1");
    let mut cut = world.token("a");
    cut.truncate(cut.len() - 4);
    let mut other_account = claims("a");
    other_account["sub"] = "system:serviceaccount:bank:default".into();
    let mut without_uid = claims("a");
    without_uid["kubernetes.io"]["pod"] = json!({ "name": "a" });
    let mut user = claims("a");
    user.as_object_mut().unwrap().remove("kubernetes.io");
    vec![
        (
            world.key.sign(&with("aud", json!(["https://kubernetes.default.svc"]))),
            "request one for the audience beatkeeper",
        ),
        (world.key.sign(&with("aud", json!("other"))), "for the audience other"),
        (
            world.key.sign(&with("iss", json!("https://else.where"))),
            "of the issuer https://else.where",
        ),
        (
            world.key.sign(&with("exp", json!(now() - 1))),
            "has expired: read the file of the token again",
        ),
        (world.key.sign(&with("nbf", json!(now() + 600))), "not valid yet"),
        (world.key.sign(&other_account), "no JSON Web Token of a ServiceAccount"),
        (world.key.sign(&without_uid), "no JSON Web Token of a ServiceAccount"),
        (world.key.sign(&user), "no JSON Web Token of a ServiceAccount"),
        (forged.sign(&claims("a")), "the signature of the token is wrong"),
        (cut, "the signature of the token is wrong"),
        ("not-a-token".to_owned(), "no JSON Web Token"),
        ("x".repeat(13_000), "longer than 12288 bytes"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_not_for_this_gateway_now_are_refused_with_the_reason() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    for (token, why) in no_good(&world) {
        let answer = client.beat("reg.a", &token).await;
        assert_eq!((answer.code, &answer.body["reason"]), (401, &json!("Unauthorized")), "{why}");
        assert!(answer.message().contains(why), "{why}: {answer:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let none = request(
        "PATCH",
        &path("reg.a"),
        None,
        "application/merge-patch+json",
        renewal().to_string(),
    );
    let answer = client.send(none).await.unwrap();
    assert_eq!(answer.code, 401);
    assert!(answer.message().contains("send the header Authorization: Bearer TOKEN"), "{answer:?}");
    assert_eq!(leader.state().beats, 0);
    let answer = client.beat("reg.a", &world.key.sign(&with("aud", json!("beatkeeper")))).await;
    assert_eq!(answer.code, 200, "an audience may be a text, {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_chooses_its_algorithm_is_refused() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let body = base64_url(claims("a").to_string().as_bytes());
    for algorithm in ["none", "None", "HS256", "PS256", "EdDSA"] {
        let head = json!({ "alg": algorithm, "typ": "JWT", "kid": "key-1" }).to_string();
        let head = base64_url(head.as_bytes());
        for signature in ["", "AAAA"] {
            let token = format!("{head}.{body}.{signature}");
            let answer = client.beat("reg.a", &token).await;
            assert_eq!(answer.code, 401, "{algorithm}: {answer:?}");
            let why = format!("signed with {algorithm}, which is not accepted");
            assert!(answer.message().contains(&why), "{answer:?}");
        }
    }
    // The public key as a shared secret.
    let secret = jsonwebtoken::EncodingKey::from_secret(b"public");
    let mut head = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    head.kid = Some("key-1".to_owned());
    let token = jsonwebtoken::encode(&head, &claims("a"), &secret).unwrap();
    assert_eq!(client.beat("reg.a", &token).await.code, 401);
    let without_key = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let token = jsonwebtoken::encode(&without_key, &claims("a"), &secret).unwrap();
    assert_eq!(client.beat("reg.a", &token).await.code, 401);
    assert_eq!(leader.state().beats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_and_ecdsa_are_verified_and_a_key_of_one_family_does_not_verify_the_other() {
    let world = World::new();
    let rsa = SigningKey::rsa("key-rsa");
    world.published.set(&[&world.key, &rsa]);
    world.published.add(json!({ "kty": "unheard-of", "kid": "key-x" }));
    world.published.add(json!({ "kty": "oct", "kid": "key-oct", "k": "c2VjcmV0" }));
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &rsa.sign(&claims("a"))).await.code, 200);
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    for crossed in [SigningKey::ecdsa("key-rsa"), SigningKey::rsa("key-1")] {
        let answer = client.beat("reg.a", &crossed.sign(&claims("a"))).await;
        assert_eq!(answer.code, 401, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_on_a_kept_connection_is_refused_from_then_on() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let token = world.key.sign(&with("exp", json!(now() + 3)));
    assert_eq!(client.beat("reg.a", &token).await.code, 200);
    until("the end of the token", async || client.beat("reg.a", &token).await.code == 401).await;
    let answer = client.beat("reg.a", &token).await;
    assert!(answer.message().contains("has expired"), "{answer:?}");
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200, "a new one is good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_does_not_confuse_the_tokens_of_two_instances() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let (a, b) = (world.token("a"), world.token("b"));
    for _ in 0..3 {
        assert_eq!(client.beat("reg.a", &a).await.code, 200);
        assert_eq!(client.beat("reg.b", &b).await.code, 200);
        assert_eq!(client.beat("reg.a", &b).await.code, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_read_when_a_token_names_it_and_a_flood_of_names_reads_once() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    assert_eq!(client.beat("reg.a", &world.token("a")).await.code, 200);
    until("the first keys", async || world.published.asked.load(SeqCst) >= 1).await;
    let before = world.published.asked.load(SeqCst);
    for n in 0..50 {
        let unknown = SigningKey::ecdsa(&format!("key-{n}-unknown"));
        let answer = client.beat("reg.a", &unknown.sign(&claims("a"))).await;
        assert!(matches!(answer.code, 401 | 503), "{answer:?}");
        let told = "the cluster has not published";
        let fresh = "read a moment ago";
        assert!(answer.message().contains(told) || answer.message().contains(fresh), "{answer:?}");
    }
    assert!(world.published.asked.load(SeqCst) <= before + 1);

    let rotated = SigningKey::ecdsa("key-2");
    world.published.set(&[&world.key, &rotated]);
    let token = rotated.sign(&claims("a"));
    until("the new key", async || client.beat("reg.a", &token).await.code == 200).await;
    assert!(world.published.asked.load(SeqCst) <= before + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_a_pod_renews_no_lease_of_a_pod_and_may_renew_an_outside_one() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let mut unbound = claims("a");
    unbound["kubernetes.io"].as_object_mut().unwrap().remove("pod");
    let answer = client.beat("reg.a", &world.key.sign(&unbound)).await;
    assert_eq!(answer.code, 403);
    assert!(answer.message().contains("the token is bound to no Pod"), "{answer:?}");
    assert_eq!(client.beat("reg.vm", &world.agent()).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_can_be_reviewed_instead_and_an_answer_counts_for_a_while() {
    let world = World::new();
    let reviews = Reviews::default();
    let pod = BoundPod { name: "a".into(), uid: "a-uid".into() };
    let user = "system:serviceaccount:shop:default".into();
    let long = Identity { user: "x".repeat(600).into(), pod: None };
    reviews.known.lock().unwrap().insert("good".into(), Identity { user, pod: Some(pod) });
    reviews.known.lock().unwrap().insert("long".into(), long);
    let port = reviews.clone();
    let gateway = Gateway::start(world.settings(), move || Ports {
        tokens: Way::Reviews { reviewer: Box::new(port), lasts: Duration::from_secs(60) },
        expected: expected(),
    })
    .await;
    let _leader = world.leader(&gateway);
    ready(&gateway).await;
    for _ in 0..3 {
        let mut client = world.client(&gateway).await;
        assert_eq!(client.beat("reg.a", "good").await.code, 200);
    }
    assert_eq!(reviews.asked.load(SeqCst), 1);
    let mut client = world.client(&gateway).await;
    let answer = client.beat("reg.a", "bad").await;
    assert_eq!(answer.code, 401);
    assert!(answer.message().contains("its Pod may be gone"), "{answer:?}");
    // A stream would not carry such a name, and would end.
    let answer = client.beat("reg.a", "long").await;
    assert_eq!(answer.code, 401, "{answer:?}");
    assert_eq!(client.beat("reg.a", "good").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_no_longer_counts_is_asked_for_again_on_the_same_connection() {
    let world = World::new();
    let reviews = Reviews::default();
    let pod = BoundPod { name: "a".into(), uid: "a-uid".into() };
    let user = "system:serviceaccount:shop:default".into();
    reviews.known.lock().unwrap().insert("good".into(), Identity { user, pod: Some(pod) });
    let port = reviews.clone();
    let gateway = Gateway::start(world.settings(), move || Ports {
        tokens: Way::Reviews { reviewer: Box::new(port), lasts: Duration::from_secs(1) },
        expected: expected(),
    })
    .await;
    let _leader = world.leader(&gateway);
    ready(&gateway).await;
    let mut client = world.client(&gateway).await;
    until("the third review", async || {
        let answer = client.beat("reg.a", "good").await;
        assert_eq!(answer.code, 200, "{answer:?}");
        reviews.asked.load(SeqCst) >= 3
    })
    .await;
    reviews.known.lock().unwrap().clear();
    until("the refusal", async || client.beat("reg.a", "good").await.code == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_issuer_is_read_when_a_token_names_it_and_the_former_one_is_still_accepted() {
    const NEXT: &str = "https://next.example";
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let token = |issuer: &str| world.key.sign(&with("iss", json!(issuer)));
    assert_eq!(client.beat("reg.a", &token(BESIDES)).await.code, 200);
    // The cluster does not know it yet, and is not asked for each token.
    until("the first keys", async || world.published.asked.load(SeqCst) >= 1).await;
    let before = world.published.asked.load(SeqCst);
    for _ in 0..50 {
        assert_eq!(client.beat("reg.a", &token(NEXT)).await.code, 401);
    }
    assert!(world.published.asked.load(SeqCst) <= before + 1);

    *world.published.issuer.lock().unwrap() = Some(NEXT.to_owned());
    until("the new issuer", async || client.beat("reg.a", &token(NEXT)).await.code == 200).await;
    for accepted in [ISSUER, BESIDES] {
        assert_eq!(client.beat("reg.a", &token(accepted)).await.code, 200, "{accepted}");
    }
    let answer = client.beat("reg.a", &token("https://else.where")).await;
    assert!(answer.message().contains("this cluster is https://next.example"), "{answer:?}");
}
