//! The agent's own metrics match what happened.

use std::net::TcpListener;

use beatkeeper_cluster::{AuditMark, Options};
use rustix::process::Signal;

use crate::{
    client::agent::Agent,
    support::{
        TestNamespace, crd, eventually,
        prometheus::{Prometheus, free_port, programs},
        scrape::Scrape,
    },
};

const VM_1: [&str; 2] = ["--instance=vm-1", "--address=192.0.2.1"];

/// An agent, and the address of its metrics.
struct Measured {
    _agent: Agent,
    address: String,
}

impl Measured {
    fn start(ns: &TestNamespace, action: &str, flags: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let metrics = format!("--metrics-bind-address={address}");
        let flags = [&VM_1, flags, &[&metrics]].concat();
        Self { _agent: Agent::start_to(ns, action, &flags), address }
    }

    /// Waits until a scrape satisfies a predicate.
    async fn until(&self, what: &str, right: impl Fn(&Scrape) -> bool) -> Scrape {
        eventually(what, async || Scrape::at(&self.address).await.filter(&right)).await
    }
}

fn beats(scrape: &Scrape, result: &str) -> f64 {
    scrape.value(&format!("beatkeeper_agent_beats_total{{result=\"{result}\"}}"))
}

fn failures(scrape: &Scrape, reason: &str) -> f64 {
    scrape.value(&format!("beatkeeper_agent_beat_failures_total{{reason=\"{reason}\"}}"))
}

fn probes(scrape: &Scrape, result: &str) -> f64 {
    scrape.value(&format!("beatkeeper_agent_probes_total{{check=\"exec\",result=\"{result}\"}}"))
}

/// Whether vm-1 is registered; `None` without a series.
fn registered(scrape: &Scrape) -> Option<bool> {
    let all = scrape.all("beatkeeper_agent_instance_registered");
    assert!(all.keys().all(|series| series.contains("instance_name=\"vm-1\"")), "{all:?}");
    all.values().next().map(|value| *value == 1.0)
}

