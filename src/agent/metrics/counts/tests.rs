//! Each event counts where `docs/metrics.md` says it does.

use std::time::Duration;

use beatkeeper_api::Carrier;
use beatkeeper_client::{
    event::Acquisition,
    failure::Operation,
    lease::Occupant,
    schedule::{Pace, PaceError},
};
use jiff::Timestamp;

use super::*;

fn beat(took: Duration, late: Duration) -> Event {
    Event::Beat { at: Timestamp::UNIX_EPOCH, took, late, carrier: Carrier::Lease }
}

#[tokio::test]
async fn an_agent_serves_the_metrics_as_prometheus_names_them() {
    let metrics = Arc::new(AgentMetrics::new());
    let instance = instance(&metrics);
    let late = Duration::from_millis(30);
    instance.count(&beat(late, late));
    let failure = Failure::found(Operation::Beat, "shop/greeter.vm-1", Cause::Busy);
    instance.count(&Event::Failed { failure, retry_in: Duration::ZERO });
    instance.probed(&"tcp://:1".parse::<crate::agent::probe::Probe>().expect("").check, &Ok(None));
    let text = metrics.text();
    for line in [
        r#"beatkeeper_agent_beats_total{result="accepted"} 1"#,
        r#"beatkeeper_agent_beats_total{result="failed"} 1"#,
        r#"beatkeeper_agent_beat_failures_total{reason="throttled"} 1"#,
        r#"beatkeeper_agent_beat_failures_total{reason="timeout"} 0"#,
        r#"beatkeeper_agent_beat_lateness_seconds_bucket{le="0.01"} 0"#,
        r#"beatkeeper_agent_beat_lateness_seconds_bucket{le="0.05"} 1"#,
        r#"beatkeeper_agent_probes_total{check="tcp",result="success"} 1"#,
        r#"beatkeeper_agent_probes_total{check="tcp",result="failure"} 0"#,
        r#"beatkeeper_agent_instances{registered="false"} 1"#,
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is missing in\n{text}");
    }
    for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes "] {
        assert!(text.contains(&format!("\n{name}")), "{name} is missing");
    }
}

fn instance(metrics: &Arc<AgentMetrics>) -> Arc<InstanceMetrics> {
    let identity = crate::agent::plan::Plan::of(
        serde_saphyr::from_str("{ registration: greeter, instance: vm-1 }").expect("settings"),
        &crate::agent::plan::Environment { namespace: "shop".to_owned(), pod_name: None },
    );
    metrics.instance(&identity.expect("a plan").instances[0].identity)
}

/// Whether a series has a value.
fn has(metrics: &AgentMetrics, series: &str, value: u64) -> bool {
    let line = format!("beatkeeper_agent_{series} {value}");
    metrics.text().lines().any(|said| said == line)
}

fn pace(ttl: &str) -> Pace {
    let registration = serde_json::json!({
        "metadata": { "name": "greeter" },
        "spec": { "ttl": ttl, "interval": "1s", "ports": [{ "port": 80 }] },
    });
    Pace::of(&serde_json::from_value(registration).expect("a registration"), None).expect("a pace")
}

fn claimed() -> Event {
    Event::Claimed {
        registration: "shop/greeter".to_owned(),
        instance: "vm-1".to_owned(),
        pace: pace("5s"),
        how: Acquisition::Created,
    }
}

#[tokio::test]
async fn each_cause_of_a_failure_counts_under_its_own_reason() {
    for (cause, reason) in [
        (Cause::Missing, "missing"),
        (Cause::UnknownKind, "unknown_kind"),
        (Cause::Conflict, "conflict"),
        (Cause::Overtaken, "conflict"),
        (Cause::MissingRule, "forbidden"),
        (Cause::Unauthenticated, "unauthenticated"),
        (Cause::Busy, "throttled"),
        (Cause::Occupied(Occupant::Foreign), "occupied"),
        (
            Cause::Pace(PaceError::OutOfRange { interval: Duration::ZERO, ttl: Duration::ZERO }),
            "unusable_pace",
        ),
        (Cause::Timeout, "timeout"),
        (Cause::NoConnection, "no_connection"),
        (Cause::Refused, "refused"),
        (Cause::ServerError, "server_error"),
        (Cause::Panicked, "panic"),
        (Cause::Other, "other"),
    ] {
        let metrics = Arc::new(AgentMetrics::new());
        let failure = Failure::found(Operation::Beat, "shop/greeter.vm-1", cause);
        instance(&metrics).count(&Event::Failed { failure, retry_in: Duration::ZERO });
        for other in REASONS {
            let series = format!("beat_failures_total{{reason=\"{other}\"}}");
            assert!(has(&metrics, &series, u64::from(other == reason)), "{reason}: {other}");
        }
    }
}

#[tokio::test]
async fn each_kind_of_probe_counts_under_its_own_name_and_result() {
    let kinds = ["http", "tcp", "grpc", "exec"];
    for (n, probe) in ["http://:1/", "tcp://:1", "grpc://:1", "exec:true"].into_iter().enumerate() {
        let metrics = Arc::new(AgentMetrics::new());
        let probe: crate::agent::probe::Probe = probe.parse().expect("a probe");
        instance(&metrics).probed(&probe.check, &Ok(None));
        for (m, kind) in kinds.into_iter().enumerate() {
            let of = |result: &str| format!("probes_total{{check=\"{kind}\",result=\"{result}\"}}");
            assert!(has(&metrics, &of("success"), u64::from(n == m)), "{kind}");
            assert!(has(&metrics, &of("failure"), 0), "{kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_registered_from_its_claim_until_its_ttl_and_not_once_its_lease_is_gone() {
    let registered = "instances{registered=\"true\"}";
    let lease = || "shop/greeter.vm-1".to_owned();
    let taken = |other_addresses| Event::TakenOverByOther { lease: lease(), other_addresses };
    for (event, stays) in [
        (Event::LeaseLost { lease: lease() }, false),
        (Event::Deregistered { lease: lease() }, false),
        (taken(Some("192.0.2.9".to_owned())), false),
        // Then both beat for the same address.
        (taken(None), true),
    ] {
        let metrics = Arc::new(AgentMetrics::new());
        let instance = instance(&metrics);
        instance.count(&claimed());
        assert!(has(&metrics, "beats_total{result=\"accepted\"}", 1));
        assert!(has(&metrics, registered, 1));
        instance.count(&event);
        assert!(has(&metrics, registered, u64::from(stays)), "{event:?}");
    }
    let metrics = Arc::new(AgentMetrics::new());
    let instance = instance(&metrics);
    instance.count(&claimed());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(has(&metrics, registered, 0), "its ttl has passed");
    instance.count(&Event::PaceChanged(pace("9s")));
    assert!(has(&metrics, registered, 1), "its ttl is longer now");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(has(&metrics, registered, 0));
    let late = Duration::from_millis(1);
    instance.count(&beat(late, late));
    assert!(has(&metrics, registered, 1), "it has beaten again");
}

#[tokio::test]
async fn how_late_a_beat_is_and_how_long_it_takes_are_told_apart() {
    let metrics = Arc::new(AgentMetrics::new());
    let (took, late) = (Duration::from_secs(1), Duration::from_secs(30));
    instance(&metrics).count(&beat(took, late));
    assert!(metrics.text().contains("\nbeatkeeper_agent_beat_duration_seconds_sum 1.0\n"));
    assert!(metrics.text().contains("\nbeatkeeper_agent_beat_lateness_seconds_sum 30.0\n"));
}
