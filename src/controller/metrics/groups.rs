//! The metrics in groups, by what they are about.

use prometheus_client::metrics::{
    counter::Counter,
    exemplar::HistogramWithExemplars,
    family::{Family, MetricConstructor as _},
    gauge::Gauge,
    histogram::Histogram,
};

use crate::{
    kube_client::gate::Lane,
    metrics::{buckets::Buckets, catalogue::Catalogue},
};

/// A healthy prune takes milliseconds. The range allows to tell delays of a minute from delays of a second.
const LAG_SECONDS: [f64; 18] = [
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
    30.0, 60.0,
];
const CALL_SECONDS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// From the shortest ttl to the longest usual one, in seconds.
const INTERVAL_SECONDS: [f64; 14] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 3600.0];

/// The steps of reconciling a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Inputs,
    Decide,
    Verify,
    Plan,
    Apply,
    Status,
}

impl Step {
    const ALL: [Self; 6] =
        [Self::Inputs, Self::Decide, Self::Verify, Self::Plan, Self::Apply, Self::Status];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Decide => "decide",
            Self::Verify => "verify",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Status => "status",
        }
    }
}

/// Not `namespace`: Prometheus' operator gives each target a label of this name, the namespace of its Pod, and would
/// rename that of a metric.
pub(super) const WATCHED_NAMESPACE: &str = "watched_namespace";

