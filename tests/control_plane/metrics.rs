//! The operator's metrics match what happened (P7).

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::{AuditEntry, AuditMark};
use kube::api::DeleteParams;

use crate::{
    restart::{beating, published},
    support::{Operator, TestNamespace, eventually, http, prometheus::free_port, scrape::Scrape},
};

const INTERVAL: Duration = Duration::from_secs(1);

/// The name of a gauge or counter with one label.
fn with(name: &str, label: &str, value: &str) -> String {
    format!("beatkeeper_{name}{{{label}=\"{value}\"}}")
}

/// The instances by state, without states that have none.
fn instances(scrape: &Scrape) -> Vec<(String, f64)> {
    let all = scrape.all("beatkeeper_instances").into_iter();
    all.filter(|(_, count)| *count != 0.0).map(|(state, count)| (state.to_owned(), count)).collect()
}

/// Waits until a scrape satisfies a predicate.
pub async fn until(operator: &Operator, what: &str, right: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(what, async || {
        let scrape = operator.scrape().await;
        right(&scrape).then_some(scrape)
    })
    .await
}

/// The operator's writes from the audit log, with the names that the metric uses.
async fn audited(ns: &TestNamespace, mark: AuditMark) -> BTreeMap<String, f64> {
    let kinds: BTreeMap<&str, &str> = [
        ("endpoints", "Endpoints"),
        ("endpointslices", "EndpointSlice"),
        ("events", "Event"),
        ("leases", "Lease"),
        ("serviceregistrations", "ServiceRegistration"),
        ("services", "Service"),
    ]
    .into();
    let ours = |entry: &AuditEntry| {
        entry.namespace == ns.name && entry.user_agent.starts_with("beatkeeper-controller")
    };
    let mut writes = BTreeMap::new();
    for entry in ns.plane.audit_since(mark).await.unwrap().iter().filter(|entry| ours(entry)) {
        let result = match entry.code {
            200..=299 => "ok",
            404 | 409 => "conflict",
            code => panic!("{code}: {entry:?}"),
        };
        let series = format!(
            "beatkeeper_api_writes_total{{kind=\"{}\",verb=\"{}\",result=\"{result}\"}}",
            kinds[entry.resource.as_str()],
            entry.verb
        );
        *writes.entry(series).or_default() += 1.0;
    }
    writes
}

