//! Metrics, health and traces, to which the parts of the process report.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    controller::{clock::Clock, metrics::process::Metrics, trace::queue::Traces},
    kube_client::{
        gate::{Lane, Observer, Outcome},
        request::ApiRequest,
    },
};
use beatkeeper_core::replica::health::Health;

/// The metrics, the health and the traces of the process, and the clock by which they are noted.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: SharedHealth,
    pub(crate) traces: Traces,
}

/// The health of the operator. All parts report to it.
#[derive(Debug, Clone)]
pub(crate) struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    /// The guard is never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry {
    pub(crate) fn new(clock: Clock, metrics_per_registration: bool) -> Self {
        let metrics = Arc::new(Metrics::new(clock, metrics_per_registration));
        let health = SharedHealth(Arc::new(Mutex::new(Health::new(clock.now()))));
        Self { clock, metrics, health, traces: Traces::off() }
    }
}

/// Counts every call to the API server, and notes that it answers.
impl Observer for Telemetry {
    fn admitted(&self, lane: Lane, waited: Duration) {
        self.metrics.call_admitted(lane, waited);
    }

    fn ended(&self, request: ApiRequest, outcome: Outcome, took: Duration) {
        self.metrics.call_ended(request, outcome, took);
        if outcome.is_answer() {
            self.health.lock().api_answered(self.clock.now());
        }
    }
}
