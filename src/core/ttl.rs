//! Which ttl an instance is measured by while the spec changes (L8).

use std::time::Duration;

use super::moment::Moment;

/// The ttls a registration had. A longer one applies at once; a shorter one to each instance from
/// its next beat, since until then the instance may still keep the old rhythm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlHistory {
    current: Duration,
    /// Longer ones of the past with the moment they ended: ends rise, ttls fall.
    longer: Vec<(Moment, Duration)>,
    /// Who was silent since before this had outlived a ttl when it was replaced by a longer one.
    outlived: Moment,
}

impl TtlHistory {
    /// Begins with a ttl.
    pub fn new(ttl: Duration) -> Self {
        Self { current: ttl, longer: Vec::new(), outlived: Moment::default() }
    }

    /// Notes the ttl of the spec as of `now`; saying the same again changes nothing.
    pub fn set(&mut self, ttl: Duration, now: Moment) {
        if ttl < self.current {
            self.longer.push((now, self.current));
        }
        if ttl > self.current {
            self.outlived = self.outlived.max(now - self.current);
        }
        self.current = ttl;
        // What is not longer than the present one decides nothing any more.
        self.longer.retain(|&(_, past)| past > ttl);
    }

    /// Whether one that was last seen to beat at `seen` may have been pruned under a shorter ttl than
    /// the one it is measured by now, by whoever led then. When in doubt, yes.
    pub fn may_have_passed(&self, seen: Moment) -> bool {
        seen < self.outlived
    }

    /// The ttl for an instance that was last seen to beat at `seen`.
    pub fn at(&self, seen: Moment) -> Duration {
        self.longer
            .iter()
            .filter(|(ended, _)| *ended > seen)
            .map(|(_, ttl)| *ttl)
            .fold(self.current, Duration::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_shorter_ttl_applies_from_the_next_beat_and_a_longer_one_at_once() {
        let mut ttl = TtlHistory::new(secs(30));
        ttl.set(secs(10), at(100));
        assert_eq!(ttl.at(at(99)), secs(30), "beat before the change");
        assert_eq!(ttl.at(at(100)), secs(10), "beat since");
        ttl.set(secs(60), at(105));
        assert_eq!(ttl.at(at(99)), secs(60));
        assert_eq!(ttl.at(at(104)), secs(60));
    }

    #[test]
    fn of_several_ttls_since_the_last_beat_the_longest_counts() {
        let mut ttl = TtlHistory::new(secs(30));
        ttl.set(secs(20), at(100));
        ttl.set(secs(10), at(110));
        assert_eq!(ttl.at(at(95)), secs(30));
        assert_eq!(ttl.at(at(105)), secs(20));
        assert_eq!(ttl.at(at(115)), secs(10));
    }

    #[test]
    fn who_had_outlived_a_ttl_before_it_became_longer_may_have_been_pruned() {
        let mut ttl = TtlHistory::new(secs(30));
        assert!(!ttl.may_have_passed(at(0)));
        ttl.set(secs(3600), at(100));
        assert!(ttl.may_have_passed(at(69)));
        assert!(!ttl.may_have_passed(at(71)), "still in its ttl when the longer one came");
        ttl.set(secs(10), at(200));
        ttl.set(secs(60), at(205));
        assert!(ttl.may_have_passed(at(194)));
        assert!(!ttl.may_have_passed(at(196)));
    }

    #[test]
    fn the_history_does_not_grow_with_the_number_of_edits() {
        let mut ttl = TtlHistory::new(secs(30));
        for n in 0..1000 {
            ttl.set(secs(20 + n % 10), at(100 + n * 60));
        }
        assert!(ttl.longer.len() < 10, "{}", ttl.longer.len());
    }
}
