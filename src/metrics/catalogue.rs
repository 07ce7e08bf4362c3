//! The registry of the metrics, and their descriptions for the documentation.

use std::fmt::Write;

use prometheus_client::{
    metrics::MetricType,
    registry::{Metric, Registry, Unit},
};

/// One metric, for the page that lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// The name in queries: with prefix and unit, and with `_total` for a counter.
    pub(crate) name: String,
    /// "counter", "gauge" or "histogram".
    pub(crate) kind: String,
    pub(crate) labels: &'static [&'static str],
    /// The help text, without a full stop at the end.
    pub(crate) help: &'static str,
}

/// Registers metrics and describes them.
pub(crate) struct Catalogue {
    pub(crate) registry: Registry,
    pub(crate) described: Vec<Described>,
    prefix: &'static str,
}

impl Catalogue {
    /// All names begin with `prefix`.
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { registry: Registry::with_prefix(prefix), described: Vec::new(), prefix }
    }

    /// Registers and describes a metric without a unit.
    pub(crate) fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) -> M {
        self.register(name, None, labels, help, metric)
    }

    /// Registers and describes a metric in seconds.
    pub(crate) fn seconds<M: Metric + Clone>(
        &mut self,
        name: &str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) -> M {
        self.register(name, Some(Unit::Seconds), labels, help, metric)
    }

    fn register<M: Metric + Clone>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) -> M {
        self.describe(name, unit.as_ref(), metric.metric_type(), labels, help);
        match unit {
            None => self.registry.register(name, help, metric.clone()),
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
        }
        metric
    }

    /// Describes a metric that is registered without [`Self::add`] or [`Self::seconds`].
    pub(crate) fn describe(
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
            name: format!("{}_{name}{unit}{total}", self.prefix),
            kind: kind.as_str().to_owned(),
            labels,
            help,
        });
    }
}

/// The table of these metrics, in Markdown.
pub(crate) fn table(described: &[Described]) -> String {
    let mut table = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned();
    for Described { name, kind, labels, help } in described {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String never fails.
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help}. |", labels.join(", "));
    }
    table
}
