//! What this process sees of outages, from its own live reads.
//!
//! While Leases cannot be read nobody is pruned. When they can be read again, the beats that the
//! outage held back are still on their way: the first read would find the old token and take it for
//! silence. So the time in which reads failed, or hung, is a gap in proven time (L3), and whoever was
//! to be pruned gets his time to beat. This sees only what deadlines cause it to look at; a probe
//! that looks all the time is to replace it.

use std::time::Duration;

use crate::core::{
    moment::Moment,
    proven::{Gap, Proven},
};

/// An answer that took longer was held up, and so were the beats of that time. A healthy one takes
/// milliseconds.
const HELD_UP: Duration = Duration::from_millis(200);

/// What is proven of the past, as far as live reads tell.
#[derive(Debug, Default)]
pub(super) struct Outages {
    gaps: Proven,
    /// The last moment at which the way from the workloads was seen to work: a beat came in, or a
    /// read was answered.
    proof: Moment,
    /// The last proof before the first of the reads that have failed since.
    since: Option<Moment>,
}

/// A read that is under way, with what was proven when it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// When it was sent.
    pub(super) at: Moment,
    proof: Moment,
}

impl Outages {
    /// What is proven of the past. An outage that goes on is no part of it yet: as long as it does,
    /// nothing can be confirmed anyway.
    pub(super) fn proven(&self) -> Proven {
        self.gaps.clone()
    }

    /// A beat has come in.
    pub(super) fn beat(&mut self, now: Moment) {
        self.proof = now;
    }

    /// A read is sent.
    pub(super) fn send(&self, now: Moment) -> Sent {
        Sent { at: now, proof: self.proof.min(now) }
    }

    /// A read has failed: since the last proof before it was sent nothing is certain.
    pub(super) fn failed(&mut self, sent: Sent) {
        self.since = Some(self.since.map_or(sent.proof, |since| since.min(sent.proof)));
    }

    /// A read has been answered. Returns whether it ended a gap.
    pub(super) fn answered(&mut self, sent: Sent, now: Moment) -> bool {
        self.proof = now;
        let failed_since = self.since.take();
        let gap = failed_since.is_some() || now.since(sent.at) > HELD_UP;
        if gap {
            let from = failed_since.map_or(sent.proof, |since| since.min(sent.proof));
            self.gaps.note(Gap { from, to: now });
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn gap(from: u64, to: u64) -> Proven {
        Proven::with_gaps(vec![Gap { from: at(from), to: at(to) }])
    }

    /// The last beat came in at 8 s.
    fn outages() -> Outages {
        let mut outages = Outages::default();
        outages.beat(at(8));
        outages
    }

    #[test]
    fn quick_answers_prove_everything() {
        let mut outages = outages();
        let sent = outages.send(at(10));
        outages.answered(sent, at(10) + Duration::from_millis(5));
        assert_eq!(outages.proven(), Proven::without_gaps());
    }

    #[test]
    fn from_the_last_proof_before_a_failure_to_the_next_answer_nothing_is_proven() {
        let mut outages = outages();
        let (first, second) = (outages.send(at(10)), outages.send(at(15)));
        outages.failed(first);
        outages.failed(second);
        assert_eq!(outages.proven(), Proven::without_gaps(), "it goes on");
        let third = outages.send(at(20));
        outages.answered(third, at(20));
        assert_eq!(outages.proven(), gap(8, 20));
    }

    #[test]
    fn an_answer_that_was_held_up_is_a_gap_although_beats_come_in_before_it() {
        let mut outages = outages();
        let sent = outages.send(at(10));
        outages.beat(at(12));
        outages.answered(sent, at(12));
        assert_eq!(outages.proven(), gap(8, 12));
    }

    #[test]
    fn a_failure_that_is_told_late_lengthens_no_gap_beyond_the_next_answer() {
        let mut outages = outages();
        let late = outages.send(at(10));
        let sent = outages.send(at(20));
        outages.answered(sent, at(20));
        outages.failed(late);
        let sent = outages.send(at(21));
        outages.answered(sent, at(21));
        assert_eq!(outages.proven(), gap(8, 21));
    }
}
