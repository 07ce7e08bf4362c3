//! The pace at which an instance beats, as far as it shows whether the instance follows an edit of ttl and interval
//! (L8).

use std::time::Duration;

use crate::vocabulary::{monotonic_time::MonotonicTime, pace::Pace};

/// What the index watches for in the beats of an instance. The values are in milliseconds to save memory, because
/// there is one for each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The longest gap between two beats at the present pace.
    gap: u32,
    /// For how long beats must have come without a longer gap until the decision changes; [`u32::MAX`] if the decision
    /// waits for nothing.
    stretch: u32,
}

impl Wanted {
    /// For this pace. `stretch` is the time for which the decision waits, if it waits.
    pub fn at(pace: Pace, stretch: Option<Duration>) -> Self {
        let stretch = stretch.map_or(u32::MAX, |stretch| millis(stretch).min(u32::MAX - 1));
        Self { gap: millis(longest_gap(pace)), stretch }
    }

    /// Whether the decision waits for the instance to follow.
    pub fn is_awaited(self) -> bool {
        self.stretch != u32::MAX
    }
}

/// The interval plus half of the slack. An instance that keeps this pace stays within its ttl.
fn longest_gap(pace: Pace) -> Duration {
    pace.interval.min(pace.ttl) + pace.slack() / 2
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// The pace at which an instance beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// When the instance appeared; the start of the clock if it existed before this process.
    born: MonotonicTime,
    /// Since when no gap between its beats has been longer than [`Wanted`] allows.
    since: MonotonicTime,
    wanted: Wanted,
}

impl Rhythm {
    /// The rhythm of an instance that appears now, or that existed before this process.
    pub(crate) fn begin(now: MonotonicTime, was_there: bool) -> Self {
        let born = if was_there { MonotonicTime::default() } else { now };
        Self { born, since: now, wanted: Wanted { gap: 0, stretch: u32::MAX } }
    }

    /// Records a beat; `before` is when the previous one was seen. Returns whether a decision waits for this beat.
    pub(crate) fn beat(&mut self, before: MonotonicTime, now: MonotonicTime) -> bool {
        if self.is_broken_by(now.since(before)) {
            self.since = now;
            return false;
        }
        self.wanted.is_awaited() && now.since(self.since) >= self.stretch()
    }

    /// Whether a gap of this length between two beats ends the present pace.
    pub(crate) fn is_broken_by(&self, gap: Duration) -> bool {
        millis(gap) > self.wanted.gap
    }

    /// Records what a decision waits for. A new pace is measured from the last beat.
    pub(crate) fn want(&mut self, wanted: Wanted, last_beat: MonotonicTime) {
        if self.wanted.gap != wanted.gap {
            self.since = last_beat;
        }
        self.wanted = wanted;
    }

    fn stretch(&self) -> Duration {
        Duration::from_millis(self.wanted.stretch.into())
    }

    /// When the instance appeared.
    pub fn born(&self) -> MonotonicTime {
        self.born
    }

    /// For how long the instance has kept a pace, up to its last beat.
    pub fn kept(&self, pace: Pace, last_beat: MonotonicTime) -> Duration {
        match self.wanted.gap == millis(longest_gap(pace)) {
            true => last_beat.since(self.since),
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { ttl: Duration::from_secs(10), interval: Duration::from_secs(4) };

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    #[test]
    fn a_pace_is_kept_from_the_last_beat_before_it_was_asked_for_until_a_longer_gap() {
        let mut rhythm = Rhythm::begin(at(0), false);
        assert!(!rhythm.beat(at(0), at(7)), "nothing is asked for");
        rhythm.want(Wanted::at(PACE, Some(Duration::from_secs(20))), at(7));
        assert!(!rhythm.beat(at(7), at(14)));
        assert!(!rhythm.beat(at(14), at(22)), "eight seconds are too long");
        assert_eq!(rhythm.kept(PACE, at(22)), Duration::ZERO);
        let beats: Vec<u64> = (22..=42).step_by(4).collect();
        let told: Vec<bool> =
            beats.windows(2).map(|it| rhythm.beat(at(it[0]), at(it[1]))).collect();
        assert_eq!(told, [false, false, false, false, true]);
        assert_eq!(rhythm.kept(PACE, at(42)), Duration::from_secs(20));
        let other = Pace { ttl: Duration::from_secs(9), ..PACE };
        assert_eq!(rhythm.kept(other, at(42)), Duration::ZERO, "another pace begins anew");
    }
}
