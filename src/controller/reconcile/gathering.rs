//! The result of the inputs step.

use std::sync::Arc;

use super::error::{InputsError, TakeoverError};
use beatkeeper_core::{
    inputs::{Inputs, snapshot::Snapshot, stall::Stall},
    objects::service::ServiceView,
    vocabulary::monotonic_time::MonotonicTime,
};

/// The inputs of a decision, and what is left to do about them.
pub(crate) struct Gathering {
    pub(crate) inputs: Inputs,
    /// Why the inputs are not complete, if they are not.
    pub(crate) failure: Option<InputsError>,
    /// When to gather again, because something had to wait.
    pub(crate) again_at: Option<MonotonicTime>,
}

impl Gathering {
    /// Inputs without failures, adoptions and refusals.
    pub(crate) fn new(
        snapshot: Snapshot,
        service: Option<Arc<ServiceView>>,
        stall: Option<Stall>,
    ) -> Self {
        Self { inputs: Inputs::new(snapshot, service, stall), failure: None, again_at: None }
    }

    /// The same, to be snapshot again at this moment.
    pub(crate) fn again_at(self, moment: MonotonicTime) -> Self {
        Self { again_at: Some(moment), ..self }
    }

    /// Notes that a read or a write of the adoption failed. Everything stays as it is, and the adoption is retried.
    pub(crate) fn fail_adoption(&mut self, error: TakeoverError) {
        self.inputs.stall = Some(Stall::adoption_unfinished(&error.to_string()));
        self.failure = Some(InputsError::Adoption(error));
    }
}
