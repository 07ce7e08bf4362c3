//! The metrics of the operator, for Prometheus.
//!
//! All metrics belong to one [`Metrics`]. Each is updated by one line of code at the place where the event
//! happens. By default no label grows with the number of registrations or instances.

mod ages;
mod catalogue;
mod known;
mod page;
mod tally;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use self::{ages::Ages, catalogue::Catalogue, known::Known, tally::Tallies};
use super::clock::Clock;
use crate::kube_client::{
    gate::{Lane, Outcome},
    request::ApiRequest,
};
use beatkeeper_core::{
    decide::verdict::Verdict,
    liveness::index::Index,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

pub(super) use ages::LastSeen;
pub use page::page;

/// The content type of the answer to a scrape.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

/// The kinds that are watched.
const WATCHED: [&str; 7] =
    ["Leases", "Pods", "Services", "EndpointSlices", "Endpoints", "Nodes", "ServiceRegistrations"];

/// The steps of reconciling a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Stage,
    Decide,
    Verify,
    Plan,
    Apply,
    Status,
}

impl Step {
    const ALL: [Self; 6] =
        [Self::Stage, Self::Decide, Self::Verify, Self::Plan, Self::Apply, Self::Status];

    fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Decide => "decide",
            Self::Verify => "verify",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Status => "status",
        }
    }
}

