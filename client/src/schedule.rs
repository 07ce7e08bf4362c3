//! When to beat, how long to wait for an answer, and when to try again.
//!
//! Nothing here draws random numbers: the caller passes a `roll` from 0 up to, but not including, 1.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, duration, duration::ParseDurationError};

/// The shortest and the longest pause before another try.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// The longest pause while the registration cannot be read and its ttl is unknown: a new instance should not
/// be late for long.
const RETRY_MAX_UNKNOWN: Duration = Duration::from_secs(5);
/// The shortest timeout of a request: a busy API server takes this long for one patch in a hundred, and a
/// shorter timeout would only add load.
const TIMEOUT_MIN: Duration = Duration::from_millis(250);
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// The shortest interval a registration may have.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The ttl and the interval of a registration, as one instance follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    ttl: Duration,
    interval: Duration,
}

/// Why a registration gives no usable pace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaceError {
    /// spec.ttl is malformed.
    #[error("spec.ttl: {0}")]
    Ttl(#[source] ParseDurationError),
    /// spec.interval is malformed.
    #[error("spec.interval: {0}")]
    Interval(#[source] ParseDurationError),
    /// The interval is too short, or not shorter than the ttl.
    #[error("spec.interval {} must be at least 100ms and shorter than spec.ttl {}",
        duration::format(*interval), duration::format(*ttl))]
    OutOfRange {
        /// spec.interval
        interval: Duration,
        /// spec.ttl
        ttl: Duration,
    },
}

impl Pace {
    /// Takes the pace from the registration. `wanted` may be a shorter interval. A longer one gives way to
    /// the registration's interval: with it the instance would rightly be pruned.
    ///
    /// # Errors
    /// [`PaceError`]: the API server refuses such a spec, but an older CRD may have let it through.
    pub fn of(
        registration: &ServiceRegistration,
        wanted: Option<Duration>,
    ) -> Result<Self, PaceError> {
        let ttl = duration::parse(&registration.spec.ttl).map_err(PaceError::Ttl)?;
        let interval = duration::parse(&registration.spec.interval).map_err(PaceError::Interval)?;
        Self::new(ttl, interval, wanted)
    }

    /// Takes the pace from a ttl and an interval, as a gateway tells them. `wanted` as in [`of`](Self::of).
    ///
    /// # Errors
    /// [`PaceError::OutOfRange`].
    pub fn new(
        ttl: Duration,
        interval: Duration,
        wanted: Option<Duration>,
    ) -> Result<Self, PaceError> {
        if interval < INTERVAL_MIN || interval >= ttl {
            return Err(PaceError::OutOfRange { interval, ttl });
        }
        Ok(Self { ttl, interval: wanted.map_or(interval, |wanted| wanted.min(interval)) })
    }

    /// How long the instance may be silent.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How often it beats.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How late a beat may be before the instance is pruned.
    fn slack(&self) -> Duration {
        self.ttl - self.interval
    }

    /// leaseDurationSeconds: the ttl in whole seconds, rounded up.
    pub fn lease_duration_seconds(&self) -> i32 {
        let seconds = self.ttl.as_secs() + u64::from(self.ttl.subsec_nanos() > 0);
        i32::try_from(seconds).unwrap_or(i32::MAX)
    }

    /// The pause from one beat to the next: the interval ± one tenth, so that a thousand instances that
    /// started together do not beat together. On average it is the interval itself. If the interval is close
    /// to the ttl, the jitter shrinks to a quarter of the slack.
    pub fn pause(&self, roll: f64) -> Duration {
        let spread = (self.interval / 10).min(self.slack() / 4);
        self.interval - spread + (spread * 2).mul_f64(roll)
    }

    /// The pause from the first beat to the second, and after a time in which beats failed: anything from
    /// zero to the interval. If one event makes many instances beat at once (a deployment, or an API server
    /// that is back), this spreads them over the whole interval.
    pub fn phase(&self, roll: f64) -> Duration {
        self.interval.mul_f64(roll)
    }

    /// How late a beat may be before this is reported.
    pub fn punctuality(&self) -> Duration {
        (self.interval / 10).max(Duration::from_millis(50))
    }

    /// The timeout of one request: short enough for another request before the ttl has passed.
    pub fn request_timeout(&self) -> Duration {
        self.interval.min(self.slack() / 2).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// The longest pause between two tries: four such pauses fit between interval and ttl.
    fn retry_max(&self) -> Duration {
        (self.slack() / 4).clamp(RETRY_FIRST, RETRY_MAX)
    }
}

/// How much time there is before the next try has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// The longest pause of our own backoff.
    own: Duration,
    /// The longest pause that the API server may ask for.
    asked: Duration,
}

impl RetryLimits {
    /// The room before the registration was read, when its ttl is unknown.
    pub const UNKNOWN: Self = Self { own: RETRY_MAX_UNKNOWN, asked: RETRY_MAX_UNKNOWN };

    /// The room between beats. `silent` is the time since the last accepted beat; `None` before the first.
    ///
    /// A pause ends early enough for the answer to one more try to come before the ttl has passed. If the
    /// instance cannot be lost any more (no beat was accepted yet, or the ttl has passed), the slack is the
    /// bound.
    pub fn between_beats(pace: &Pace, silent: Option<Duration>) -> Self {
        let own = pace.retry_max();
        let left = silent.map_or(Duration::ZERO, |silent| pace.ttl.saturating_sub(silent));
        let asked = if left.is_zero() {
            pace.slack()
        } else {
            // The bound is at least half of our own longest pause, so that an overloaded server is not
            // flooded even when the ttl is almost over.
            left.saturating_sub(pace.request_timeout()).clamp(own / 2, pace.slack().max(own / 2))
        };
        Self { own, asked }
    }

    /// The room before a deadline that is `left` away: a pause leaves time for a try after it.
    pub fn until(left: Duration, pace: Option<&Pace>) -> Self {
        let own = pace.map_or(RETRY_MAX_UNKNOWN, Pace::retry_max);
        // The number of tries does not grow shortly before the deadline: the next try would come after it.
        let most = (left / 2).max(RETRY_FIRST);
        Self { own: own.min(most), asked: most }
    }
}

/// Backoff with full jitter (the name that the AWS architecture blog uses): each pause is drawn between zero
/// and a bound that doubles, so that clients that failed together do not retry together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Returns the pause before the next try. `retry_after` is the pause that the API server asked for. The
    /// pause is at least that long and up to half as much longer, because all clients that were sent away got
    /// the same number. A pause that exceeds the room is drawn from the upper half of the room.
    pub fn pause(
        &mut self,
        room: RetryLimits,
        retry_after: Option<Duration>,
        roll: f64,
    ) -> Duration {
        let bound = RETRY_FIRST.saturating_mul(1 << self.tries.min(16)).min(room.own);
        self.tries = self.tries.saturating_add(1);
        let asked = retry_after.unwrap_or_default().min(room.asked);
        let spread = bound.max(asked / 2);
        let (from, to) = if asked + spread > room.asked {
            (asked.min(room.asked / 2), room.asked.min(asked + spread))
        } else {
            (asked, asked + spread)
        };
        // The pause is at least 1 ms: fast failures must never become a busy loop.
        (from + (to - from).mul_f64(roll)).max(Duration::from_millis(1))
    }

    /// Resets the backoff after a success, so that the next failure starts from the shortest pause again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests;
