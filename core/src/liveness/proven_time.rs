//! Proven time (L3): the stretches in which a beat could have been written and would have been seen.
//!
//! Silence counts against an instance only while its beats could have arrived. In a gap they could not: the API server
//! was unavailable, the watch was broken, or this process was suspended. A gap moves the deadline.

use crate::vocabulary::{
    monotonic_time::MonotonicTime,
    pace::{Pace, Silence},
};

/// A stretch in which nothing is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last moment that was proven.
    pub from: MonotonicTime,
    /// The first moment that was proven again.
    pub to: MonotonicTime,
}

/// The largest number of gaps that are kept.
const KEPT: usize = 256;

/// The proven time in the past: everything except the gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProvenTime {
    gaps: Vec<Gap>,
}

impl ProvenTime {
    /// The whole past is proven.
    pub fn without_gaps() -> Self {
        Self::default()
    }

    /// The whole past is proven except these gaps, which must be in order and must not overlap.
    pub fn with_gaps(gaps: Vec<Gap>) -> Self {
        Self { gaps }
    }

    /// Adds a gap that has ended. Only the part after the last known gap is added. The end of that gap is a proof, so
    /// the two must not become one long gap.
    pub fn note(&mut self, gap: Gap) {
        let from = self.gaps.last().map_or(gap.from, |last| gap.from.max(last.to));
        if from < gap.to {
            self.gaps.push(Gap { from, to: gap.to });
        }
        if self.gaps.len() > KEPT {
            self.forget_a_proof(gap.to);
        }
    }

    /// Merges two gaps. The time between them then counts as unproven, so that no instance is pruned because of a
    /// proof that was dropped.
    ///
    /// It merges the two gaps that are closest together in relation to their age: a short ttl needs the last minutes
    /// in detail, and a long ttl does not. If only the distance counted, the newest gaps would be merged again and
    /// again once there have been very many. The silence of a dead instance would then disappear in one long gap.
    fn forget_a_proof(&mut self, now: MonotonicTime) {
        let of = |n: usize| {
            let between = self.gaps[n + 1].from.since(self.gaps[n].to);
            (between.as_millis(), now.since(self.gaps[n].to).as_millis())
        };
        // As fractions: a / b < c / d.
        let closest = (0..self.gaps.len() - 1)
            .map(|n| (n, of(n)))
            .min_by(|(_, (a, b)), (_, (c, d))| (a * d).cmp(&(c * b)));
        if let Some((n, _)) = closest {
            self.gaps[n].to = self.gaps.remove(n + 1).to;
        }
    }

    /// The gaps that ended after this moment, in their order.
    pub fn gaps_since(&self, moment: MonotonicTime) -> impl Iterator<Item = Gap> {
        self.gaps[self.gaps.partition_point(|gap| gap.to <= moment)..].iter().copied()
    }

    /// The time that is proven by both.
    pub fn and(&self, other: &Self) -> Self {
        if other.gaps.is_empty() {
            return self.clone();
        }
        let mut all: Vec<Gap> = self.gaps.iter().chain(&other.gaps).copied().collect();
        all.sort_by_key(|gap| (gap.from, gap.to));
        let mut gaps: Vec<Gap> = Vec::with_capacity(all.len());
        for gap in all {
            match gaps.last_mut() {
                Some(last) if gap.from < last.to => last.to = last.to.max(gap.to),
                _ => gaps.push(gap),
            }
        }
        Self { gaps }
    }

