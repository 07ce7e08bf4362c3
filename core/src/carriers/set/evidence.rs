//! The evidence for and against counting the silence of a carried instance as death.

use std::time::Duration;

use super::CarrierSet;
use crate::{
    carriers::{
        carrier::{Carrier, Standing},
        round::Round,
        silence::{Finding, Held},
    },
    liveness::{index::Record, proven_time::ProvenTime},
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence, held_for},
    },
};

/// Which gateways prove the time in which an instance is silent.
enum Witness<'a> {
    /// The one that carried it last.
    Carrier(&'a Carrier),
    /// Those that carry now, together, since the one that carried it last is gone. An instance tries them all, so one
    /// way that works is enough.
    Survivors {
        /// What the lost gateway has proven.
        before: ProvenTime,
    },
    /// None: the gateway that carried it last is cut off.
    None(&'a Carrier),
    /// None is needed: it beats by writes of its Lease, so the probe proves the time.
    Probe,
}

impl CarrierSet {
    /// What the silence of an instance says at `now`, as far as gateways matter. An instance that beats by writes of its
    /// Lease has no gateway that has to prove the time. But it may have gone over to one that this replica did not hear
    /// in an earlier term, or after this replica was paused. So the round, losses and the read of the election's Lease
    /// count for it, too. `election_read` is the sending of the last read of the
    /// election's Lease that showed this replica as the leader of this term.
    pub fn finding(
        &self,
        record: &Record,
        pace: Pace,
        election_read: Option<MonotonicTime>,
        now: MonotonicTime,
    ) -> Finding {
        let witness = self.witness(record, pace, now);
        let deadline = self.proven(&witness).deadline(self.silence(record), pace);
        if now < deadline {
            return Finding::Waits { until: deadline };
        }
        let proven = match &witness {
            Witness::Probe => true,
            Witness::None(_) => return Finding::Held(Held::CarrierIsCutOff),
            Witness::Carrier(carrier) => carrier.proof.reaches(deadline, now),
            Witness::Survivors { .. } if self.open().next().is_none() => {
                return Finding::Held(Held::NoCarrier);
            }
            Witness::Survivors { .. } => self.any_way.reaches(deadline, now),
        };
        if self.round.as_ref().is_none_or(Round::is_open) {
            return Finding::Held(Held::RoundIsOpen);
        }
        if !proven {
            return Finding::NeedsProof { deadline };
        }
        if election_read.is_none_or(|sent| sent < deadline) {
            return Finding::NeedsElectionRead { deadline };
        }
        Finding::Silent { deadline }
    }

    /// Whether an answer that may still come can prove the time up to a deadline that has passed for this instance.
    pub fn awaits_answer(
        &self,
        record: &Record,
        pace: Pace,
        deadline: MonotonicTime,
        now: MonotonicTime,
    ) -> bool {
        match self.witness(record, pace, now) {
            Witness::Carrier(carrier) => !carrier.proof.reaches(deadline, now),
            Witness::Survivors { .. } => {
                self.open().next().is_some() && !self.any_way.reaches(deadline, now)
            }
            Witness::None(_) | Witness::Probe => false,
        }
    }

    /// Since when an instance has been silent, if what a loss may have swallowed counts as a beat (G5).
    ///
    /// What the probe remembers of its Lease does not count (G11). A gateway may have carried beats in that time that
    /// no living process knows of.
    fn silence(&self, record: &Record) -> Silence {
        let since = record.silence().since.max(self.loss.unwrap_or_default());
        Silence { since, before: Duration::ZERO }
    }

    fn witness(&self, record: &Record, pace: Pace, now: MonotonicTime) -> Witness<'_> {
        let Some(id) = record.carrier else {
            return match record.may_beat_by_gateway(pace.ttl) {
                true => Witness::Survivors { before: ProvenTime::without_gaps() },
                false => Witness::Probe,
            };
        };
        let carrier = &self.carriers[id.at()];
        let ended = match carrier.standing {
            // A gateway that proves nothing for that long holds no instance any longer, as if it were cut off.
            Standing::Carries if now < carrier.proof.last() + held_for(pace.ttl) => {
                return Witness::Carrier(carrier);
            }
            Standing::Carries => carrier.proof.last() + held_for(pace.ttl),
            Standing::Gone { since } => since,
            // A broken way holds an instance for so long and no longer (L6).
            Standing::Cut { since, .. } if now >= since + held_for(pace.ttl) => {
                since + held_for(pace.ttl)
            }
            Standing::Cut { .. } => return Witness::None(carrier),
        };
        Witness::Survivors { before: carrier.proof.until(ended) }
    }

    fn proven(&self, witness: &Witness<'_>) -> ProvenTime {
        match witness {
            Witness::Carrier(carrier) | Witness::None(carrier) => {
                carrier.proof.proven_time().clone()
            }
            Witness::Survivors { before } => before.and(self.any_way.proven_time()),
            Witness::Probe => ProvenTime::without_gaps(),
        }
    }
}
