//! Counts the calls to the API server, and notes its answers.

use std::time::Duration;

use crate::controller::context::Instruments;
use crate::kube_client::{
    gate::{Lane, Observer, Outcome},
    request::ApiRequest,
};

/// Observes every call.
pub(crate) struct Calls(pub(crate) Instruments);

impl Observer for Calls {
    fn admitted(&self, lane: Lane, waited: Duration) {
        self.0.metrics.call_admitted(lane, waited);
    }

    fn ended(&self, request: ApiRequest, outcome: Outcome, took: Duration) {
        self.0.metrics.call_ended(request, outcome, took);
        if outcome.is_answer() {
            self.0.health.lock().api_answered(self.0.clock.now());
        }
    }
}