    /// The moment from which the silence of an instance may count as death (L1, L3, L5).
    ///
    /// Without gaps, that is one ttl after it fell silent. A gap of at most [`Pace::tolerance`] is ignored. One of at
    /// most (ttl − interval)/2 adds its own length, because the instance could beat in the rest of its slack. A longer
    /// gap moves the deadline to its end + ttl, because all retries within the slack may have fallen into it.
    ///
    /// If an earlier process has proven a part of the silence, only the rest of the ttl remains, but at least 1.1 ×
    /// interval, because the length of the time between the two processes is unknown. In any case, 2×ttl of proven
    /// silence are enough, so that a path that breaks repeatedly cannot keep a dead instance forever.
    pub fn deadline(&self, silence: Silence, pace: Pace) -> MonotonicTime {
        let Silence { since, before } = silence;
        let Pace { ttl, interval } = pace;
        let rest = ttl.saturating_sub(before).max((interval * 11 / 10).min(ttl));
        let mut deadline = since + rest;
        let mut enough = since + (ttl * 2).saturating_sub(before);
        for gap in self.gaps.iter().filter(|gap| gap.to > since) {
            let from = gap.from.max(since);
            if from >= deadline {
                break;
            }
            let length = gap.to.since(from);
            if length <= pace.tolerance() {
                continue;
            }
            // A gap that begins after `enough` cannot move it: the silence was proven before.
            if from < enough {
                enough = enough + length;
            }
            deadline = if length <= pace.slack() / 2 { deadline + length } else { gap.to + ttl };
        }
        deadline.min(enough)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    fn gaps(gaps: &[(u64, u64)]) -> ProvenTime {
        ProvenTime::with_gaps(
            gaps.iter().map(|&(from, to)| Gap { from: at(from), to: at(to) }).collect(),
        )
    }

    /// The deadline of an instance that fell silent at second 100.
    fn deadline(proven: &ProvenTime) -> MonotonicTime {
        proven.deadline(Silence { since: at(100), before: Duration::ZERO }, PACE)
    }

    /// The same after this many seconds of silence that an earlier process has proven.
    fn inherited(proven: &ProvenTime, before: u64) -> MonotonicTime {
        proven.deadline(Silence { since: at(100), before: Duration::from_secs(before) }, PACE)
    }

    #[test]
    fn without_a_gap_the_deadline_is_the_last_beat_plus_ttl() {
        assert_eq!(deadline(&ProvenTime::without_gaps()), at(130));
    }

    #[test]
    fn a_stretch_within_the_tolerance_is_no_gap() {
        assert_eq!(PACE.tolerance(), Duration::from_millis(7500));
        assert_eq!(deadline(&gaps(&[(105, 112)])), at(130));
    }

    #[test]
    fn a_short_gap_adds_its_own_length() {
        assert_eq!(deadline(&gaps(&[(105, 115)])), at(140));
    }

    #[test]
    fn a_long_gap_gives_a_full_ttl_from_the_recovery() {
        assert_eq!(deadline(&gaps(&[(105, 116)])), at(146));
    }

    #[test]
    fn a_gap_that_overlaps_the_last_one_adds_what_lies_behind_it() {
        let mut proven = ProvenTime::without_gaps();
        for (from, to) in [(105, 110), (108, 112), (109, 112), (120, 121)] {
            proven.note(Gap { from: at(from), to: at(to) });
        }
        assert_eq!(proven, gaps(&[(105, 110), (110, 112), (120, 121)]));
    }

    #[test]
    fn of_too_many_gaps_some_become_one_so_that_nothing_unproven_is_forgotten() {
        let mut proven = ProvenTime::without_gaps();
        for n in 0..10_000 {
            proven.note(Gap { from: at(10 * n), to: at(10 * n + 1) });
        }
        assert_eq!(proven.gaps.len(), KEPT);
        assert_eq!(proven.gaps.first().map(|gap| gap.from), Some(at(0)));
        assert_eq!(proven.gaps.last().map(|gap| gap.to), Some(at(99_991)));
    }

    #[test]
    fn after_many_gaps_a_silent_instance_is_measured_by_the_latest_ones() {
        let (mut proven, mut all, mut now) = (ProvenTime::without_gaps(), Vec::new(), 0);
        // One gap per half minute on average, at random moments, for four days.
        let mut random = 1_u64;
        for _ in 0..12_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += 1000 + (random >> 33) % 58_000;
            let gap = Gap {
                from: MonotonicTime::from_millis(now),
                to: MonotonicTime::from_millis(now + 600),
            };
            now += 600;
            proven.note(gap);
            all.push(gap);
        }
        let all = ProvenTime::with_gaps(all);
        for ttl in [2, 90, 600].map(Duration::from_secs) {
            let pace = Pace { ttl, interval: ttl / 3 };
            let silence =
                Silence { since: MonotonicTime::from_millis(now) - ttl, before: Duration::ZERO };
            let (kept, exact) = (proven.deadline(silence, pace), all.deadline(silence, pace));
            assert!(kept >= exact, "no instance is pruned for what is forgotten");
            assert!(kept.since(exact) <= ttl / 20, "ttl {ttl:?}: {:?} later", kept.since(exact));
        }
    }

    #[test]
    fn what_is_proven_by_both_lacks_the_gaps_of_either() {
        let both = gaps(&[(10, 20), (40, 50)]).and(&gaps(&[(15, 30), (35, 36), (50, 60)]));
        assert_eq!(both, gaps(&[(10, 30), (35, 36), (40, 50), (50, 60)]));
    }

    #[test]
    fn a_gap_before_the_beat_or_after_the_deadline_changes_nothing() {
        assert_eq!(deadline(&gaps(&[(50, 99), (131, 190)])), at(130));
    }

    #[test]
    fn only_the_part_of_a_gap_after_the_beat_counts() {
        assert_eq!(deadline(&gaps(&[(50, 108)])), at(138));
    }

    #[test]
    fn twice_ttl_of_proven_silence_is_enough_whatever_the_gaps() {
        // Six gaps of 12 s; each alone would move the deadline by a full ttl.
        let many: Vec<_> = (0..6).map(|n| (110 + 30 * n, 122 + 30 * n)).collect();
        // ProvenTime: 10 s, then 18 s between each two gaps; together they reach 60 s in the fourth stretch.
        assert_eq!(deadline(&gaps(&many)), at(100 + 60 + 3 * 12));
    }

    #[test]
    fn of_a_silence_that_an_earlier_process_counted_the_rest_is_left() {
        assert_eq!(inherited(&ProvenTime::without_gaps(), 12), at(118));
    }

    #[test]
    fn a_restart_leaves_time_for_one_beat_at_least() {
        assert_eq!(inherited(&ProvenTime::without_gaps(), 25), at(111));
        assert_eq!(inherited(&ProvenTime::without_gaps(), 45), at(111));
    }

    #[test]
    fn restarts_keep_no_dead_instance_beyond_two_ttls_of_proven_silence() {
        assert_eq!(inherited(&ProvenTime::without_gaps(), 55), at(105));
        assert_eq!(inherited(&ProvenTime::without_gaps(), 60), at(100));
        assert_eq!(inherited(&ProvenTime::without_gaps(), 600), at(100));
    }
}
