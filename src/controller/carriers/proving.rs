//! The proofs of gateways that a prune needs (G3, G10).

use std::{sync::Arc, time::Duration};

use beatkeeper_core::{
    carriers::round::ANSWERED_WITHIN,
    decide::verdict::Suspect,
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::Pace},
};

use crate::controller::{clock::Clock, leader::leadership::Leadership, liveness::Liveness};

/// Asks for the proofs of gateways.
pub(crate) struct GatewayProofs {
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) leadership: Leadership,
}

/// How long a decision waits for gateways. Other instances of the registration wait, too.
const PATIENCE: Duration = ANSWERED_WITHIN;

impl GatewayProofs {
    /// Asks what has to be known of these suspects up to their deadlines, which have passed. Returns whether all
    /// answers have come. Without gateways there is nothing to ask. Client required.
    pub(crate) async fn prove(&self, registration: &Key, pace: Pace, suspects: &[Suspect]) -> bool {
        let latest = suspects.iter().filter_map(|suspect| suspect.deadline).max();
        let Some(latest) = latest.filter(|_| self.liveness.has_gateways()) else { return true };
        let (confirmed, answered) =
            futures::future::join(self.confirm(latest), self.answers(registration, pace, suspects))
                .await;
        confirmed && answered
    }

    /// Reads the election's Lease, unless a read since the deadline has shown that this replica leads.
    async fn confirm(&self, deadline: MonotonicTime) -> bool {
        let is_confirmed = self.liveness.carried(|state, _| state.is_confirmed(deadline));
        if is_confirmed == Some(true) {
            return true;
        }
        let term = self.liveness.carried(|state, _| state.set.term()).flatten();
        let Some(term) = term else { return false };
        let Some(sent) = self.leadership.confirm(term).await else { return false };
        let noted = self.liveness.carried(|state, _| {
            // A term that began during the read needs one of its own.
            let is_same = state.set.term() == Some(term);
            if is_same {
                state.confirmed(sent);
            }
            is_same
        });
        noted == Some(true)
    }

    /// Asks the gateways, and waits for those answers that these suspects need.
    async fn answers(&self, registration: &Key, pace: Pace, suspects: &[Suspect]) -> bool {
        if !self.awaits(registration, pace, suspects) {
            return true;
        }
        let frames = self.liveness.carried(|state, _| {
            let effects = state.set.ask_all(self.clock.now());
            state.carry_out(effects);
            state.frames()
        });
        let Some(mut frames) = frames else { return true };
        let answered = async {
            while self.awaits(registration, pace, suspects) {
                if frames.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.is_ok()
    }

    /// Whether an answer is missing that may still come.
    fn awaits(&self, registration: &Key, pace: Pace, suspects: &[Suspect]) -> bool {
        let awaits = self.liveness.carried(|state, index| {
            let now = self.clock.now();
            suspects.iter().any(|Suspect { lease, deadline }| {
                let record = index.record(registration, lease);
                let Some((record, deadline)) = record.zip(*deadline) else { return false };
                state.set.awaits_answer(record, pace, deadline, now)
            })
        });
        awaits == Some(true)
    }
}
