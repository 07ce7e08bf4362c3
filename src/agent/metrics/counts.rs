//! The metrics of one agent, and the share of each instance in them.

use std::sync::Arc;

use beatkeeper_client::{
    event::Event,
    failure::{Cause, Failure},
    heartbeat_loop::Report,
    lease::Identity,
};
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor as _},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};
use tokio::time::Instant;

use super::instances::{Instances, Registered};
use crate::{
    agent::probe::{Check, Outcome},
    metrics::{
        buckets::Buckets,
        catalogue::{Catalogue, Described},
        exposition, usage,
    },
};

/// The prefix of all names.
const PREFIX: &str = "beatkeeper_agent";
/// A beat of an idle machine is late by a millisecond; one after an outage by as long as that took.
const LATE_SECONDS: [f64; 12] = [0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const ANSWER_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Each reason for which a beat may fail.
const REASONS: [&str; 14] = [
    "missing",
    "unknown_kind",
    "conflict",
    "forbidden",
    "unauthenticated",
    "throttled",
    "occupied",
    "unusable_pace",
    "timeout",
    "no_connection",
    "refused",
    "server_error",
    "panic",
    "other",
];

fn reason(failure: &Failure) -> &'static str {
    match failure.cause {
        Cause::Missing => "missing",
        Cause::UnknownKind => "unknown_kind",
        Cause::Conflict | Cause::Overtaken => "conflict",
        Cause::MissingRule => "forbidden",
        Cause::Unauthenticated => "unauthenticated",
        Cause::Busy => "throttled",
        Cause::Occupied(_) => "occupied",
        Cause::Pace(_) => "unusable_pace",
        Cause::Timeout => "timeout",
        Cause::NoConnection => "no_connection",
        Cause::Refused => "refused",
        Cause::ServerError => "server_error",
        Cause::Panicked => "panic",
        Cause::Other => "other",
    }
}

fn kind(check: &Check) -> &'static str {
    match check {
        Check::Http(_) => "http",
        Check::Tcp(_) => "tcp",
        Check::Grpc(_) => "grpc",
        Check::Exec(_) => "exec",
    }
}

type Counters<const N: usize> = Family<[(&'static str, &'static str); N], Counter>;

/// The metrics of one agent.
pub struct AgentMetrics {
    registry: Registry,
    usage: Registry,
    beats: Counters<1>,
    failures: Counters<1>,
    lateness: Histogram,
    answers: Histogram,
    probes: Counters<2>,
    instances: Instances,
}

impl AgentMetrics {
    /// Creates the metrics. All counts are 0.
    pub fn new() -> Self {
        Self::described().0
    }

    /// Creates the metrics, and describes them for the page that lists them.
    pub(super) fn described() -> (Self, Vec<Described>) {
        let mut all = Catalogue::new(PREFIX);
        let instances = Instances::default();
        instances.register(&mut all);
        let build = Family::<[(&str, &str); 1], Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        all.add("build_info", &["version"], "Always 1; the version is the label", build);
        let metrics = Self {
            beats: beats(&mut all),
            failures: failures(&mut all),
            lateness: all.seconds(
                "beat_lateness",
                &[],
                "Time from when a beat was due until the request was sent that the API server accepted; it \
                 grows if the machine is overloaded, and if earlier requests failed",
                Buckets(&LATE_SECONDS).new_metric(),
            ),
            answers: all.seconds(
                "beat_duration",
                &[],
                "Time until the API server or a gateway accepted a beat, from when it was sent; without the first beat of an \
                 instance",
                Buckets(&ANSWER_SECONDS).new_metric(),
            ),
            probes: probes(&mut all),
            instances,
            usage: usage::registry(),
            registry: all.registry,
        };
        all.described.extend(usage::described());
        (metrics, all.described)
    }

    /// All metrics, in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        exposition::text(&[&self.registry, &self.usage])
    }

    /// Adds an instance, which stays while the returned value is kept. If it is there already, because a
    /// reload replaces it, both share its record.
    pub fn instance(self: &Arc<Self>, identity: &Identity) -> Arc<InstanceMetrics> {
        let registered = self.instances.add(identity);
        Arc::new(InstanceMetrics { all: self.clone(), registered })
    }
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self::new()
    }
}

fn beats(all: &mut Catalogue) -> Counters<1> {
    let beats = all.add(
        "beats",
        &["result"],
        "Beats by result: accepted by the API server, or failed; each try counts",
        Counters::<1>::default(),
    );
    for result in ["accepted", "failed"] {
        drop(beats.get_or_create(&[("result", result)]));
    }
    beats
}

fn failures(all: &mut Catalogue) -> Counters<1> {
    let failures = all.add(
        "beat_failures",
        &["reason"],
        "Failed beats by reason: no_connection, timeout (no answer in time), throttled (429), server_error \
         (5xx), unauthenticated (401), forbidden (a missing right), refused (any other 4xx, as by an admission \
         policy), missing (no such registration or Pod), unknown_kind (no CRD), conflict, occupied (the Lease \
         belongs to something else), unusable_pace (the registration's ttl or interval), panic or other; the \
         agent prints each reason",
        Counters::<1>::default(),
    );
    for reason in REASONS {
        drop(failures.get_or_create(&[("reason", reason)]));
    }
    failures
}

fn probes(all: &mut Catalogue) -> Counters<2> {
    let probes = all.add(
        "probes",
        &["check", "result"],
        "Health probes by what they check (http, tcp, grpc or exec) and by result: success or failure; \
         thresholds do not count here",
        Counters::<2>::default(),
    );
    for check in ["http", "tcp", "grpc", "exec"] {
        for result in ["success", "failure"] {
            drop(probes.get_or_create(&[("check", check), ("result", result)]));
        }
    }
    probes
}

/// The share of one instance in the metrics.
pub struct InstanceMetrics {
    all: Arc<AgentMetrics>,
    registered: Arc<Registered>,
}

impl InstanceMetrics {
    /// Counts each event before it is reported.
    pub fn counting(self: &Arc<Self>, report: Report) -> Report {
        let this = self.clone();
        Arc::new(move |event| {
            this.count(event);
            report(event);
        })
    }

    fn count(&self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::Claimed { pace, .. } => {
                self.registered.beat(now, Some(pace.ttl()));
                self.all.beats.get_or_create(&[("result", "accepted")]).inc();
            }
            Event::Beat { took, late, .. } => {
                self.registered.beat(now, None);
                self.all.beats.get_or_create(&[("result", "accepted")]).inc();
                self.all.answers.observe(took.as_secs_f64());
                self.all.lateness.observe(late.as_secs_f64());
            }
            Event::Failed { failure, .. } => {
                self.all.beats.get_or_create(&[("result", "failed")]).inc();
                self.all.failures.get_or_create(&[("reason", reason(failure))]).inc();
            }
            Event::PaceChanged(pace) => self.registered.set_ttl(pace.ttl()),
            Event::LeaseLost { .. }
            | Event::Deregistered { .. }
            | Event::TakenOverByOther { other_addresses: Some(_), .. } => self.registered.end(),
            _ => {}
        }
    }

    /// Counts the outcome of a probe.
    pub fn probed(&self, check: &Check, outcome: &Outcome) {
        let result = if outcome.is_ok() { "success" } else { "failure" };
        self.all.probes.get_or_create(&[("check", kind(check)), ("result", result)]).inc();
    }
}

#[cfg(test)]
mod tests;
