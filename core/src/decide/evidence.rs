//! The evidence for and against counting silence as death, apart from the Leases themselves.

use std::{collections::HashSet, time::Duration};

use crate::{
    cluster_cache::ClusterCache,
    decide::verdict::Suspect,
    liveness::{
        index::{Index, Record},
        outage_guard::{BrokenPath, OutageGuard},
        probe_tracker::ProbeTracker,
        proven_time::ProvenTime,
        ttl::TtlHistory,
        unproven::Unproven,
    },
    objects::registration::Registration,
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence},
    },
};

/// The longest time for which a broken path holds an instance, in ttls (L6).
const HELD_FOR: u32 = 10;

/// The evidence for verdicts on silent instances (L2, L3, L6). No instance is pruned for silence without it (P1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The proven time according to the probe.
    pub path: ProvenTime,
    /// The same without the stretches in which the guard found that beats were missing.
    pub proven: ProvenTime,
    /// When the latest probe that has come back was sent; `None` before the first one.
    pub probed: Option<MonotonicTime>,
    /// Why no probe has come back although one was requested.
    pub unproven: Option<Unproven>,
    /// Where the path of the beats is broken, if it is.
    pub broken: Option<BrokenPath>,
}

/// The longest time for which a broken path holds an instance with this ttl.
pub fn held_for(ttl: Duration) -> Duration {
    ttl * HELD_FOR
}

impl Evidence {
    /// The moment from which the silence of an instance may count as death.
    ///
    /// The guard can move this moment by at most the longest hold plus one ttl, even if the path repeatedly seems to
    /// be whole and breaks again.
    pub fn deadline(&self, silence: Silence, pace: Pace) -> MonotonicTime {
        let longest = self.held_until(silence, pace) + pace.ttl;
        self.proven.deadline(silence, pace).min(longest)
    }

    /// Until when a broken path may hold an instance: [`held_for`] after the deadline that it would have by the probe
    /// alone.
    pub fn held_until(&self, silence: Silence, pace: Pace) -> MonotonicTime {
        self.path.deadline(silence, pace) + held_for(pace.ttl)
    }

    /// The evidence that is known without asking the guard again: all of one moment.
    pub fn known(registration: &Registration, path: &ProbeTracker, guard: &OutageGuard) -> Self {
        Self {
            path: path.proven_time().clone(),
            proven: guard.proven_time(path.proven_time(), &registration.key),
            probed: path.proof(),
            unproven: None,
            broken: None,
        }
    }

    /// The suspects at `now`, as known before a decision. They include the instances that the watch no longer shows
    /// (L4). Of the expected_expiries ones, those are removed that have beaten since, and those with a deadline that a gap has
    /// moved. After an outage, a gap moves the deadlines of all of them.
    pub fn in_doubt(
        &self,
        mut expected_expiries: Vec<Suspect>,
        registration: &Registration,
        ttl: &TtlHistory,
        index: &Index,
        now: MonotonicTime,
    ) -> Vec<Suspect> {
        expected_expiries.retain_mut(|suspect| {
            let record = index.record(&registration.key, &suspect.lease);
            let (Some(deadline), Some(record)) = (&mut suspect.deadline, record) else {
                return false;
            };
            let pace = registration.pace();
            let pace = Pace { ttl: ttl.at(record, pace.interval), ..pace };
            *deadline = self.deadline(record.silence(), pace);
            *deadline <= now
        });
        let late: HashSet<_> =
            expected_expiries.iter().map(|suspect| suspect.lease.clone()).collect();
        let missing = index.missing(&registration.key).filter(|lease| !late.contains(*lease));
        expected_expiries
            .extend(missing.map(|lease| Suspect { lease: lease.clone(), deadline: None }));
        expected_expiries
    }

    /// Adds what the guard says to the evidence for a decision about these records. The guard visits every instance
    /// that is watched. So it is asked only if the ttl of an instance has passed, and from then on until the path is
    /// whole again.
    #[expect(clippy::too_many_arguments, reason = "all that is known")]
    pub fn ask(
        mut self,
        guard: &mut OutageGuard,
        registration: &Registration,
        ttl: &TtlHistory,
        records: &[Record],
        index: &Index,
        world: &ClusterCache,
        now: MonotonicTime,
    ) -> Self {
        let (key, pace) = (&registration.key, registration.pace());
        // An instance that is not published is not held.
        let held = records.iter().filter(|known| known.published && known.expired_at.is_none());
        let late = held.filter(|record| {
            let pace = Pace { ttl: ttl.at(record, pace.interval), ..pace };
            now >= self.deadline(record.silence(), pace)
        });
        let silence = late.map(Record::silence).min_by_key(|silence| silence.until(now));
        if silence.is_some() || guard.must_check_again(key) {
            self.broken = guard.check(key, pace, silence, index, |key| world.pace_of(key), now);
            // If beats arrive again, the guard has added a gap.
            self.proven = guard.proven_time(&self.path, key);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::proven_time::Gap;

    const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    /// The instance fell silent at 0; the guard found that beats were missing in these stretches.
    fn deadline(gaps: Vec<Gap>) -> MonotonicTime {
        let evidence = Evidence { proven: ProvenTime::with_gaps(gaps), ..Evidence::default() };
        let silence = Silence { since: at(0), before: Duration::ZERO };
        assert_eq!(evidence.held_until(silence, PACE), at(30 + 300), "whatever the guard found");
        evidence.deadline(silence, PACE)
    }

    #[test]
    fn an_instance_that_was_cut_off_has_a_ttl_once_beats_arrive_again() {
        assert_eq!(deadline(vec![Gap { from: at(20), to: at(300) }]), at(330));
    }

    #[test]
    fn a_path_that_recovers_briefly_and_breaks_again_holds_no_instance_beyond_one_hold_and_a_ttl() {
        let flickers = (0..1000).map(|n| Gap { from: at(20 + 21 * n), to: at(40 + 21 * n) });
        assert_eq!(deadline(flickers.collect()), at(30 + 300 + 30));
    }
}
