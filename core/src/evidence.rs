//! What speaks for taking silence for death, and what against it, beside the Leases themselves.

use std::{collections::HashSet, time::Duration};

use super::{
    flow::{Broken, Guard},
    index::{Index, Record},
    moment::Moment,
    path::Path,
    proven::{Pace, Proven, Silence},
    registration::Registration,
    ttl::TtlHistory,
    verdict::Suspect,
    world::World,
};

/// A broken path holds an instance for at most this many ttls (L6).
const HELD_FOR: u32 = 10;

/// The evidence on which silent instances are judged (L2, L3, L6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What the probe proves of the past.
    pub path: Proven,
    /// The same, but for the stretches in which the guard found beats missing.
    pub proven: Proven,
    /// When the latest probe was sent that has come back; none before the first one.
    pub probed: Option<Moment>,
    /// Why no probe has come back although one was asked for.
    pub unproven: Option<String>,
    /// Where the way of the beats is broken, if it is.
    pub broken: Option<Broken>,
}

/// For how long a broken path holds an instance with this ttl, at most.
pub fn held_for(ttl: Duration) -> Duration {
    ttl * HELD_FOR
}

impl Evidence {
    /// The moment from which the silence of an instance may count as death.
    ///
    /// What the guard finds moves it by the longest hold and one ttl at most, however often the path
    /// seems mended and breaks again.
    pub fn deadline(&self, silence: Silence, pace: Pace) -> Moment {
        let longest = self.held_until(silence, pace) + pace.ttl;
        self.proven.deadline(silence, pace).min(longest)
    }

    /// Until when a broken path may hold an instance: some ttls after the deadline that it would have
    /// by the probe alone.
    pub fn held_until(&self, silence: Silence, pace: Pace) -> Moment {
        self.path.deadline(silence, pace) + held_for(pace.ttl)
    }

    /// What is known without asking the guard anew.
    pub fn known(registration: &Registration, path: &Path, guard: &Guard) -> Self {
        Self {
            path: path.proven().clone(),
            proven: guard.proven(path.proven(), &registration.key),
            probed: path.proof(),
            unproven: None,
            broken: None,
        }
    }

    /// Who is in doubt by now, as far as it is known before a decision: whoever the watch no longer shows (L4), and of
    /// those who were foreseen to be late not who has beaten since, nor whose deadline a gap has moved, as it does for all
    /// of them when an outage is over.
    pub fn in_doubt(
        &self,
        mut foreseen: Vec<Suspect>,
        registration: &Registration,
        ttl: &TtlHistory,
        index: &Index,
        now: Moment,
    ) -> Vec<Suspect> {
        foreseen.retain_mut(|suspect| {
            let record = index.record(&registration.key, &suspect.lease);
            let (Some(deadline), Some(record)) = (&mut suspect.deadline, record) else {
                return false;
            };
            let pace = registration.pace();
            let pace = Pace { ttl: ttl.at(record, pace.interval), ..pace };
            *deadline = self.deadline(record.silence(), pace);
            *deadline <= now
        });
        let late: HashSet<_> = foreseen.iter().map(|suspect| suspect.lease.clone()).collect();
        let missing = index.missing(&registration.key).filter(|lease| !late.contains(*lease));
        foreseen.extend(missing.map(|lease| Suspect { lease: lease.clone(), deadline: None }));
        foreseen
    }

    /// Gathers the evidence for deciding about these records. The guard is asked only when somebody's
    /// ttl has passed, and from then on until the way is whole again: it looks at every instance there
    /// is.
    #[expect(clippy::too_many_arguments, reason = "all that is known")]
    pub fn gather(
        registration: &Registration,
        ttl: &TtlHistory,
        records: &[Record],
        path: &Path,
        guard: &mut Guard,
        index: &Index,
        world: &World,
        now: Moment,
    ) -> Self {
        let (key, pace) = (&registration.key, registration.pace());
        let mut evidence = Self::known(registration, path, guard);
        // Who is not published is not held.
        let held = records.iter().filter(|known| known.published && known.expired_at.is_none());
        let late = held.filter(|record| {
            let pace = Pace { ttl: ttl.at(record, pace.interval), ..pace };
            now >= evidence.deadline(record.silence(), pace)
        });
        let silence = late.map(Record::silence).min_by_key(|silence| silence.until(now));
        if silence.is_some() || guard.is_to_be_asked_again(key) {
            evidence.broken = guard.ask(key, pace, silence, index, |key| world.pace_of(key), now);
            // When beats flow again that has made a gap.
            evidence.proven = guard.proven(path.proven(), key);
        }
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proven::Gap;

    const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    /// Fell silent at 0; the guard found beats missing in these stretches.
    fn deadline(gaps: Vec<Gap>) -> Moment {
        let evidence = Evidence { proven: Proven::with_gaps(gaps), ..Evidence::default() };
        let silence = Silence { since: at(0), before: Duration::ZERO };
        assert_eq!(evidence.held_until(silence, PACE), at(30 + 300), "whatever the guard found");
        evidence.deadline(silence, PACE)
    }

    #[test]
    fn who_was_cut_off_has_a_ttl_once_beats_flow_again() {
        assert_eq!(deadline(vec![Gap { from: at(20), to: at(300) }]), at(330));
    }

    #[test]
    fn a_way_that_seems_mended_and_breaks_again_holds_nobody_beyond_a_hold_and_a_ttl() {
        let flickers = (0..1000).map(|n| Gap { from: at(20 + 21 * n), to: at(40 + 21 * n) });
        assert_eq!(deadline(flickers.collect()), at(30 + 300 + 30));
    }
}
