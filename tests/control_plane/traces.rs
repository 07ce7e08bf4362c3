//! What prunes, holds or fails becomes a trace in a real OpenTelemetry collector, and nothing else does.

mod collector;

use std::{net::TcpListener, time::Duration};

use serde_json::json;

use collector::Collector;

use crate::{
    metrics::until,
    support::{
        Operator, TestNamespace, beats::Beats, eventually, prometheus::free_port, scrape::Scrape,
    },
};

const INTERVAL: Duration = Duration::from_secs(1);
const DROPPED: &str = "beatkeeper_trace_spans_dropped_total";
const FAILS: &str = "cannot send traces; they are dropped until it takes them";

/// An operator that sends traces to this URL.
fn tracing_operator(ns: &TestNamespace, url: &str, flags: &[&str]) -> Operator {
    let endpoint = format!("--otlp-endpoint={url}");
    let mut all = vec![endpoint.as_str(), "--metrics-bind-address=127.0.0.1:0"];
    all.extend(flags);
    ns.operator_with(&all)
}

/// Waits until the operator has seen this many more beats.
async fn beats_more(operator: &Operator, more: f64) {
    let beats = |scrape: &Scrape| scrape.value("beatkeeper_beats_total");
    let before = beats(&operator.scrape().await);
    until(operator, "instances have beaten", |it| beats(it) >= before + more).await;
}

/// Registers `greeter` with the instances vm-1 to vm-4, and waits until all are published.
async fn four_published(ns: &TestNamespace) -> Beats {
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=4 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    ns.published_as_ready("greeter", &all).await;
    beats
}

