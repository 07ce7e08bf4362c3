//! The metrics of one process.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::trace::TraceId;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    ages::{Ages, LastSeen},
    groups::{ApiCalls, Beats, Labels, Reconciliations, Replica, Step, WATCHED_NAMESPACE, Watches},
    known::Known,
    tally::{self, Tallies},
};
use crate::{
    controller::clock::Clock,
    kube_client::{
        gate::{Lane, Outcome},
        request::ApiRequest,
    },
    metrics::{
        catalogue::{Catalogue, Described},
        exposition, usage,
    },
};
use beatkeeper_core::{
    decide::verdict::Verdict,
    liveness::index::Index,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// The prefix of all names.
const PREFIX: &str = "beatkeeper";

/// The kinds that are watched.
const WATCHED: [&str; 7] =
    ["Leases", "Pods", "Services", "EndpointSlices", "Endpoints", "Nodes", "ServiceRegistrations"];

/// The metrics of one process.
pub(crate) struct Metrics {
    clock: Clock,
    registry: Registry,
    usage: Registry,
    ages: Arc<Ages>,
    known: Known,
    tallies: Mutex<Tallies>,
    beats: Beats,
    calls: ApiCalls,
    reconciliations: Reconciliations,
    watches: Watches,
    replica: Replica,
}

impl Metrics {
    /// Creates the metrics, with or without series for each registration.
    pub(crate) fn new(clock: Clock, per_registration: bool) -> Self {
        Self::described(clock, per_registration).0
    }

    /// Creates the metrics, and describes them for the page that lists them.
    pub(super) fn described(clock: Clock, per_registration: bool) -> (Self, Vec<Described>) {
        let mut all = Catalogue::new(PREFIX);
        let tallies = Tallies::new(per_registration);
        tallies.register(&mut all);
        let build = Family::<Labels<1>, Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        all.add("build_info", &["version"], "Always 1; the version is the label", build);
        let mut metrics = Self {
            clock,
            registry: Registry::default(),
            usage: usage::registry(),
            tallies: Mutex::new(tallies),
            beats: Beats::register(&mut all),
            calls: ApiCalls::register(&mut all),
            reconciliations: Reconciliations::register(&mut all),
            watches: Watches::register(&mut all),
            replica: Replica::register(&mut all),
            ages: Arc::default(),
            known: Known::default(),
        };
        metrics.ages.register(&mut all, clock);
        metrics.known.register(&mut all);
        metrics.leads(true);
        metrics.registry = all.registry;
        all.described.extend(usage::described());
        (metrics, all.described)
    }

    /// All metrics, in the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        exposition::text(&[&self.registry, &self.usage])
    }

    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the decision about a registration and the reason of its condition Ready.
    pub(crate) fn decided(&self, key: &Key, verdicts: &[Verdict], ready: &'static str) {
        self.tallies().put(key, tally::Tally::of(verdicts, ready));
    }

    /// Removes a registration that is gone, or that another process decides about.
    pub(crate) fn forget(&self, key: &Key) {
        self.tallies().remove(key);
    }

    /// Counts a beat. `since` is the time since the instance's previous beat, if this process has seen that
    /// one.
    pub(crate) fn beat(&self, since: Option<Duration>) {
        self.beats.beats.inc();
        if let Some(since) = since {
            self.beats.interval.observe(since.as_secs_f64());
        }
    }

    /// Counts beats that a gateway has carried.
    pub(crate) fn beats_carried(&self, count: usize) {
        self.beats.carried.inc_by(count as u64);
    }

    /// Sets the number of gateways with an open stream.
    pub(crate) fn gateways_connected(&self, count: usize) {
        self.beats.gateways.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes that the API server has confirmed the write that prunes an instance with this deadline.
    /// A trace of it is an example of how late prunes are.
    pub(crate) fn pruned(&self, deadline: MonotonicTime, trace: Option<TraceId>) {
        let lag = self.clock.now().since(deadline).as_secs_f64();
        let example = trace.map(|id| [("trace_id", id.to_string())]);
        self.beats.prune_lag.observe(lag, example, None);
    }

    /// Measures a step, until the returned value is dropped.
    pub(crate) fn begin(&self, step: Step) -> Underway<'_> {
        Underway { metrics: self, step, since: self.clock.now() }
    }

    /// Counts a failed step.
    pub(crate) fn failed(&self, step: Step) {
        self.reconciliations.errors.get_or_create(&[("step", step.as_str())]).inc();
    }

    /// Counts spans that no collector has got.
    pub(crate) fn spans_dropped(&self, count: usize) {
        self.replica.spans_dropped.inc_by(count as u64);
    }

    /// Counts a panic of a reconciliation.
    pub(crate) fn panicked(&self) {
        self.reconciliations.panics.inc();
    }

    /// Adds the index of a new scope, so that its Leases are counted.
    pub(crate) fn count_leases_of(&self, index: Arc<Mutex<Index>>) {
        self.known.add(index);
    }

    /// Registers a new watch of this kind. Its events are to be noted in the returned value.
    pub(crate) fn watch(&self, kind: &'static str) -> Arc<LastSeen> {
        drop(self.watches.restarts.get_or_create(&[("kind", kind)]));
        drop(self.watches.unreadable_objects.get_or_create(&[("kind", kind)]));
        self.ages.watch(kind)
    }

    /// Counts a watch that broke or that could not start.
    pub(crate) fn watch_broke(&self, kind: &'static str) {
        self.watches.restarts.get_or_create(&[("kind", kind)]).inc();
    }

    /// Sets the kinds that cannot be read in this namespace, or in all namespaces if it is empty. All other
    /// kinds count as readable.
    pub(crate) fn unreadable(&self, namespace: &str, kinds: &[&'static str]) {
        let labels =
            |kind: &str| [(WATCHED_NAMESPACE, namespace.to_owned()), ("kind", kind.to_owned())];
        for kind in WATCHED {
            if kinds.contains(&kind) {
                self.watches.unreadable.get_or_create(&labels(kind)).set(1);
            } else {
                self.watches.unreadable.remove(&labels(kind));
            }
        }
    }

    /// Adds `more`, which may be negative, to the number of unreadable objects of this kind.
    pub(crate) fn unreadable_objects(&self, kind: &'static str, more: i64) {
        self.watches.unreadable_objects.get_or_create(&[("kind", kind)]).inc_by(more);
    }

    /// Sets whether this process publishes.
    pub(crate) fn leads(&self, leads: bool) {
        self.replica.leader.set(leads.into());
    }

    /// Notes a proof that beats can arrive.
    pub(crate) fn path_proven(&self, now: MonotonicTime) {
        self.ages.proof.note(now);
    }

    /// Counts a gap in the proofs.
    pub(crate) fn path_gap(&self) {
        self.replica.path_gaps.inc();
    }

    /// Counts a detected rollback of the store.
    pub(crate) fn store_went_back(&self) {
        self.replica.store_rollbacks.inc();
    }

    /// Counts a deleted Lease of an instance that had long been dead.
    pub(crate) fn swept(&self) {
        self.replica.swept_leases.inc();
    }

    /// Notes how long a call waited for its place in the gate.
    pub(crate) fn call_admitted(&self, lane: Lane, waited: Duration) {
        let family = &self.calls.wait;
        family.get_or_create(&[("lane", lane.as_str())]).observe(waited.as_secs_f64());
    }

    /// Notes a finished call.
    pub(crate) fn call_ended(&self, request: ApiRequest, outcome: Outcome, took: Duration) {
        let ApiRequest { verb, kind, status: _ } = request;
        if verb.writes() {
            let labels = [("kind", kind), ("verb", verb.as_str()), ("result", outcome.as_str())];
            self.calls.writes.get_or_create(&labels).inc();
        }
        if verb != crate::kube_client::request::Verb::Watch {
            let family = &self.calls.duration;
            let labels = [("kind", kind), ("verb", verb.as_str())];
            family.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }
}

/// A step that is being measured.
pub(crate) struct Underway<'a> {
    metrics: &'a Metrics,
    step: Step,
    since: MonotonicTime,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let took = self.metrics.clock.now().since(self.since);
        let family = &self.metrics.reconciliations.duration;
        family.get_or_create(&[("step", self.step.as_str())]).observe(took.as_secs_f64());
    }
}