/// The labels of what cannot be read: a namespace of `--namespace`, or the empty text for all, and a kind.
type Unreadable = [(&'static str, String); 2];
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, Buckets>;

fn histograms<const N: usize>(buckets: &'static [f64]) -> Histograms<N> {
    Family::new_with_constructor(Buckets(buckets))
}

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// The metrics of one process.
pub(super) struct Metrics {
    clock: Clock,
    registry: Registry,
    ages: Arc<Ages>,
    known: Known,
    tallies: Mutex<Tallies>,
    beats: Counter,
    beat_interval: Histogram,
    prune_lag: Histogram,
    api_writes: Family<Labels<3>, Counter>,
    api_call_duration: Histograms<2>,
    api_call_wait: Histograms<1>,
    reconcile_duration: Histograms<1>,
    reconcile_errors: Family<Labels<1>, Counter>,
    panics: Counter,
    watch_restarts: Family<Labels<1>, Counter>,
    unreadable: Family<Unreadable, Gauge>,
    unreadable_objects: Family<Labels<1>, Gauge>,
    leader: Gauge,
    path_gaps: Counter,
    store_rollbacks: Counter,
    swept_leases: Counter,
}

impl Metrics {
    /// Creates the metrics, with or without series for each registration.
    pub(super) fn new(clock: Clock, per_registration: bool) -> Self {
        Self::described(clock, per_registration).0
    }

    fn described(clock: Clock, per_registration: bool) -> (Self, Vec<catalogue::Described>) {
        let mut all = Catalogue::new();
        let tallies = Tallies::new(per_registration);
        all.add("instances", &["state"], "Instances by state", tallies.instances.clone());
        all.add(
            "registrations",
            &["reason"],
            "ServiceRegistrations by the reason of their condition Ready; Published means that all is well",
            tallies.registrations.clone(),
        );
        all.add(
            "holds",
            &["reason"],
            "Instances that stay published although their ttl has passed, by reason",
            tallies.holds.clone(),
        );
        if let Some(each) = &tallies.each {
            all.add(
                "registration_instances",
                &["namespace", "registration", "state"],
                "Instances of one registration by state; only with --metrics-per-registration, for at most \
                 1000 registrations",
                each.clone(),
            );
            all.add(
                "registrations_without_series",
                &[],
                "Registrations without series of their own, because there are more than 1000; only with \
                 --metrics-per-registration",
                tallies.left_out.clone(),
            );
        }
        let ages = Arc::new(Ages::default());
        let build = Family::<Labels<1>, Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        all.add("build_info", &["version"], "Always 1; the version is the label", build);
        let mut metrics = Self {
            clock,
            registry: Registry::default(),
            tallies: Mutex::new(tallies),
            beats: all.add("beats", &[], "Beats that this process has seen", Counter::default()),
            beat_interval: all.seconds(
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
                Buckets(&LAG_SECONDS).new_metric(),
            ),
            api_writes: all.add(
                "api_writes",
                &["kind", "verb", "result"],
                "Writes to the API server, each attempt counted, by result: ok, conflict (404, 409), \
                 throttled (429), refused (any other 4xx), timeout (no answer in time) or error (5xx, no \
                 connection)",
                Family::default(),
            ),
            api_call_duration: all.seconds(
                "api_call_duration",
                &["kind", "verb"],
                "Time until the API server answers a call; without watches, and without the time in the queue",
                histograms(&CALL_SECONDS),
            ),
            api_call_wait: all.seconds(
                "api_call_wait",
                &["lane"],
                "Time that calls wait in the queue of --max-parallel-api-calls: lane prompt for prunes and \
                 publishing, lane background for status, events and the sweep",
                histograms(&CALL_SECONDS),
            ),
            reconcile_duration: all.seconds(
                "reconcile_duration",
                &["step"],
                "Duration of a step of a reconciliation: stage, decide, verify, plan, apply or status",
                histograms(&CALL_SECONDS),
            ),
            reconcile_errors: all.add(
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
            watch_restarts: all.add(
                "watch_restarts",
                &["kind"],
                "Times that a watch broke, or could not start, and was retried",
                Family::default(),
            ),
            unreadable: all.add(
                "unreadable",
                &["namespace", "kind"],
                "1 if this process has no right to read a kind, so that it publishes and prunes nothing there \
                 (without Nodes: no zones); namespace is empty if all namespaces are watched",
                Family::default(),
            ),
            unreadable_objects: all.add(
                "unreadable_objects",
                &["kind"],
                "Objects that exist and cannot be decoded; the log names them, and the operator decides \
                 nothing from their unknown contents",
                Family::default(),
            ),
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
            ages,
            known: Known::default(),
        };
        metrics.ages.register(&mut all, clock);
        metrics.known.register(&mut all);
        for lane in Lane::ALL {
            drop(metrics.api_call_wait.get_or_create(&[("lane", lane.as_str())]));
        }
        for step in Step::ALL {
            drop(metrics.reconcile_duration.get_or_create(&[("step", step.as_str())]));
            drop(metrics.reconcile_errors.get_or_create(&[("step", step.as_str())]));
        }
        metrics.leads(true);
        metrics.registry = all.registry;
        (metrics, all.described)
    }

    /// All metrics, in the text format of OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the decision about a registration and the reason of its condition Ready.
    pub(super) fn decided(&self, key: &Key, verdicts: &[Verdict], ready: &'static str) {
        self.tallies().put(key, tally::Tally::of(verdicts, ready));
    }

    /// Removes a registration that is gone, or that another process decides about.
    pub(super) fn forget(&self, key: &Key) {
        self.tallies().remove(key);
    }

    /// Counts a beat. `since` is the time since the instance's previous beat, if this process has seen that
    /// one.
    pub(super) fn beat(&self, since: Option<Duration>) {
        self.beats.inc();
        if let Some(since) = since {
            self.beat_interval.observe(since.as_secs_f64());
        }
    }

    /// Notes that the API server has confirmed the write that prunes an instance with this deadline.
    pub(super) fn pruned(&self, deadline: MonotonicTime) {
        self.prune_lag.observe(self.clock.now().since(deadline).as_secs_f64());
    }

    /// Measures a step, until the returned value is dropped.
    pub(super) fn begin(&self, step: Step) -> Underway<'_> {
        Underway { metrics: self, step, since: self.clock.now() }
    }

    /// Counts a failed step.
    pub(super) fn failed(&self, step: Step) {
        self.reconcile_errors.get_or_create(&[("step", step.as_str())]).inc();
    }

    /// Counts a panic of a reconciliation.
    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    /// Adds the index of a new scope, so that its Leases are counted.
    pub(super) fn count_leases_of(&self, index: Arc<Mutex<Index>>) {
        self.known.add(index);
    }

    /// Registers a new watch of this kind. Its events are to be noted in the returned value.
    pub(super) fn watch(&self, kind: &'static str) -> Arc<LastSeen> {
        drop(self.watch_restarts.get_or_create(&[("kind", kind)]));
        drop(self.unreadable_objects.get_or_create(&[("kind", kind)]));
        self.ages.watch(kind)
    }

    /// Counts a watch that broke or that could not start.
    pub(super) fn watch_broke(&self, kind: &'static str) {
        self.watch_restarts.get_or_create(&[("kind", kind)]).inc();
    }

    /// Sets the kinds that cannot be read in this namespace, or in all namespaces if it is empty. All other
    /// kinds count as readable.
    pub(super) fn unreadable(&self, namespace: &str, kinds: &[&'static str]) {
        let labels = |kind: &str| [("namespace", namespace.to_owned()), ("kind", kind.to_owned())];
        for kind in WATCHED {
            if kinds.contains(&kind) {
                self.unreadable.get_or_create(&labels(kind)).set(1);
            } else {
                self.unreadable.remove(&labels(kind));
            }
        }
    }

    /// Adds `more`, which may be negative, to the number of unreadable objects of this kind.
    pub(super) fn unreadable_objects(&self, kind: &'static str, more: i64) {
        self.unreadable_objects.get_or_create(&[("kind", kind)]).inc_by(more);
    }

    /// Sets whether this process publishes.
    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Notes a proof that beats can arrive.
    pub(super) fn path_proven(&self, now: MonotonicTime) {
        self.ages.proof.note(now);
    }

    /// Counts a gap in the proofs.
    pub(super) fn path_gap(&self) {
        self.path_gaps.inc();
    }

    /// Counts a detected rollback of the store.
    pub(super) fn store_went_back(&self) {
        self.store_rollbacks.inc();
    }

    /// Counts a deleted Lease of an instance that had long been dead.
    pub(super) fn swept(&self) {
        self.swept_leases.inc();
    }

    /// Notes how long a call waited for its place in the gate.
    pub(super) fn call_admitted(&self, lane: Lane, waited: Duration) {
        let family = &self.api_call_wait;
        family.get_or_create(&[("lane", lane.as_str())]).observe(waited.as_secs_f64());
    }

    /// Notes a finished call.
    pub(super) fn call_ended(&self, request: ApiRequest, outcome: Outcome, took: Duration) {
        let ApiRequest { verb, kind, status: _ } = request;
        if verb.writes() {
            let labels = [("kind", kind), ("verb", verb.as_str()), ("result", outcome.as_str())];
            self.api_writes.get_or_create(&labels).inc();
        }
        if verb != crate::kube_client::request::Verb::Watch {
            let family = &self.api_call_duration;
            let labels = [("kind", kind), ("verb", verb.as_str())];
            family.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }
}

/// A step that is being measured.
pub(super) struct Underway<'a> {
    metrics: &'a Metrics,
    step: Step,
    since: MonotonicTime,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let took = self.metrics.clock.now().since(self.since);
        let family = &self.metrics.reconcile_duration;
        family.get_or_create(&[("step", self.step.as_str())]).observe(took.as_secs_f64());
    }
}
