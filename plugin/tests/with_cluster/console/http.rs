//! What the console answers to requests, without a browser.

use serde_json::Value;

use super::server::Console;
use crate::stage::{Stage, eventually};

#[tokio::test]
async fn the_console_answers_a_get_with_its_secret_at_its_own_host_and_nothing_else() {
    let stage = Stage::without_operator("console-gate").await;
    let console = Console::start(&stage, &[]);
    let page = console.get("/");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("<h1>Beatkeeper</h1>"), "{page:?}");
    for method in ["POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"] {
        let path = format!("/{}/", console.secret);
        let refused = console.ask(method, &path, &console.host);
        assert_eq!(refused.status, 405, "{method}: {refused:?}");
        assert!(refused.has("allow", "GET"), "{refused:?}");
    }
    let port = console.host.split_once(':').unwrap().1;
    let path = format!("/{}/", console.secret);
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1".to_owned()]
    {
        assert_eq!(console.ask("GET", &path, &host).status, 421, "{host}");
    }
    assert_eq!(console.ask("GET", &path, &format!("localhost:{port}")).status, 200);
    let wrong = "0".repeat(console.secret.len());
    for path in ["/", "/events", "/style.css", &format!("/{wrong}/"), &format!("/{wrong}/events")] {
        assert_eq!(console.ask("GET", path, &console.host).status, 404, "{path}");
    }
    assert_eq!(console.get("/nothing.js").status, 404);
    assert_eq!(console.get("/why/a/b/c").status, 404);
    assert_eq!(console.get("").status, 308, "the folder is the page");
}

#[tokio::test]
async fn each_answer_forbids_what_the_page_does_not_need_and_is_not_kept() {
    let stage = Stage::without_operator("console-headers").await;
    let console = Console::start(&stage, &[]);
    let host = console.host.clone();
    for answer in [
        console.get("/"),
        console.get("/main.js"),
        console.ask("POST", "/", &host),
        console.ask("GET", "/", &host),
        console.ask("GET", "/", "evil.example"),
    ] {
        assert!(answer.has("cache-control", "no-store"), "{answer:?}");
        assert!(answer.has("x-content-type-options", "nosniff"), "{answer:?}");
        assert!(answer.has("referrer-policy", "no-referrer"), "{answer:?}");
        let policy = answer.head.lines().find(|line| line.starts_with("content-security-policy"));
        let policy = policy.unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{answer:?}");
        assert!(policy.contains("script-src 'self'; style-src 'self'"), "{answer:?}");
        assert!(!policy.contains("unsafe"), "{answer:?}");
    }
}

#[tokio::test]
async fn two_consoles_have_different_secrets() {
    let stage = Stage::without_operator("console-secrets").await;
    let (one, other) = (Console::start(&stage, &[]), Console::start(&stage, &[]));
    assert_ne!(one.secret, other.secret);
    assert_eq!(one.ask("GET", &format!("/{}/", other.secret), &one.host).status, 404);
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let stage = Stage::without_operator("console-address").await;
    let printed = stage.plugin(&["console", "--address", "0.0.0.0"]);
    assert_eq!(printed.code, 2, "{printed:?}");
    assert!(printed.err.contains("is not 127.0.0.1 or ::1"), "{printed:?}");
}

/// The state of an instance in a message of its registration.
fn state<'a>(message: &'a Value, instance: &str) -> Option<&'a str> {
    let cells = message["cells"].as_array()?.iter();
    let mut cells = cells.map(|cell| if cell.is_array() { &cell[1] } else { cell });
    cells.find(|cell| cell["name"] == instance)?["state"].as_str()
}

#[tokio::test]
async fn the_stream_tells_of_beats_of_a_death_and_of_what_has_happened() {
    let mut stage = Stage::new("console-stream").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 1 instance ready"));
    let console = Console::start(&stage, &[]);
    let key = format!("{}/greeter", stage.namespace);
    let messages = console.messages_until("a beat is told", |message| {
        message["kind"] == "beats" && message["beats"][0][0] == key.as_str()
    });
    let of_kind = |kind: &str| messages.iter().find(|message| message["kind"] == kind).unwrap();
    assert_eq!(messages[0]["kind"], "hello");
    let told = of_kind("registration");
    assert_eq!(told["key"], key.as_str());
    assert_eq!(told["row"]["ttlMillis"], 3000);
    assert_eq!(state(told, "vm-1"), Some("Ready"));
    let answer = console.get(&format!("/why/{}/greeter/vm-1", stage.namespace));
    let why: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&why["well"], &why["instance"]["state"]), (&true.into(), &"Ready".into()));
    stage.kill("vm-1");
    console
        .messages_until("its death is told", |message| state(message, "vm-1") == Some("Expired"));
    console.messages_until("the death is a mark, and by an event its start", |message| {
        let mut marks = message["marks"].as_array().into_iter().flatten();
        let died = |mark: &Value| mark["what"] == "pruned" && mark["name"] == "vm-1";
        marks.clone().any(died) && marks.any(|mark| mark["what"] == "joined")
    });
    let why = eventually("the argument has its event", || {
        let answer = console.get(&format!("/why/{}/greeter/vm-1", stage.namespace));
        let why: Value = serde_json::from_str(&answer.body).unwrap();
        let mut history = why["history"].as_array().into_iter().flatten();
        let found = history.any(|it| it["reason"] == "InstanceExpired");
        if found { Ok(why) } else { Err(answer.body) }
    });
    assert_eq!(why["remedy"], "Start it again; its next beat publishes it.");
}

#[tokio::test]
async fn metrics_that_are_guarded_are_told_to_be() {
    let stage = Stage::electing_with("console-guarded", &["--metrics-secure"]).await;
    let flag = format!("--metrics={}", stage.metrics_url());
    let console = Console::start(&stage, &[&flag]);
    console.messages_until("it is told why the lag is not known", |it| {
        it["lag"]["unknown"].as_str().is_some_and(|why| why.contains("to readers with a token"))
    });
}

#[tokio::test]
async fn the_leader_its_proof_and_the_prune_lag_are_told_and_otherwise_why_not() {
    let stage = Stage::without_operator("console-leader").await;
    let console = Console::start(&stage, &[]);
    let messages = console.messages_until("it is told why", |it| it["kind"] == "operator");
    let report = messages.last().unwrap();
    assert!(report["leader"]["unknown"].is_string(), "{report}");
    assert!(report["lag"]["unknown"].is_string(), "{report}");
    let mut stage = Stage::electing("console-leads").await;
    let metrics = stage.metrics_url();
    let flag = format!("--metrics={metrics}");
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 1 instance ready"));
    let console = Console::start(&stage, &[&flag]);
    let namespace = stage.namespace.clone();
    console.messages_until("the leader and its proof are told", |it| {
        let leader = &it["leader"]["is"];
        leader["renews"] == true
            && leader["namespace"] == namespace.as_str()
            && it["proof"]["is"].is_number()
    });
    stage.kill("vm-1");
    console.messages_until("the lag is told", |it| {
        it["lag"]["is"]["count"].as_u64().is_some_and(|count| count >= 1)
            && it["lag"]["is"]["p99"].as_f64().is_some_and(|p99| p99 < 5.0)
    });
    stage.kill("operator");
    console.messages_until("the leader renews no more", |it| it["leader"]["is"]["renews"] == false);
}
