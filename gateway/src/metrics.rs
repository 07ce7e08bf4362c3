//! The metrics of a gateway.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "beatkeeper_gateway";

/// One metric, for the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The name in queries: with prefix and unit, and with `_total` for a counter.
    pub name: String,
    /// "counter", "gauge" or "histogram".
    pub kind: String,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// The help text, without a full stop at the end.
    pub help: &'static str,
}

/// What a count is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    reason: &'static str,
}

/// What a beat came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    result: &'static str,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Purpose {
    certificate: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    beats: Family<Outcome, Counter>,
    /// The one of those that almost all beats need.
    accepted: Counter,
    refused: Family<Reason, Counter>,
    turned_away: Family<Reason, Counter>,
    cut: Family<Reason, Counter>,
    streams_ended: Family<Reason, Counter>,
    /// Connections of instances.
    pub connections: Gauge,
    /// Streams of replicas.
    pub streams: Gauge,
    /// Beats that wait for their answers.
    pub waiting: Gauge,
    /// Instances of each batch with at least one, to one replica.
    pub batch: Histogram,
    acknowledge: Histogram,
    /// Beats of the gateway's own that have arrived (G3).
    pub proofs: Counter,
    /// Beats of the gateway's own that have not.
    pub failed_proofs: Counter,
    /// Tokens that were verified or reviewed.
    pub tokens: Counter,
    certificate_expiry: Family<Purpose, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let powers = (0..=10).map(|power| f64::from(1 << power));
        let seconds =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let beats: Family<Outcome, Counter> = Family::default();
        let accepted = beats.get_or_create(&Outcome { result: "accepted" }).clone();
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            described: Vec::new(),
            beats,
            accepted,
            refused: Family::default(),
            turned_away: Family::default(),
            cut: Family::default(),
            streams_ended: Family::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
            waiting: Gauge::default(),
            batch: Histogram::new(powers),
            acknowledge: Histogram::new(seconds),
            proofs: Counter::default(),
            failed_proofs: Counter::default(),
            tokens: Counter::default(),
            certificate_expiry: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let (beats, acknowledge) = (self.beats.clone(), self.acknowledge.clone());
        self.add("beats", &["result"], "Beats that were answered, by result", beats);
        let help = "Time from the arrival of an accepted beat to its answer";
        self.add_with_unit("acknowledge", Some(Unit::Seconds), &[], help, acknowledge);
        let help = "Beats that wait for their answers";
        self.add("beats_waiting", &[], help, self.waiting.clone());
        let help = "Instances of each batch that has any, for each replica";
        self.add("batch_instances", &[], help, self.batch.clone());
        let help = "Requests that were refused before a leader was asked, by reason";
        self.add("requests_refused", &["reason"], help, self.refused.clone());
        let help = "Tokens that were verified or reviewed";
        self.add("tokens_checked", &[], help, self.tokens.clone());
        let help = "Open connections of instances";
        self.add("connections", &[], help, self.connections.clone());
        let help = "Connections that were closed before TLS, by reason";
        self.add("connections_refused", &["reason"], help, self.turned_away.clone());
        let help = "Connections that were cut, by reason";
        self.add("connections_cut", &["reason"], help, self.cut.clone());
        let help = "Open streams of the operator's replicas";
        self.add("streams", &[], help, self.streams.clone());
        let help = "Streams of the operator's replicas that have ended, by reason";
        self.add("streams_ended", &["reason"], help, self.streams_ended.clone());
        let help = "Beats of the gateway's own that have arrived through its published address";
        self.add("path_proofs", &[], help, self.proofs.clone());
        let help = "Beats of the gateway's own that have not arrived; meanwhile no instance that it carries is pruned";
        self.add("path_proofs_failed", &[], help, self.failed_proofs.clone());
        let help = "When a certificate of the gateway expires, in seconds since 1970: beats is what instances see, and streams what the operator sees";
        let (name, unit) = ("certificate_expiry_timestamp", Some(Unit::Seconds));
        self.add_with_unit(name, unit, &["certificate"], help, self.certificate_expiry.clone());
    }

    fn add<M: Metric>(
        &mut self,
        name: &str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) {
        self.add_with_unit(name, None, labels, help, metric);
    }

    fn add_with_unit<M: Metric>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) {
        let kind = metric.metric_type();
        let suffix = unit.as_ref().map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let total = if matches!(kind, MetricType::Counter) { "_total" } else { "" };
        let name_in_queries = format!("{PREFIX}_{name}{suffix}{total}");
        self.described.push(Described {
            name: name_in_queries,
            kind: kind.as_str().to_owned(),
            labels,
            help,
        });
        match unit {
            None => self.registry.register(name, help, metric),
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
        }
    }

    /// All metrics, for the documentation.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// A beat was accepted after so many seconds.
    pub fn accepted(&self, seconds: f64) {
        self.accepted.inc();
        self.acknowledge.observe(seconds);
    }

    /// A beat was answered, and not accepted.
    pub fn not_accepted(&self, result: &'static str) {
        self.beats.get_or_create(&Outcome { result }).inc();
    }

    /// A request was refused before it reached the state machine.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A connection was closed before its handshake.
    pub fn turned_away(&self, reason: &'static str) {
        self.turned_away.get_or_create(&Reason { reason }).inc();
    }

    /// A connection was cut.
    pub fn cut(&self, reason: &'static str) {
        self.cut.get_or_create(&Reason { reason }).inc();
    }

    /// A stream has ended.
    pub fn stream_ended(&self, reason: &'static str) {
        self.streams_ended.get_or_create(&Reason { reason }).inc();
    }

    /// The certificate for `beats` or for `streams` has this last second, since 1970.
    pub fn certificate_expires(&self, certificate: &'static str, last: i64) {
        self.certificate_expiry.get_or_create(&Purpose { certificate }).set(last);
    }

    /// The page.
    pub fn text(&self) -> String {
        let mut page = String::new();
        // Writing to a String never fails.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}
