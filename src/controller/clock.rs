//! The only place below the command line that asks what time it is.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use beatkeeper_core::{moment::Moment, status::Clocks};

/// How close a moment has to be to be waited for to the tenth of a millisecond. Whoever sets a timer of the
/// runtime for it sets it this much earlier.
pub(super) const NEAR: Duration = Duration::from_millis(3);

/// The clocks of this process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The runtime's clock, which a test may pause.
    start: Instant,
    wall: fn() -> Timestamp,
    /// Whether a thread is there for what the runtime's timers are too coarse for.
    precise: bool,
}

impl Clock {
    /// Those of this machine; the monotonic one begins now.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: Timestamp::now, precise: true }
    }

    /// The runtime's clock alone, which may be paused, and this wall clock.
    pub fn of_the_runtime(wall: fn() -> Timestamp) -> Self {
        Self { start: Instant::now(), wall, precise: false }
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
        if left.is_zero() || left > NEAR {
            return;
        }
        if self.precise {
            // Fails only when the runtime ends.
            let _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
        } else {
            tokio::time::sleep(left).await;
        }
    }

    /// The present on the wall clock.
    pub(super) fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// The present on both clocks.
    pub(super) fn clocks(&self) -> Clocks {
        Clocks { now: self.now(), wall: self.wall() }
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

    #[tokio::test(start_paused = true)]
    async fn on_a_paused_clock_of_the_runtime_a_near_moment_is_reached_and_no_thread_sleeps() {
        let clock = Clock::of_the_runtime(|| Timestamp::UNIX_EPOCH);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let near = clock.now() + NEAR;
        clock.reach(near).await;
        assert!(clock.now() >= near && clock.now() < near + NEAR, "{:?}", clock.now());
        assert_eq!(clock.wall(), Timestamp::UNIX_EPOCH);
    }
}
