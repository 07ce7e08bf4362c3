//! The proof that beats arrive through one gateway (G3).
//!
//! A replica asks each gateway again and again. An answer proves that beats could be delivered to this gateway until
//! the question was sent, and that this replica has taken in each of them. Two proofs that are further apart than the
//! tolerance have a gap between them, as with the probe (L3).

use std::{collections::VecDeque, time::Duration};

use crate::{
    carriers::frames::Question,
    liveness::{
        probe_tracker,
        proven_time::{Gap, ProvenTime},
    },
    vocabulary::{monotonic_time::MonotonicTime, pace::SHORTEST_GAP},
};

/// The largest number of questions that are awaited at the same time.
const UNDER_WAY: usize = 64;

/// The way of the beats through one gateway.
#[derive(Debug, Clone)]
pub struct CarrierProof {
    gaps: ProvenTime,
    /// When the last question that was answered was sent; before the first one, when the stream was opened.
    last: MonotonicTime,
    under_way: VecDeque<(Question, MonotonicTime)>,
}

impl CarrierProof {
    /// A way of which nothing is proven before `now`. No gap is noted, because it has carried no beat.
    pub fn new(now: MonotonicTime) -> Self {
        Self { gaps: ProvenTime::default(), last: now, under_way: VecDeque::new() }
    }

    /// A question is sent.
    pub fn ask(&mut self, question: Question, now: MonotonicTime) {
        if self.under_way.back().is_some_and(|(_, sent)| *sent == now) {
            // The gateways are asked one after the other at the same moment.
            return;
        }
        if self.under_way.len() == UNDER_WAY {
            // The oldest stays: answers may need longer than all these questions.
            self.under_way.remove(UNDER_WAY / 2);
        }
        self.under_way.push_back((question, now));
    }

    /// A question is answered.
    pub fn answered(&mut self, question: Question, tolerance: Duration, now: MonotonicTime) {
        // An answer to a later question answers the earlier ones, too.
        let Some(place) = self.under_way.iter().rposition(|(known, _)| *known <= question) else {
            return;
        };
        let Some((_, sent)) = self.under_way.drain(..=place).next_back() else { return };
        if now.since(self.last) > tolerance.max(SHORTEST_GAP) {
            self.gaps.note(Gap { from: self.last, to: now });
        }
        self.last = sent;
    }

    /// The stream is broken: what was asked is not answered.
    pub fn interrupted(&mut self) {
        self.under_way.clear();
    }

    /// When the last question was sent that was answered.
    pub fn last(&self) -> MonotonicTime {
        self.last
    }

    /// Whether a question is awaited that may prove the time up to this deadline.
    pub fn is_under_way_for(&self, deadline: MonotonicTime, now: MonotonicTime) -> bool {
        self.under_way.back().is_some_and(|(_, sent)| probe_tracker::reaches(*sent, deadline, now))
    }

    /// Whether the whole time up to a deadline that has passed is proven, but for gaps that are known.
    pub fn reaches(&self, deadline: MonotonicTime, now: MonotonicTime) -> bool {
        probe_tracker::reaches(self.last, deadline, now)
    }

    /// The proven time in the past.
    pub fn proven_time(&self) -> &ProvenTime {
        &self.gaps
    }

    /// The same for a gateway that no longer carries: nothing is proven from the last proof to `end`.
    pub fn until(&self, end: MonotonicTime) -> ProvenTime {
        let mut gaps = self.gaps.clone();
        gaps.note(Gap { from: self.last, to: end });
        gaps
    }
}
