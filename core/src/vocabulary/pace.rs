//! The pace of an instance, and its silence.

use std::time::Duration;

use super::monotonic_time::MonotonicTime;

/// A shorter stretch is never a gap. The period of the probes is at least half of it.
pub const SHORTEST_GAP: Duration = Duration::from_millis(500);

/// The longest time for which a broken path holds an instance, in ttls (L6).
const HELD_FOR: u32 = 10;

/// The longest time for which a broken path holds an instance with this ttl (L6).
pub fn held_for(ttl: Duration) -> Duration {
    ttl * HELD_FOR
}

/// The ttl and the interval that a registration sets for its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long an instance may be silent.
    pub ttl: Duration,
    /// How often it beats.
    pub interval: Duration,
}

impl Pace {
    /// How late a beat may be: ttl − interval.
    pub fn slack(self) -> Duration {
        self.ttl.saturating_sub(self.interval)
    }

    /// The longest stretch between two proofs that still counts as proven. After an outage within such a stretch, an
    /// instance has more than half of its slack left to retry.
    pub fn tolerance(self) -> Duration {
        (self.slack() * 3 / 8).max(SHORTEST_GAP)
    }
}

/// How long an instance has been silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Since when, by the monotonic clock of this process.
    pub since: MonotonicTime,
    /// How long it had been silent before, as an earlier process has proven (L5); zero for an instance that has beaten
    /// in this process.
    pub before: Duration,
}

impl Silence {
    /// How long the silence has lasted at `now`.
    pub fn until(self, now: MonotonicTime) -> Duration {
        now.since(self.since) + self.before
    }
}
