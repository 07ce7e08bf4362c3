//! Proven time (L3): the stretches in which a beat could have been written and would have been seen.
//!
//! Silence counts against an instance only while its beats could have arrived. The gaps in between,
//! when the API server was away, the watch had broken or this process was suspended, move its
//! deadline.

use std::time::Duration;

use super::moment::Moment;

/// A stretch in which nothing is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last moment that was proven.
    pub from: Moment,
    /// The first moment that was proven again.
    pub to: Moment,
}

/// So many gaps are kept.
const KEPT: usize = 256;

/// What is proven of the past: everything but the gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proven {
    gaps: Vec<Gap>,
}

impl Proven {
    /// All of the past is proven.
    pub fn without_gaps() -> Self {
        Self::default()
    }

    /// All of the past is proven but these gaps, which must be in order and apart.
    pub fn with_gaps(gaps: Vec<Gap>) -> Self {
        Self { gaps }
    }

    /// Notes a gap that has come to its end. One that begins inside the last one known lengthens it.
    pub fn note(&mut self, gap: Gap) {
        match self.gaps.last_mut() {
            Some(last) if gap.from <= last.to => last.to = last.to.max(gap.to),
            _ => self.gaps.push(gap),
        }
        // The oldest lie before the last beat of anyone who is still waited for.
        if self.gaps.len() > KEPT {
            self.gaps.remove(0);
        }
    }

    /// The moment from which the silence of an instance may count as death (L1, L3).
    ///
    /// A gap of at most (ttl − interval)/2 adds its own length: the instance had the rest of its
    /// slack to beat in. A longer one moves the deadline to its end + ttl, since all beats of the
    /// slack may have fallen into it. Whatever the gaps, 2×ttl of proven silence are enough, so that
    /// a path that breaks again and again cannot keep a dead instance for ever.
    pub fn deadline(&self, seen: Moment, ttl: Duration, interval: Duration) -> Moment {
        let short = ttl.saturating_sub(interval) / 2;
        let mut deadline = seen + ttl;
        let mut enough = seen + ttl * 2;
        for gap in self.gaps.iter().filter(|gap| gap.to > seen) {
            let from = gap.from.max(seen);
            if from >= deadline {
                break;
            }
            let length = gap.to.since(from);
            // A gap that begins after `enough` cannot move it: the silence was proven before.
            if from < enough {
                enough = enough + length;
            }
            deadline = if length <= short { deadline + length } else { gap.to + ttl };
        }
        deadline.min(enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn gaps(gaps: &[(u64, u64)]) -> Proven {
        Proven::with_gaps(
            gaps.iter().map(|&(from, to)| Gap { from: at(from), to: at(to) }).collect(),
        )
    }

    #[test]
    fn without_a_gap_the_deadline_is_the_last_beat_plus_ttl() {
        assert_eq!(Proven::without_gaps().deadline(at(100), TTL, INTERVAL), at(130));
    }

    #[test]
    fn a_short_gap_adds_its_own_length() {
        assert_eq!(gaps(&[(105, 115)]).deadline(at(100), TTL, INTERVAL), at(140));
    }

    #[test]
    fn a_long_gap_gives_a_full_ttl_from_the_recovery() {
        assert_eq!(gaps(&[(105, 116)]).deadline(at(100), TTL, INTERVAL), at(146));
    }

    #[test]
    fn gaps_that_meet_are_one() {
        let mut proven = Proven::without_gaps();
        for (from, to) in [(105, 110), (108, 112), (112, 116), (120, 121)] {
            proven.note(Gap { from: at(from), to: at(to) });
        }
        assert_eq!(proven, gaps(&[(105, 116), (120, 121)]));
    }

    #[test]
    fn the_number_of_gaps_that_are_kept_is_bounded() {
        let mut proven = Proven::without_gaps();
        for n in 0..10_000 {
            proven.note(Gap { from: at(10 * n), to: at(10 * n + 1) });
        }
        assert_eq!(proven.gaps.len(), KEPT);
        assert_eq!(proven.gaps.last().map(|gap| gap.to), Some(at(99_991)));
    }

    #[test]
    fn a_gap_before_the_beat_or_after_the_deadline_changes_nothing() {
        assert_eq!(gaps(&[(50, 99), (131, 190)]).deadline(at(100), TTL, INTERVAL), at(130));
    }

    #[test]
    fn only_the_part_of_a_gap_after_the_beat_counts() {
        assert_eq!(gaps(&[(50, 105)]).deadline(at(100), TTL, INTERVAL), at(135));
    }

    #[test]
    fn twice_ttl_of_proven_silence_is_enough_whatever_the_gaps() {
        // Six gaps of 12 s: each alone would give a full ttl anew.
        let many: Vec<_> = (0..6).map(|n| (110 + 30 * n, 122 + 30 * n)).collect();
        // Proven: 10 s, then 18 s between two gaps; 60 s of it are reached in the fourth stretch.
        let deadline = gaps(&many).deadline(at(100), TTL, INTERVAL);
        assert_eq!(deadline, at(100 + 60 + 3 * 12));
    }
}
