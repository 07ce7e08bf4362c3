//! The registry of the metrics, and their descriptions for the documentation.

use prometheus_client::{
    metrics::MetricType,
    registry::{Metric, Registry, Unit},
};

/// The prefix of all names.
pub(super) const PREFIX: &str = "beatkeeper";

/// One metric, for the page that lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The name in queries: with prefix and unit, and with `_total` for a counter.
    pub(super) name: String,
    /// "counter", "gauge" or "histogram".
    pub(super) kind: String,
    pub(super) labels: &'static [&'static str],
    /// The help text, without a full stop at the end.
    pub(super) help: &'static str,
}

/// Registers metrics and describes them.
pub(super) struct Catalogue {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

impl Catalogue {
    pub(super) fn new() -> Self {
        Self { registry: Registry::with_prefix(PREFIX), described: Vec::new() }
    }

    /// Registers and describes a metric without a unit.
    pub(super) fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) -> M {
        self.describe(name, None, metric.metric_type(), labels, help);
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// Registers and describes a metric in seconds.
    pub(super) fn seconds<M: Metric + Clone>(
        &mut self,
        name: &str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) -> M {
        self.describe(name, Some(&Unit::Seconds), metric.metric_type(), labels, help);
        self.registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// Describes a metric that is registered without [`Self::add`] or [`Self::seconds`].
    pub(super) fn describe(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        labels: &'static [&'static str],
        help: &'static str,
    ) {
        let unit = unit.map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let total = if matches!(kind, MetricType::Counter) { "_total" } else { "" };
        self.described.push(Described {
            name: format!("{PREFIX}_{name}{unit}{total}"),
            kind: kind.as_str().to_owned(),
            labels,
            help,
        });
    }
}
