//! Counts the calls to the API server, and notes that it answers.

use std::{sync::Arc, time::Duration};

use super::{clock::Clock, metrics::Metrics, serve::SharedHealth};
use crate::kube_client::{
    gate::{Lane, Observer, Outcome},
    request::ApiRequest,
};

/// Sees every call.
pub(super) struct Calls {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: SharedHealth,
}

impl Observer for Calls {
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