/// The beats of the agent that the API server has accepted, from the audit log.
async fn audited(ns: &TestNamespace, begin: AuditMark) -> f64 {
    let entries = ns.plane.audit_since(begin).await.unwrap();
    let beat = entries.iter().filter(|entry| {
        entry.namespace == ns.name
            && entry.user_agent.starts_with("beatkeeper-agent")
            && entry.resource == "leases"
            && ["create", "patch"].contains(&entry.verb.as_str())
            && entry.succeeded()
    });
    beat.count() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_counts_each_beat_that_the_api_server_has_accepted() {
    let ns = TestNamespace::new("agent-counts").await;
    ns.greeter().await;
    let begin = ns.plane.audit_mark().await.unwrap();
    let metered = Measured::start(&ns, "run", &[]);
    metered.until("five beats are counted", |scrape| beats(scrape, "accepted") >= 5.0).await;
    // The agent beats on while this is read. A beat is in the log before the agent has its answer.
    let before = audited(&ns, begin).await;
    let scrape = Scrape::at(&metered.address).await.unwrap();
    let after = audited(&ns, begin).await;
    let (accepted, failed) = (beats(&scrape, "accepted"), beats(&scrape, "failed"));
    // A beat whose answer was late on a busy machine has failed for the agent, and is tried again.
    let least = before - 1.0 - failed;
    assert!((least..=after).contains(&accepted), "{accepted}: {least} to {after}");
    assert_eq!(failures(&scrape, "timeout"), failed);
    // The first beat creates the Lease, and is due at no certain moment.
    assert_eq!(scrape.value("beatkeeper_agent_beat_lateness_seconds_count"), accepted - 1.0);
    assert_eq!(scrape.value("beatkeeper_agent_beat_duration_seconds_count"), accepted - 1.0);
    assert!(scrape.value("beatkeeper_agent_beat_duration_seconds_sum") > 0.0);
    assert_eq!(registered(&scrape), Some(true));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(scrape.value(&format!("beatkeeper_agent_build_info{{version=\"{version}\"}}")), 1.0);
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    let Some(programs) = programs("a Prometheus scrapes the agent") else { return };
    let targets = [metered.address.clone()];
    let prometheus = Prometheus::start(&programs, &[], &targets).await;
    prometheus.shows("rate(beatkeeper_agent_beats_total{result=\"accepted\"}[10s]) > 0").await;
    let name = "beatkeeper_agent_instance_registered";
    let own = format!("registration_namespace=\"{}\",instance_name=\"vm-1\"", ns.name);
    prometheus.shows(&format!("{name}{{{own},namespace=\"beatkeeper\"}} == 1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_api_server_is_away_says_so_and_how_late_the_next_beat_was() {
    let plane = crd::install_on_own(Options::default()).await;
    let ns = TestNamespace::new_on(plane, "agent-away").await;
    ns.greeter().await;
    let metered = Measured::start(&ns, "run", &[]);
    metered.until("it is registered", |scrape| registered(scrape) == Some(true)).await;
    plane.api_server().suspend().await.unwrap();
    let away = metered
        .until("it is not registered any more", |scrape| registered(scrape) == Some(false))
        .await;
    assert!(failures(&away, "timeout") >= 1.0);
    assert_eq!(away.value("beatkeeper_agent_instances{registered=\"false\"}"), 1.0);
    plane.api_server().resume().await.unwrap();
    let back =
        metered.until("it is registered again", |scrape| registered(scrape) == Some(true)).await;
    let failed = beats(&back, "failed");
    let reasons = back.all("beatkeeper_agent_beat_failures_total");
    assert_eq!(reasons.values().sum::<f64>(), failed, "each failure has one reason");
    let late = |le: &str| {
        back.value(&format!("beatkeeper_agent_beat_lateness_seconds_bucket{{le=\"{le}\"}}"))
    };
    // The instance had a ttl of 3 s and a beat each second.
    assert!(late("+Inf") > late("1.0"), "a beat was late by more than a second");
    plane.api_server().kill().await.unwrap();
    metered
        .until("no connection is counted", |scrape| failures(scrape, "no_connection") > 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_counts_probes_and_a_target_with_failing_probes_is_not_registered_after_a_ttl() {
    let ns = TestNamespace::new("agent-probes").await;
    ns.greeter().await;
    let folder = tempfile::tempdir().unwrap();
    let healthy = folder.path().join("healthy");
    let probe = format!(
        "probes: [{{ exec: {{ command: [test, -e, {}] }}, periodSeconds: 1, timeoutSeconds: 30,
                     failureThreshold: 1 }}]",
        healthy.display()
    );
    let config = folder.path().join("agent.yaml");
    std::fs::write(&config, probe).unwrap();
    let config = format!("--config={}", config.display());
    let metered = Measured::start(&ns, "proxy", &[&config]);
    let fails = metered.until("a probe fails", |scrape| probes(scrape, "failure") >= 2.0).await;
    assert_eq!((probes(&fails, "success"), registered(&fails)), (0.0, Some(false)));
    assert_eq!((beats(&fails, "accepted"), beats(&fails, "failed")), (0.0, 0.0));
    std::fs::write(&healthy, "").unwrap();
    let well = metered.until("it is registered", |scrape| registered(scrape) == Some(true)).await;
    assert!(probes(&well, "success") >= 1.0);
    std::fs::remove_file(&healthy).unwrap();
    metered.until("it is not registered", |scrape| registered(scrape) == Some(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_used_is_an_error_before_the_first_beat() {
    let ns = TestNamespace::new("agent-address").await;
    ns.greeter().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let port = taken.port();
    for (address, says) in [
        (
            format!("127.0.0.1:{port}"),
            format!("cannot listen on --metrics-bind-address {taken}: Address already in use"),
        ),
        (
            "8485".to_owned(),
            "'--metrics-bind-address <ADDRESS>': give 0 for off, or HOST:PORT".to_owned(),
        ),
    ] {
        let flag = format!("--metrics-bind-address={address}");
        let mut agent = Agent::start_with(&ns, &[VM_1.as_slice(), &[&flag]].concat());
        assert_ne!(agent.exit_code().await, Some(0), "{address}");
        let said = agent.said();
        assert!(said.contains(&says), "{said}");
        assert_eq!(ns.lease("greeter.vm-1").await, None, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_share_an_address_and_a_thousand_instances_have_series() {
    let ns = TestNamespace::new("agent-many").await;
    let mut spec = TestNamespace::usual_spec();
    (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
    ns.register("greeter", spec).await;
    let folder = tempfile::tempdir().unwrap();
    let instances: Vec<String> = (0..1003).map(|n| format!("{{ instance: vm-{n} }}")).collect();
    let address = format!("127.0.0.1:{}", free_port());
    let config = folder.path().join("agent.yaml");
    let text = format!(
        "metricsBindAddress: {address}\nhealthBindAddress: {address}\ninstances: [{}]",
        instances.join(", ")
    );
    std::fs::write(&config, text).unwrap();
    let config = format!("--config={}", config.display());
    let agent = Agent::start_with(&ns, &[&config]);
    let all = eventually("a thousand are registered", async || {
        let scrape = Scrape::at(&address).await?;
        let registered = scrape.value("beatkeeper_agent_instances{registered=\"true\"}");
        (registered >= 1000.0).then_some(scrape)
    })
    .await;
    assert_eq!(all.all("beatkeeper_agent_instance_registered").len(), 1000);
    assert_eq!(all.value("beatkeeper_agent_instances_without_series"), 3.0);
    let livez = crate::support::http::get(&address, "/livez").await.unwrap();
    assert_eq!((livez.code, livez.body.as_str()), (200, "ok\n"));
    agent.signal(Signal::USR1);
    agent.says("the Leases stay").await;
}
