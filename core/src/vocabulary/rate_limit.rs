//! A rate limit: a burst, followed by a steady rate.

use std::time::Duration;

use crate::vocabulary::monotonic_time::MonotonicTime;

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many times in a row; at least 1.
    pub burst: u32,
    /// The time between two permits after the burst.
    pub every: Duration,
}

/// How much of a [`RateLimit`] has been used. The default is unused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimiter {
    /// When the whole burst is available again.
    full_at: MonotonicTime,
}

impl RateLimiter {
    /// Takes one permit.
    ///
    /// # Errors
    /// The moment at which the next permit is available.
    pub fn take(&mut self, limit: RateLimit, now: MonotonicTime) -> Result<(), MonotonicTime> {
        let RateLimit { burst, every } = limit;
        let full_at = self.full_at.max(now);
        let due = full_at - every * burst.saturating_sub(1);
        if due > now {
            return Err(due);
        }
        self.full_at = full_at + every;
        Ok(())
    }

    /// Whether the whole burst is available.
    pub fn is_full(&self, now: MonotonicTime) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { burst: 3, every: Duration::from_secs(1) };

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime::from_millis(millis)
    }

    #[test]
    fn some_go_at_once_and_the_others_at_a_steady_pace() {
        let mut bucket = RateLimiter::default();
        let taken = (0..10_000).step_by(50).filter(|now| bucket.take(LIMIT, at(*now)).is_ok());
        let taken: Vec<u64> = taken.collect();
        assert_eq!(taken[..5], [0, 50, 100, 1000, 2000]);
        assert_eq!(taken.len(), 12);
    }

    #[test]
    fn it_says_when_there_will_be_one_and_there_is() {
        let mut bucket = RateLimiter::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(LIMIT, at(500)), Ok(()));
        }
        assert_eq!(bucket.take(LIMIT, at(600)), Err(at(1500)));
        assert_eq!(bucket.take(LIMIT, at(1499)), Err(at(1500)));
        assert_eq!(bucket.take(LIMIT, at(1500)), Ok(()));
        assert!(!bucket.is_full(at(4499)));
        assert!(bucket.is_full(at(4500)));
    }
}
