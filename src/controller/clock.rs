//! The only place below the command line that reads a clock.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use beatkeeper_core::{report::status::Clocks, vocabulary::monotonic_time::MonotonicTime};

/// Within this time a moment can be awaited to a tenth of a millisecond. A timer of the runtime for such a
/// moment is set earlier by this time.
pub(crate) const NEAR: Duration = Duration::from_millis(3);

/// The clocks of this process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The runtime's clock, which a test may pause.
    start: Instant,
    wall: fn() -> Timestamp,
    /// Whether a thread may sleep where the runtime's timers are too coarse.
    precise: bool,
}

impl Clock {
    /// The clocks of this machine. The monotonic clock begins now.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: Timestamp::now, precise: true }
    }

    /// The runtime's clock, which may be paused, without a thread, and this wall clock.
    pub fn of_the_runtime(wall: fn() -> Timestamp) -> Self {
        Self { start: Instant::now(), wall, precise: false }
    }

    /// The present on the monotonic clock.
    pub(crate) fn now(&self) -> MonotonicTime {
        MonotonicTime::from_start(self.start.elapsed())
    }

    /// Waits for a moment that is near. Returns at once if the moment is past or further away than [`NEAR`].
    ///
    /// The runtime's timers count whole milliseconds and round up, so they fire one or two milliseconds too
    /// late. A thread wakes up to a tenth of a millisecond exactly.
    pub(crate) async fn reach(&self, moment: MonotonicTime) {
        let left = moment.since(self.now());
        if left.is_zero() || left > NEAR {
            return;
        }
        if self.precise {
            // This fails only when the runtime ends.
            let _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
        } else {
            tokio::time::sleep(left).await;
        }
    }

    /// The present on the wall clock.
    pub(crate) fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// The wall clock itself.
    pub(crate) fn wall_clock(&self) -> fn() -> Timestamp {
        self.wall
    }

    /// The present on both clocks.
    pub(crate) fn clocks(&self) -> Clocks {
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