/// The number of times that a step has ended.
fn ended(scrape: &Scrape, step: &str) -> f64 {
    scrape.value(&with("reconcile_duration_seconds_count", "step", step))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_that_was_foreseen_takes_one_decision() {
    let ns = TestNamespace::new("foreseen").await;
    let operator = ns.operator_with(&["--metrics-bind-address=127.0.0.1:0"]);
    let mut beats = beating(&ns, 2).await;
    let at_rest = async || {
        let before = operator.scrape().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after = operator.scrape().await;
        (ended(&before, "decide") == ended(&after, "decide")).then_some(after)
    };
    let before = eventually("nothing is decided any more", at_rest).await;
    beats.die("vm-2");
    published(&ns, 1).await;
    let after = eventually("nothing is decided any more", at_rest).await;
    let so_often = |step| ended(&after, step) - ended(&before, step);
    assert!(so_often("verify") >= 1.0);
    // Each reconcile applies one decision. If no suspect was foreseen, there is a further decision
    // before the live reads.
    assert!(so_often("decide") < so_often("apply") + so_often("verify"));
}

/// Checks what a scrape says of the process itself.
fn process_metrics(scrape: &Scrape) {
    assert_eq!(scrape.value("beatkeeper_leader"), 1.0);
    assert_eq!(scrape.value(&with("build_info", "version", env!("CARGO_PKG_VERSION"))), 1.0);
    for step in ["inputs", "decide", "verify", "plan", "apply", "status"] {
        assert_eq!(scrape.value(&with("reconcile_errors_total", "step", step)), 0.0, "{step}");
        let count = scrape.value(&with("reconcile_duration_seconds_count", "step", step));
        assert!(count >= 1.0, "{step}");
    }
    assert!(scrape.all("beatkeeper_watch_last_event_age_seconds").len() >= 5);
}

/// Waits until the metrics count exactly the beats and the writes of the audit log since `begin`.
async fn counts_what_the_audit_log_has(ns: &TestNamespace, operator: &Operator, begin: AuditMark) {
    eventually("as many beats are counted as were written", async || {
        let seen = operator.scrape().await.value("beatkeeper_beats_total");
        let entries = ns.plane.audit_since(begin).await.unwrap();
        let written = entries.iter().filter(|entry| {
            let workload = !entry.user_agent.starts_with("beatkeeper-controller");
            let beat = entry.resource == "leases" && entry.succeeded();
            entry.namespace == ns.name && workload && beat
        });
        (seen == written.count() as f64).then_some(())
    })
    .await;
    eventually("each write of the audit log is counted, and no other", async || {
        let audited = audited(ns, begin).await;
        let scrape = operator.scrape().await;
        let counted: BTreeMap<String, f64> = scrape
            .all("beatkeeper_api_writes_total")
            .into_iter()
            .map(|(series, count)| (series.to_owned(), count))
            .collect();
        (counted == audited && !counted.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_of_three_has_died_every_number_is_what_happened() {
    let ns = TestNamespace::new("metrics").await;
    let begin = ns.plane.audit_mark().await.unwrap();
    let operator =
        ns.operator_with(&["--metrics-bind-address=127.0.0.1:0", "--metrics-per-registration"]);
    ns.greeter().await;
    // From now on the operator sees each Lease appear, instead of finding it at its start.
    ns.condition("greeter", "Ready", "True", "Published").await;
    let mut beats = ns.beats("greeter");
    for n in 1..=3 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    let ready = with("instances", "state", "Ready");
    let scrape = until(&operator, "three are ready", |scrape| scrape.value(&ready) == 3.0).await;
    assert_eq!(scrape.value("beatkeeper_prune_lag_seconds_count"), 0.0);

    beats.die("vm-2");
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    let expired = with("instances", "state", "Expired");
    let scrape = until(&operator, "one has expired", |scrape| scrape.value(&expired) == 1.0).await;
    assert_eq!(instances(&scrape), [(expired, 1.0), (ready.clone(), 2.0)]);
    assert_eq!(scrape.value("beatkeeper_prune_lag_seconds_count"), 1.0);
    assert!(scrape.value("beatkeeper_prune_lag_seconds_sum") > 0.0);
    assert_eq!(scrape.value(&with("registrations", "reason", "Published")), 1.0);
    let of_greeter = |state: &str| {
        let namespace = &ns.name;
        format!(
            "beatkeeper_registration_instances{{registration_namespace=\"{namespace}\",registration=\"greeter\",state=\"{state}\"}}"
        )
    };
    assert_eq!(scrape.value(&of_greeter("Ready")), 2.0);
    assert_eq!(scrape.value(&of_greeter("Expired")), 1.0);
    process_metrics(&scrape);

    // Each beat except the first of an instance follows another one.
    let beats_seen = scrape.value("beatkeeper_beats_total");
    assert_eq!(scrape.value("beatkeeper_beat_interval_seconds_count"), beats_seen - 3.0);
    counts_what_the_audit_log_has(&ns, &operator, begin).await;

    ns.api::<ServiceRegistration>().delete("greeter", &DeleteParams::default()).await.unwrap();
    let gone = |scrape: &Scrape| instances(scrape).is_empty();
    let scrape = until(&operator, "with the registration its numbers go", gone).await;
    assert_eq!(scrape.all("beatkeeper_registration_instances"), BTreeMap::new());
    assert_eq!(scrape.value(&with("registrations", "reason", "Published")), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_scrapes_share_an_address_when_they_are_given_the_same() {
    let ns = TestNamespace::new("shared").await;
    let address = format!("127.0.0.1:{}", free_port());
    let operator = ns.operator_with(&[
        &format!("--metrics-bind-address={address}"),
        &format!("--health-probe-bind-address={address}"),
    ]);
    let answers = async |path: &str| {
        eventually(&format!("{path} is answered with 200"), async || {
            http::get(&address, path).await.filter(|answer| answer.code == 200)
        })
        .await
    };
    assert_eq!(answers("/livez").await.body, "ok");
    assert_eq!(answers("/readyz").await.body, "ok");
    assert!(answers("/metrics").await.body.ends_with("# EOF\n"));
    assert_eq!(http::get(&address, "/").await.unwrap().code, 404);
    assert!(operator.stop().await);
    assert!(http::get(&address, "/livez").await.is_none(), "it has ended with the operator");
}
