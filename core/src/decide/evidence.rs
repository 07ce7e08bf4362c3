//! The evidence for and against counting silence as death, apart from the Leases themselves.

use std::collections::HashSet;

use crate::{
    carriers::silence::Finding,
    cluster_cache::ClusterCache,
    decide::{gateways::Findings, verdict::Suspect},
    liveness::{
        index::{Index, Record},
        outage_guard::{BrokenPath, OutageGuard, OwnBeats},
        probe_tracker::ProbeTracker,
        proven_time::ProvenTime,
        ttl::TtlHistory,
        unproven::Unproven,
    },
    objects::registration::Registration,
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence, held_for},
    },
};

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
    /// What gateways say; `None` if there are none.
    pub gateways: Option<Findings>,
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

    /// The moment from which the silence of an instance may count as death, by each way on which its next beat may
    /// come. `None` if gateways hold it.
    pub fn deadline_by(
        &self,
        finding: Option<Finding>,
        record: &Record,
        pace: Pace,
    ) -> Option<MonotonicTime> {
        let by_lease = || self.deadline(record.silence(), pace);
        let by_gateway = match finding {
            None => return Some(by_lease()),
            Some(Finding::Held(_)) => return None,
            Some(Finding::Waits { until }) => until,
            Some(
                Finding::NeedsProof { deadline }
                | Finding::NeedsElectionRead { deadline }
                | Finding::Silent { deadline },
            ) => deadline,
        };
        match record.may_beat_by_lease(pace.ttl) {
            true => Some(by_gateway.max(by_lease())),
            false => Some(by_gateway),
        }
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
            gateways: None,
        }
    }

    /// The suspects at `now`, as known before a decision. They include the instances that the watch no longer shows
    /// (L4). Of the expected_expiries ones, those are removed that have beaten since, and those with a deadline that a gap has
    /// moved. After an outage, a gap moves the deadlines of all of them. `finding` is what gateways say of an instance.
    pub fn in_doubt(
        &self,
        mut expected_expiries: Vec<Suspect>,
        registration: &Registration,
        ttl: &TtlHistory,
        index: &Index,
        finding: impl Fn(&Record, Pace) -> Option<Finding>,
        now: MonotonicTime,
    ) -> Vec<Suspect> {
        expected_expiries.retain_mut(|suspect| {
            let record = index.record(&registration.key, &suspect.lease);
            let (Some(deadline), Some(record)) = (&mut suspect.deadline, record) else {
                return false;
            };
            let pace = registration.pace();
            let pace = Pace { ttl: ttl.at(record, pace.interval), ..pace };
            let Some(moved) = self.deadline_by(finding(record, pace), record, pace) else {
                return false;
            };
            *deadline = moved;
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
    /// whole again. `beating` is set if these are not all records: then so many others beat in time, and a beat of each
    /// has arrived in the window of the guard. If these show that the path is whole, no instance has to be visited.
    #[expect(clippy::too_many_arguments, reason = "all that is known")]
    pub fn ask(
        mut self,
        guard: &mut OutageGuard,
        registration: &Registration,
        ttl: &TtlHistory,
        records: &[Record],
        beating: Option<usize>,
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
            let beats = beating.map(|arrived| OwnBeats { arrived, others: records });
            let beats = beats.filter(|_| world.pace_of(key) == Some(pace));
            let is_shown = |beats| guard.is_shown_whole(key, pace, silence, beats, now);
            self.broken = match beats.is_some_and(is_shown) {
                true => None,
                false => guard.check(key, pace, silence, index, |key| world.pace_of(key), now),
            };
            // If beats arrive again, the guard has added a gap.
            self.proven = guard.proven_time(&self.path, key);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
