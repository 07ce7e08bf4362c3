//! Records decisions in the index.

use std::sync::Arc;

use super::{
    Basis, CommitResult, Index, LeaseDecision, NextBeat, Outcome, Provenance, Record, Ticket,
};
use crate::vocabulary::{key::Key, monotonic_time::MonotonicTime};

impl Index {
    /// Records the decision for each Lease of a registration, and returns whether it may be carried out.
    ///
    /// It may not if an instance that it removes has beaten since the snapshot. Other beats since the snapshot do not
    /// prevent it. Otherwise, when thousands of instances come back, the same decision would be made again and again.
    /// If such a beat would change the decision, the next one follows soon. All other changes (a Lease that appeared,
    /// disappeared or changed) have already woken the registration.
    ///
    /// Leases without a decision are gone but not yet collected. They are no longer published, so no beat of theirs is
    /// due (L6).
    pub fn commit<'a>(
        &mut self,
        registration: &Key,
        decisions: impl IntoIterator<Item = &'a LeaseDecision>,
        now: MonotonicTime,
    ) -> CommitResult {
        let mut result = CommitResult::Accepted;
        let mut cursor = self.store.cursor(registration);
        let without_decision = |record: &mut Record| record.published = false;
        for decision in decisions {
            result = result.max(match cursor.find(&decision.lease, without_decision) {
                Some(record) => record.commit(decision, now),
                None => CommitResult::Overtaken,
            });
        }
        cursor.end(without_decision);
        result
    }

    /// The same for a decision that judged only these Leases anew. All other verdicts stand.
    pub fn commit_changed<'a>(
        &mut self,
        registration: &Key,
        ticket: Ticket,
        judged: impl IntoIterator<Item = (&'a Arc<str>, Option<&'a LeaseDecision>)>,
        now: MonotonicTime,
    ) -> CommitResult {
        let mut result = match self.has_lost_a_lease(registration, ticket) {
            true => CommitResult::Overtaken,
            false => CommitResult::Accepted,
        };
        for (lease, decision) in judged {
            let slot = self.find_in(registration, lease);
            let record = slot.map(|slot| &mut self.store.get_mut(slot).record);
            match (record, decision) {
                (Some(record), Some(decision)) => result = result.max(record.commit(decision, now)),
                (Some(record), None) => record.published = false,
                (None, Some(_)) => result = CommitResult::Overtaken,
                (None, None) => {}
            }
        }
        result
    }
}

impl Record {
    fn commit(&mut self, decision: &LeaseDecision, now: MonotonicTime) -> CommitResult {
        let beaten = self.token != decision.token || self.carried_at() != decision.carried_at;
        // Otherwise the beat has already woken the registration.
        let was_no_op = beaten && self.next_beat == NextBeat::IsNoOp;
        let result = match () {
            () if beaten && decision.outcome.removes_for_silence() => CommitResult::Overtaken,
            () if was_no_op && decision.next_beat == NextBeat::Wakes => {
                CommitResult::AcceptedForNow
            }
            () => CommitResult::Accepted,
        };
        self.next_beat = decision.next_beat;
        self.rhythm.want(decision.wanted, self.seen);
        self.placed |= decision.placed;
        self.published = decision.outcome.is_published();
        if matches!(decision.outcome, Outcome::Unpublished(_)) && self.is_unshown() {
            // The grace keeps nothing published, so a read that finds no Lease is enough to forget the record.
            self.grace = self.grace.filter(|_| self.expired_at.is_some());
        }
        self.protected = decision.outcome == Outcome::Published(Basis::MinReady);
        if decision.outcome == Outcome::Published(Basis::FoundPublished)
            && self.provenance.awaits_beat()
        {
            self.provenance = Provenance::Granted;
        }
        if decision.outcome.is_expired() && !beaten {
            self.expired_at.get_or_insert(now);
        }
        result
    }
}
