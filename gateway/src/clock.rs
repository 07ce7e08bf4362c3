//! The clocks of a gateway.

use std::time::Duration;

use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use jiff::Timestamp;
use tokio::time::Instant;

/// The clocks of this process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall: fn() -> Timestamp,
}

impl Clock {
    /// The clocks of this machine. The monotonic clock begins now.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: Timestamp::now }
    }

    /// The present on the monotonic clock.
    pub fn now(&self) -> MonotonicTime {
        MonotonicTime::from_start(self.start.elapsed())
    }

    /// The moment of the runtime's timers for a moment of [`Self::now`].
    pub fn instant(&self, at: MonotonicTime) -> Instant {
        self.start + at.since(MonotonicTime::from_start(Duration::ZERO))
    }

    /// The wall clock, in seconds since 1970. Only tokens are compared with it.
    pub fn wall_seconds(&self) -> i64 {
        (self.wall)().as_second()
    }
}
