//! The only place below the command line that asks what time it is.

use std::time::{Duration, Instant};

use crate::core::{moment::Moment, status::Clocks};

/// How close a moment has to be to be waited for to the tenth of a millisecond. Whoever sets a timer of the
/// runtime for it sets it this much earlier.
pub(super) const NEAR: Duration = Duration::from_millis(3);

/// The clocks of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The present on the monotonic clock.
    pub(super) fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    /// Waits for a moment that is near; one that is past, or further away than [`NEAR`], is not waited for.
    ///
    /// The runtime's timers count whole milliseconds and round up, so that what they wake comes one or two
    /// too late. A thread is woken to the tenth of one.
    pub(super) async fn reach(&self, moment: Moment) {
        let left = moment.since(self.now());
        if !left.is_zero() && left <= NEAR {
            // Fails only when the runtime ends.
            let _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
        }
    }

    /// The present on both clocks.
    pub(super) fn clocks(&self) -> Clocks {
        Clocks { now: self.now(), wall: jiff::Timestamp::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_that_is_near_has_come_when_it_is_reached_and_a_far_one_is_not_waited_for() {
        let clock = Clock::start();
        for _ in 0..20 {
            let near = clock.now() + NEAR / 2;
            clock.reach(near).await;
            assert!(clock.now() >= near);
        }
        let far = clock.now() + Duration::from_secs(3600);
        clock.reach(far).await;
        assert!(clock.now() < far);
    }
}
