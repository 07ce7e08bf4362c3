//! The evidence for and against counting the silence of a carried instance as death.

use std::time::Duration;

use super::CarrierSet;
use crate::{
    carriers::{
        carrier::{Carrier, Standing},
        round::Round,
        silence::{Finding, Held},
    },
    decide::evidence::held_for,
    liveness::{index::Record, proven_time::ProvenTime},
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence},
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
}

impl CarrierSet {
    /// What the silence of an instance says at `now`. `election_read` is the sending of the last read of the
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
            return Witness::Survivors { before: ProvenTime::without_gaps() };
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
        }
    }
}
