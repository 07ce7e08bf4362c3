//! The terms of this replica, for gateways.

use std::sync::Arc;

use crate::controller::{clock::Clock, leader::leadership::Leadership, liveness::Liveness};

/// Begins and ends terms for the gateways of one scope.
#[derive(Clone)]
pub(crate) struct CarrierTerms {
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) leadership: Leadership,
}

impl CarrierTerms {
    /// Begins the term of the present claim, if there is one and it has not begun yet. Acknowledgements begin with the
    /// term. Only prunes wait for the round (G5), and for the proof of the probe (L4).
    pub(crate) fn begin(&self) {
        self.liveness.carried(|state, index| {
            // The claim first: then the list is that of this claim or of a later one, never that of an earlier one.
            let claim = self.leadership.claim();
            let listed = self.leadership.listed();
            state.begin_term(claim, listed, index, self.clock.now());
        });
    }

    /// Ends the term.
    pub(crate) fn end(&self) {
        self.liveness.carried(|state, _| state.end_term());
    }
}
