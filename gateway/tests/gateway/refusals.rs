//! Each refusal is an answer that a client of Kubernetes reads, and says what to do.

use beatkeeper_api::beats::BEATS_PATH;
use serde_json::{Value, json};

use crate::support::{
    clients::{beat, path, renewal, request},
    world::{World, served},
};

const MERGE: &str = "application/merge-patch+json";
const TIME: &str = "2026-01-02T03:04:05.678901Z";

/// Bodies that are no renewal, the field that is wrong, and a part of the message. TIME stands for a good time.
const NO_RENEWALS: &[(&str, &str, &str)] = &[
    (r#"{"spec":{"renewTime":"TIME","holderIdentity":"b"}}"#, "spec.holderIdentity", "API server"),
    (
        r#"{"spec":{"renewTime":"TIME","leaseTransitions":1}}"#,
        "spec.leaseTransitions",
        "API server",
    ),
    (r#"{"metadata":{"labels":{}},"spec":{"renewTime":"TIME"}}"#, "metadata.labels", "API server"),
    (r#"{"metadata":{"name":"b"},"spec":{"renewTime":"TIME"}}"#, "metadata.name", "the path says"),
    (r#"{"kind":"Pod","spec":{"renewTime":"TIME"}}"#, "kind", "the path says"),
    (
        r#"{"metadata":null,"spec":{"renewTime":"TIME"}}"#,
        "metadata that is no object",
        "API server",
    ),
    (r#"{"status":{},"spec":{"renewTime":"TIME"}}"#, "status", "API server"),
    (r#"{}"#, "spec.renewTime", "has no spec.renewTime"),
    (r#"[]"#, "spec.renewTime", "has no spec.renewTime"),
    (r#"{"spec":null}"#, "spec that is no object", "API server"),
    (r#"{"spec":{"renewTime":null}}"#, "spec.renewTime", "six fractional digits"),
    (r#"{"spec":{"renewTime":5}}"#, "spec.renewTime", "six fractional digits"),
    (r#"{"spec":{"renewTime":"now"}}"#, "spec.renewTime", "six fractional digits"),
    (r#"{"spec":{"renewTime":"2026-01-02T03:04:05Z"}}"#, "spec.renewTime", "six fractional"),
    (r#"{"spec":{"renewTime":"2026-01-02T03:04:05.123Z"}}"#, "spec.renewTime", "six fractional"),
    (r#"{"spec":{"renewTime":"2026-13-02T03:04:05.678901Z"}}"#, "spec.renewTime", "six fractional"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_a_renewal_is_refused_with_the_field_and_the_remedy() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let token = world.token("a");
    for (body, field, why) in NO_RENEWALS {
        let body: Value = serde_json::from_str(&body.replace("TIME", TIME)).unwrap();
        let answer = client.send(beat("reg.a", &token, &body)).await.unwrap();
        assert_eq!(answer.code, 422, "{body}: {answer:?}");
        assert_eq!(answer.body["kind"], "Status", "{body}");
        assert_eq!(answer.body["reason"], "Invalid", "{body}");
        assert_eq!(answer.body["details"]["name"], "reg.a", "{body}");
        assert_eq!(answer.body["details"]["causes"][0]["field"], *field, "{body}");
        assert!(answer.message().contains(why), "{body}: {answer:?}");
    }
    assert_eq!(leader.state().beats, 0);
    for time in [TIME, "2026-01-02T03:04:05.678901+02:00", "1970-01-01T00:00:00.000000Z"] {
        let body = json!({ "spec": { "renewTime": time } });
        let answer = client.send(beat("reg.a", &token, &body)).await;
        assert_eq!(answer.unwrap().code, 200, "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_beats_are_refused_in_the_form_of_kubernetes() {
    let world = World::new();
    let (gateway, _leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let token = world.token("a");
    let (beat, body) = (path("reg.a"), renewal().to_string());
    let dry = format!("{beat}?dryRun=All");
    let (token, beat, body, dry) = (Some(&*token), &*beat, &*body, &*dry);
    for (method, path, content_type, body, code, reason, why) in [
        ("GET", beat, MERGE, body, 405, "MethodNotAllowed", "only PATCH"),
        ("PUT", beat, MERGE, body, 405, "MethodNotAllowed", "only PATCH"),
        ("GET", BEATS_PATH, MERGE, body, 405, "MethodNotAllowed", "only POST"),
        ("PATCH", "/api/v1/pods", MERGE, body, 404, "NotFound", "a gateway takes beats only"),
        ("GET", "/version", MERGE, body, 404, "NotFound", "a gateway takes beats only"),
        ("PATCH", dry, MERGE, body, 422, "Invalid", "dry run"),
        (
            "PATCH",
            beat,
            "application/json-patch+json",
            "[]",
            415,
            "UnsupportedMediaType",
            "Content-Type: application/merge-patch+json",
        ),
        ("PATCH", beat, "", body, 415, "UnsupportedMediaType", "Content-Type"),
        ("PATCH", beat, MERGE, "{", 400, "BadRequest", "no JSON"),
        ("PATCH", beat, MERGE, "", 400, "BadRequest", "no JSON"),
    ] {
        let answer = client.send(request(method, path, token, content_type, body.to_owned())).await;
        let answer = answer.unwrap();
        assert_eq!(answer.code, code, "{method} {path} {body}: {answer:?}");
        assert_eq!(answer.body["status"], "Failure");
        assert_eq!(answer.body["code"], code);
        assert_eq!(answer.body["reason"], reason, "{method} {path}");
        assert!(answer.message().contains(why), "{method} {path}: {answer:?}");
        assert_eq!(answer.headers.contains_key("allow"), code == 405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_the_leader_is_told_in_its_words() {
    let world = World::new();
    let (gateway, leader) = served(&world, |_| {}).await;
    let mut client = world.client(&gateway).await;
    let answer = client.beat("reg.b", &world.token("a")).await;
    assert_eq!((answer.code, &answer.body["reason"]), (403, &json!("Forbidden")), "{answer:?}");
    assert!(answer.message().contains("Pod b owns Lease reg.b, and the token is bound to Pod a"));
    let answer = client.beat("reg.vm", &world.token("a")).await;
    assert_eq!(answer.code, 403, "{answer:?}");
    assert!(
        answer.message().contains("default may not patch Lease reg.vm: grant it"),
        "{answer:?}"
    );
    let answer = client.beat("reg.gone", &world.token("a")).await;
    assert_eq!((answer.code, &answer.body["reason"]), (404, &json!("NotFound")), "{answer:?}");
    assert!(answer.message().contains("create it through the API server first"), "{answer:?}");
    drop(leader);
}