/// The labels of what cannot be read: a namespace of `--namespace`, or the empty text for all, and a kind.
pub(super) type Unreadable = [(&'static str, String); 2];
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];
/// The label of an exemplar.
pub(super) type TraceLabel = [(&'static str, String); 1];
pub(super) type Histograms<const N: usize> = Family<Labels<N>, Histogram, Buckets>;

fn histograms<const N: usize>(buckets: &'static [f64]) -> Histograms<N> {
    Family::new_with_constructor(Buckets(buckets))
}

/// Beats and prunes.
pub(super) struct Beats {
    pub(super) beats: Counter,
    pub(super) carried: Counter,
    pub(super) gateways: Gauge,
    pub(super) interval: Histogram,
    pub(super) prune_lag: HistogramWithExemplars<TraceLabel>,
}

impl Beats {
    pub(super) fn register(all: &mut Catalogue) -> Self {
        Self {
            beats: all.add("beats", &[], "Beats that this process has seen", Counter::default()),
            carried: all.add(
                "beats_carried",
                &[],
                "Beats that gateways have carried to this process; they are not among beats",
                Counter::default(),
            ),
            gateways: all.add(
                "gateways_connected",
                &[],
                "Gateways with an open stream to this process",
                Gauge::default(),
            ),
            interval: all.seconds(
                "beat_interval",
                &[],
                "Time between two beats of one instance, as they arrive",
                Buckets(&INTERVAL_SECONDS).new_metric(),
            ),
            prune_lag: all.seconds(
                "prune_lag",
                &[],
                "Time from an instance's deadline until the API server confirms the write that removes it \
                 from its slice",
                HistogramWithExemplars::new(LAG_SECONDS.into_iter()),
            ),
        }
    }
}

/// Calls to the API server.
pub(super) struct ApiCalls {
    pub(super) writes: Family<Labels<3>, Counter>,
    pub(super) duration: Histograms<2>,
    pub(super) wait: Histograms<1>,
}

impl ApiCalls {
    pub(super) fn register(all: &mut Catalogue) -> Self {
        let calls = Self {
            writes: all.add(
                "api_writes",
                &["kind", "verb", "result"],
                "Writes to the API server, each attempt counted, by result: ok, conflict (404, 409), \
                 throttled (429), refused (any other 4xx), timeout (no answer in time) or error (5xx, no \
                 connection)",
                Family::default(),
            ),
            duration: all.seconds(
                "api_call_duration",
                &["kind", "verb"],
                "Time until the API server answers a call; without watches, and without the time in the queue",
                histograms(&CALL_SECONDS),
            ),
            wait: all.seconds(
                "api_call_wait",
                &["lane"],
                "Time that calls wait in the queue of --max-parallel-api-calls: lane prompt for prunes and \
                 publishing, lane background for status, events and the sweep",
                histograms(&CALL_SECONDS),
            ),
        };
        for lane in Lane::ALL {
            drop(calls.wait.get_or_create(&[("lane", lane.as_str())]));
        }
        calls
    }
}

/// Reconciliations.
pub(super) struct Reconciliations {
    pub(super) duration: Histograms<1>,
    pub(super) errors: Family<Labels<1>, Counter>,
    pub(super) panics: Counter,
}

impl Reconciliations {
    pub(super) fn register(all: &mut Catalogue) -> Self {
        let reconciliations = Self {
            duration: all.seconds(
                "reconcile_duration",
                &["step"],
                "Duration of a step of a reconciliation: inputs, decide, verify, plan, apply or status",
                histograms(&CALL_SECONDS),
            ),
            errors: all.add(
                "reconcile_errors",
                &["step"],
                "Steps that failed and are retried",
                Family::default(),
            ),
            panics: all.add(
                "reconcile_panics",
                &[],
                "Reconciliations that ended with a panic, a defect of the operator",
                Counter::default(),
            ),
        };
        for step in Step::ALL {
            drop(reconciliations.duration.get_or_create(&[("step", step.as_str())]));
            drop(reconciliations.errors.get_or_create(&[("step", step.as_str())]));
        }
        reconciliations
    }
}

/// Watches, and what cannot be read.
pub(super) struct Watches {
    pub(super) restarts: Family<Labels<1>, Counter>,
    pub(super) unreadable: Family<Unreadable, Gauge>,
    pub(super) unreadable_objects: Family<Labels<1>, Gauge>,
}

impl Watches {
    pub(super) fn register(all: &mut Catalogue) -> Self {
        Self {
            restarts: all.add(
                "watch_restarts",
                &["kind"],
                "Times that a watch broke, or could not start, and was retried",
                Family::default(),
            ),
            unreadable: all.add(
                "unreadable",
                &[WATCHED_NAMESPACE, "kind"],
                "1 if this process has no right to read a kind, so that it publishes and prunes nothing there \
                 (without Nodes: no zones); watched_namespace is empty if all namespaces are watched",
                Family::default(),
            ),
            unreadable_objects: all.add(
                "unreadable_objects",
                &["kind"],
                "Objects that exist and cannot be decoded; the log names them, and the operator decides \
                 nothing from their unknown contents",
                Family::default(),
            ),
        }
    }
}

/// The part of this replica: leadership, proofs, garbage collection and traces.
pub(super) struct Replica {
    pub(super) leader: Gauge,
    pub(super) path_gaps: Counter,
    pub(super) store_rollbacks: Counter,
    pub(super) swept_leases: Counter,
    pub(super) spans_dropped: Counter,
}

impl Replica {
    pub(super) fn register(all: &mut Catalogue) -> Self {
        Self {
            leader: all.add(
                "leader",
                &[],
                "1 if this process leads and publishes, 0 if it stands by; 1 without leader election",
                Gauge::default(),
            ),
            path_gaps: all.add(
                "path_gaps",
                &[],
                "Gaps in the proof that beats can arrive; such a gap counts as silence of no instance",
                Counter::default(),
            ),
            store_rollbacks: all.add(
                "store_rollbacks",
                &[],
                "Times that the store went back to an earlier state, as after a restore of etcd; each replica \
                 detects this by itself",
                Counter::default(),
            ),
            swept_leases: all.add(
                "swept_leases",
                &[],
                "Heartbeat Leases that were deleted because their instances had been dead for ten ttls",
                Counter::default(),
            ),
            spans_dropped: all.add(
                "trace_spans_dropped",
                &[],
                "Spans of traces that could not be sent, because the collector does not take them, or too many wait",
                Counter::default(),
            ),
        }
    }
}
