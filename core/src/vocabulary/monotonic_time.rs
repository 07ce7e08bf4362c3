//! Moments on the controller's own monotonic clock.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A moment on the monotonic clock of this process (L1). By design, it cannot be compared with a wall clock or the
/// clock of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicTime(Duration);

impl MonotonicTime {
    /// The moment that is `since_start` after the start of the clock.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment this many milliseconds after the start of the clock, for tests and simulation.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for MonotonicTime {
    type Output = Self;

    /// Saturates at the largest value: such a deadline never comes.
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for MonotonicTime {
    type Output = Self;

    /// Saturates at the start of the clock.
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}
