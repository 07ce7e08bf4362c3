//! The number of Leases that the scopes of this process keep in memory. It is computed at each scrape.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::metrics::catalogue::Catalogue;
use beatkeeper_core::liveness::index::Index;

const KNOWN: &str = "known_leases";
const KNOWN_HELP: &str = "Heartbeat Leases that this process keeps in memory, leading or standing by, including Leases with an \
     unconfirmed deletion";

/// The indices of all scopes.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<Vec<Arc<Mutex<Index>>>>>);

impl Known {
    /// Adds the index of a new scope.
    pub(super) fn add(&self, index: Arc<Mutex<Index>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(index);
    }

    /// Adds the number to a registry.
    pub(super) fn register(&self, catalogue: &mut Catalogue) {
        catalogue.describe(KNOWN, None, MetricType::Gauge, &[], KNOWN_HELP);
        catalogue.registry.register_collector(Box::new(self.clone()));
    }

    fn count(&self) -> usize {
        let indices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |index: &Arc<Mutex<Index>>| {
            index.lock().unwrap_or_else(PoisonError::into_inner).count()
        };
        indices.iter().map(count).sum()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl Collector for Known {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let count = i64::try_from(self.count()).unwrap_or(i64::MAX);
        // The registry adds a full stop to help texts, but not to those of a collector.
        let help = format!("{KNOWN_HELP}.");
        ConstGauge::new(count).encode(encoder.encode_descriptor(
            KNOWN,
            &help,
            None,
            MetricType::Gauge,
        )?)
    }
}
