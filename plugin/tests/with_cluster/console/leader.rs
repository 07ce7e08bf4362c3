//! The drawer shows what the leader knows.

use std::time::Instant;

use beatkeeper_cluster::{AuditEntry, AuditMark};
use serde_json::Value;

use super::server::Console;
use crate::{
    stage::{PATIENCE, Stage, eventually},
    why_leader::Explained,
};

/// Starts a console that asks the leader where it answers.
fn started(explained: &Explained, more: &[&str]) -> Console {
    let at = ["console", "--election", &explained.election];
    Console::of(explained.stage.command(&[&at[..], more].concat()))
}

/// The argument about vm-1.
fn why(console: &Console, stage: &Stage) -> Value {
    let answer = console.get(&format!("/why/{}/greeter/vm-1", stage.namespace));
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// Waits until the argument is as wanted.
fn until(console: &Console, stage: &Stage, what: &str, wanted: fn(&Value) -> bool) -> Value {
    eventually(what, || match why(console, stage) {
        argument if wanted(&argument) => Ok(argument),
        argument => Err(argument.to_string()),
    })
}

/// The step of the argument that says who argues.
fn step(argument: &Value) -> &str {
    let mut steps = argument["steps"].as_array().unwrap().iter();
    steps.find(|it| it["topic"] == "leader").map_or("", |it| it["text"].as_str().unwrap())
}

/// How many tokens for questions were made of the stage's ServiceAccount.
async fn tokens(stage: &Stage, since: AuditMark) -> usize {
    let entries = stage.plane.audit_since(since).await.unwrap();
    let wanted = ("token", "beatkeeper-explain", &*stage.namespace);
    let is_one = |it: &&AuditEntry| (&*it.subresource, &*it.name, &*it.namespace) == wanted;
    entries.iter().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drawer_tells_what_the_leader_knows_with_one_token_and_finds_the_next_leader() {
    let mut explained = Explained::new("console-explain").await;
    let address = explained.address.clone();
    let mark = explained.stage.plane.audit_mark().await.unwrap();
    let console = started(&explained, &["--operator-address", &address]);
    console.messages_until("it is ready", |it| it["row"]["counts"][0][1] == 1);
    let told = until(&console, &explained.stage, "the leader tells of it", |it| {
        it["leader"]["decision"]["reason"] == "Beating"
    });
    assert!(step(&told).contains("has answered: it has led for"), "{told}");
    let begun = Instant::now();
    let before = loop {
        // The audit log has a request a moment after it was answered.
        match tokens(&explained.stage, mark).await {
            0 => assert!(begun.elapsed() < PATIENCE, "no token was made"),
            some => break some,
        }
    };
    for _ in 0..5 {
        let told = why(&console, &explained.stage);
        assert!(told["leader"]["replica"]["leads"] == true, "{told}");
    }
    let after = tokens(&explained.stage, mark).await;
    assert_eq!(after, before, "the way and its token are kept");

    explained.stage.kill("operator");
    let told = until(&console, &explained.stage, "it is told that nothing answers", |it| {
        it["leaderNotAsked"].is_string()
    });
    assert!(step(&told).ends_with("This is argued from API objects alone"), "{told}");
    assert!(told["steps"].as_array().unwrap().len() > 5, "the argument goes on: {told}");

    // The next one has another certificate and another name.
    let election = format!("--leader-elect-resource-namespace={}", explained.stage.namespace);
    let explain = format!("--explain-bind-address={address}");
    explained.stage.operate(&["--leader-elect", &election, &explain]);
    until(&console, &explained.stage, "the next leader tells of it", |it| {
        it["leader"]["replica"]["leads"] == true
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drawer_that_may_not_ask_the_leader_says_why_or_nothing_if_it_was_told_not_to() {
    let explained = Explained::new("console-unasked").await;
    let address = ["--operator-address", &explained.address, "--token-of", "stranger"];
    let console = started(&explained, &address);
    console.messages_until("it is ready", |it| it["row"]["counts"][0][1] == 1);
    let told = until(&console, &explained.stage, "it may not ask", |it| {
        it["leaderNotAsked"].as_str().is_some_and(|why| why.contains("may not read this"))
    });
    assert!(told["leader"].is_null(), "{told}");
    assert_eq!(console.get("/why/a/b/c").status, 404, "nothing is asked about what is not there");

    let console = started(&explained, &["--without-leader"]);
    console.messages_until("it is ready", |it| it["row"]["counts"][0][1] == 1);
    let told = why(&console, &explained.stage);
    assert!(told["leader"].is_null() && told["leaderNotAsked"].is_null(), "{told}");
    assert_eq!(step(&told), "", "{told}");
}