#[tokio::test(flavor = "multi_thread")]
async fn each_prune_is_one_trace_with_its_steps_and_what_only_beats_is_none() {
    let port = free_port();
    let collector = Collector::start(port).await;
    let ns = TestNamespace::new("traces").await;
    let operator = tracing_operator(&ns, &format!("http://127.0.0.1:{port}"), &[]);
    let mut beats = four_published(&ns).await;
    // Some ttls of a fleet in steady state. If it were traced, its traces would arrive before the next one.
    beats_more(&operator, 40.0).await;

    beats.die("vm-3");
    let traces = collector.has(1).await;
    let [trace] = &traces[..] else { panic!("{traces:#?}") };
    let root = trace.root();
    assert_eq!(trace.resource["service.name"], "beatkeeper");
    assert_eq!(root.name, "reconcile");
    assert_eq!(root.attribute("k8s.namespace.name"), &ns.name);
    assert_eq!(root.attribute("beatkeeper.registration"), &format!("{}/greeter", ns.name));
    assert_eq!(root.attribute("beatkeeper.instance"), &json!(["vm-3"]));
    assert_eq!(root.attribute("beatkeeper.pruned"), 1);
    assert!(root.seconds("beatkeeper.prune.lag") >= 0.0);
    for step in ["inputs", "decide", "verify", "plan", "apply", "report"] {
        for span in trace.named(step) {
            assert_eq!((&span.parent, span.fails), (&root.id, false), "{span:#?}");
            assert!(root.began <= span.began && span.began <= span.ended, "{trace:#?}");
            assert!(span.ended <= root.ended, "{trace:#?}");
        }
        assert!(trace.named(step).next().is_some(), "no {step}: {trace:#?}");
    }
    let (verify, apply) = (trace.only("verify"), trace.only("apply"));
    assert_eq!(verify.attribute("beatkeeper.suspects"), 1);
    let read = trace.only("read Lease");
    assert_eq!(read.parent, verify.id);
    assert_eq!(read.attribute("beatkeeper.lease"), "greeter.vm-3");
    assert_eq!(trace.only("await proof").parent, verify.id);
    let write = trace.named("write").min_by_key(|write| write.began).unwrap();
    assert_eq!(write.parent, apply.id);
    let written = write.attribute("beatkeeper.write").as_str().unwrap();
    assert!(written.starts_with("update slice greeter-"), "{written}");

    let prune = trace.only("prune");
    assert_eq!(prune.attribute("beatkeeper.instance"), "vm-3");
    let after = |what: &str| prune.seconds(&format!("beatkeeper.prune.{what}_after_deadline"));
    let order =
        [0.0, after("live_read"), after("write_sent"), prune.seconds("beatkeeper.prune.lag")];
    assert!(order.is_sorted(), "{prune:#?}");
    // Rounded by the wall clock's resolution of a microsecond or better.
    let lag = (prune.ended - prune.began) as f64 / 1e9;
    assert!((lag - prune.seconds("beatkeeper.prune.lag")).abs() < 1e-5, "{prune:#?}");
    let line = format!("trace_id={}", trace.id);
    assert!(operator.logged().lines().any(|it| it.contains("pruned lease=") && it.contains(&line)));
    let examples = operator.scrape().await.examples("beatkeeper_prune_lag_seconds_bucket");
    assert_eq!(examples, [format!("trace_id=\"{}\"", trace.id)]);

    // docs/operations.md shows such a tree.
    let tree = trace.tree();
    println!("{tree}");
    assert_eq!(tree.lines().count(), trace.spans.len(), "each span has one line");

    beats_more(&operator, 30.0).await;
    beats.die("vm-1");
    let traces = collector.has(2).await;
    assert_eq!(traces.len(), 2, "{traces:#?}");
    assert_eq!(traces[1].root().attribute("beatkeeper.instance"), &json!(["vm-1"]));
    assert!(operator.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_held_is_traced_once_when_the_hold_begins_over_tls() {
    let port = free_port();
    let (collector, certificate) = Collector::start_with_tls(port).await;
    let ns = TestNamespace::new("traces-held").await;
    let trust = format!("--otlp-certificate={}", certificate.display());
    let operator = tracing_operator(&ns, &format!("https://127.0.0.1:{port}"), &[&trust]);
    let mut spec = TestNamespace::usual_spec();
    spec["protection"] = json!({ "minReady": 2 });
    ns.register("greeter", spec).await;
    let mut beats = ns.two_published(INTERVAL).await;
    beats.die("vm-1");
    ns.instance("greeter", "vm-1", "Held", "Protected").await;
    let traces = collector.has(1).await;
    let [trace] = &traces[..] else { panic!("{traces:#?}") };
    assert_eq!(trace.root().attribute("beatkeeper.held"), 1);
    assert_eq!(trace.root().attribute("beatkeeper.pruned"), 0);
    assert!(trace.named("verify").next().is_some(), "{trace:#?}");

    // The hold goes on for some rounds, in which the others beat, and ends when enough are ready.
    beats_more(&operator, 10.0).await;
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;
    beats.die("vm-3");
    ns.instance("greeter", "vm-3", "Held", "Protected").await;
    let traces = collector.has(2).await;
    assert_eq!(traces.len(), 2, "{traces:#?}");
    assert_eq!(traces[1].root().attribute("beatkeeper.held"), 1);
    assert!(operator.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_delays_no_prune_and_is_logged_once_until_it_is_back() {
    let port = free_port();
    let ns = TestNamespace::new("traces-down").await;
    let operator = tracing_operator(&ns, &format!("http://127.0.0.1:{port}"), &[]);
    let mut beats = four_published(&ns).await;
    let mut dropped = 0.0;
    for instance in ["vm-1", "vm-2"] {
        beats.die(instance);
        let lost = until(&operator, "spans are dropped", |it| it.value(DROPPED) > dropped).await;
        dropped = lost.value(DROPPED);
    }
    let log = operator.logged();
    assert_eq!(log.matches(FAILS).count(), 1, "{log}");
    assert!(log.contains("refused"), "{log}");

    let collector = Collector::start(port).await;
    beats.die("vm-3");
    let traces = collector.has(1).await;
    assert_eq!(traces[0].root().attribute("beatkeeper.instance"), &json!(["vm-3"]));
    // The collector has the trace before the operator has its answer.
    let log = eventually("the operator logs that it sends again", async || {
        Some(operator.logged()).filter(|log| log.contains("sending traces again"))
    })
    .await;
    assert_eq!(log.matches("sending traces again").count(), 1, "{log}");
    assert_eq!(log.matches(FAILS).count(), 1, "{log}");
    assert!(operator.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prune_and_no_end_waits_for_a_collector_that_does_not_answer() {
    // The kernel takes the connections. An answer never comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let ns = TestNamespace::new("traces-silent").await;
    let url = format!("http://{}", silent.local_addr().unwrap());
    let operator = tracing_operator(&ns, &url, &[]);
    let mut beats = four_published(&ns).await;
    beats.die("vm-1");
    ns.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3", "192.0.2.4"]).await;
    beats.die("vm-2");
    ns.published_as_ready("greeter", &["192.0.2.3", "192.0.2.4"]).await;
    beats.die("vm-3");
    ns.published_as_ready("greeter", &["192.0.2.4"]).await;
    let name = "beatkeeper_prune_lag_seconds";
    let count = format!("{name}_count");
    let scrape = until(&operator, "three prunes are counted", |it| it.value(&count) == 3.0).await;
    // A request is given up after five seconds.
    assert_eq!(scrape.value(&format!("{name}_bucket{{le=\"5.0\"}}")), 3.0);
    assert!(operator.stop().await);
}
