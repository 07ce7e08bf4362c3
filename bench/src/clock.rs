//! One clock for all processes of a run.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on the kernel's monotonic clock, in nanoseconds. Processes on one machine can compare such moments,
/// unlike [`Instant`], and adjustments of the wall clock do not affect them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns the current moment.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        Self(seconds * 1_000_000_000 + nanos)
    }

    /// Returns the moment of an instant in the past.
    pub fn of(instant: Instant) -> Self {
        let ago = u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Self(Self::now().0.saturating_sub(ago))
    }

    /// Returns the seconds from `earlier` to this moment; negative if this moment is before `earlier`.
    pub fn seconds_after(self, earlier: Self) -> f64 {
        (i128::from(self.0) - i128::from(earlier.0)) as f64 / 1e9
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_moment_is_a_negative_number_of_seconds_after() {
        assert_eq!(Moment(1_500_000_000).seconds_after(Moment(1_000_000_000)), 0.5);
        assert_eq!(Moment(1_000_000_000).seconds_after(Moment(1_250_000_000)), -0.25);
        assert_eq!(Moment(1) + Duration::from_secs(2), Moment(2_000_000_001));
    }

    #[test]
    fn an_instant_has_its_moment() {
        let (before, instant) = (Moment::now(), Instant::now());
        std::thread::sleep(Duration::from_millis(2));
        let moment = Moment::of(instant);
        assert!(moment >= before && Moment::now().seconds_after(moment) >= 0.002);
    }
}
