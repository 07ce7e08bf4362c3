//! The buckets of histograms.

use prometheus_client::metrics::{family::MetricConstructor, histogram::Histogram};

/// Makes histograms with these upper bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets(pub(crate) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}
