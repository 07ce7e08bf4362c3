//! Time that no timer counts: a machine is suspended, or a virtual machine is paused.
//!
//! `Instant`, and so each timer, uses CLOCK_MONOTONIC on Linux, which stands still while the machine is
//! suspended. CLOCK_BOOTTIME continues. If CLOCK_BOOTTIME has gained on CLOCK_MONOTONIC, the machine was
//! suspended, and everything that was due meanwhile is due now. A paused virtual machine often sees the pause
//! on neither clock; when it runs again, its wall clock is set forward. A person may have set the wall clock
//! as well, so this is only a reason to act early, and no proof that time has passed.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep_until};

/// While it waits, it reads the clocks about ten times; these are the shortest and the longest pause between
/// two readings.
const READ_EVERY_MIN: Duration = Duration::from_millis(50);
const READ_EVERY_MAX: Duration = Duration::from_secs(5);
/// The shortest suspend that is recognised, in nanoseconds.
const SUSPENDED_LEAST: i128 = 50_000_000;
/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(86_400 * 365);
/// The smallest step of the wall clock that counts, in nanoseconds. A smaller one is an ordinary correction.
const SET_LEAST: i128 = 1_000_000_000;

/// The clocks of the machine, in nanoseconds; each counts from a different moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// CLOCK_REALTIME.
    pub wall: i128,
    /// CLOCK_BOOTTIME.
    pub boot: i128,
    /// CLOCK_MONOTONIC, which timers use. It is read last: if the process is stopped between two readings,
    /// the other clocks are behind, and never ahead.
    pub timers: i128,
}

impl Clocks {
    /// Reads the clocks.
    pub fn now() -> Self {
        let read = |clock| {
            let now = clock_gettime(clock);
            i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
        };
        #[cfg(target_os = "linux")]
        const BOOT: ClockId = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const BOOT: ClockId = ClockId::Monotonic;
        let (wall, boot) = (read(ClockId::Realtime), read(BOOT));
        Self { wall, boot, timers: read(ClockId::Monotonic) }
    }
}

/// The time that no timer has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostTime {
    /// How long the machine was suspended.
    pub suspended: Duration,
    /// By how much the wall clock was set forward.
    pub set_forward: Duration,
}

/// Follows the clocks.
#[derive(Debug)]
pub struct SuspendDetector {
    read: fn() -> Clocks,
    /// How far CLOCK_BOOTTIME was ahead of the clock of the timers; it can only gain.
    boot: i128,
    wall: i128,
}

impl Default for SuspendDetector {
    fn default() -> Self {
        Self::by(Clocks::now)
    }
}

impl SuspendDetector {
    fn by(read: fn() -> Clocks) -> Self {
        let Clocks { wall, boot, timers } = read();
        Self { read, boot: boot - timers, wall: wall - timers }
    }

    /// Returns the time that was lost since the last look.
    pub fn look(&mut self, now: Clocks) -> LostTime {
        let (boot, wall) = (now.boot - now.timers, now.wall - now.timers);
        let nanos = |gained: i128, least: i128| {
            let gained = if gained < least { 0 } else { gained };
            Duration::from_nanos(u64::try_from(gained).unwrap_or(u64::MAX))
        };
        let suspended = nanos(boot - self.boot, SUSPENDED_LEAST);
        let set_forward = nanos(wall - self.wall, SET_LEAST);
        self.boot = self.boot.max(boot);
        self.wall = wall;
        LostTime { suspended, set_forward }
    }

    /// Waits until `due`, or for less if time was lost since the last look. When this future is cancelled, no
    /// lost time is forgotten.
    pub async fn sleep_until(&mut self, due: Instant) -> Option<LostTime> {
        let left = due.saturating_duration_since(Instant::now());
        let every = (left / 10).clamp(READ_EVERY_MIN, READ_EVERY_MAX);
        loop {
            let lost = self.look((self.read)());
            if lost != LostTime::default() {
                return Some(lost);
            }
            let now = Instant::now();
            if now >= due {
                return None;
            }
            sleep_until(due.min(now + every)).await;
        }
    }
}

/// Sleeps for this long, counting the time in which the machine is suspended.
pub async fn sleep(pause: Duration) {
    let (mut suspend_detector, now) = (SuspendDetector::default(), Instant::now());
    let mut due = now.checked_add(pause).unwrap_or(now + NEVER);
    while let Some(lost) = suspend_detector.sleep_until(due).await {
        due = earlier(due, lost.suspended);
    }
}

/// Moves a moment back by the time that was lost.
pub fn earlier(at: Instant, lost: Duration) -> Instant {
    // The result would be before the range of the clock.
    at.checked_sub(lost).unwrap_or_else(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

    const SECOND: i128 = 1_000_000_000;

    fn clocks(wall: i128, boot: i128, timers: i128) -> Clocks {
        Clocks { wall: wall * SECOND, boot: boot * SECOND, timers: timers * SECOND }
    }

    fn suspend_detector(now: Clocks) -> SuspendDetector {
        SuspendDetector {
            read: Clocks::now,
            boot: now.boot - now.timers,
            wall: now.wall - now.timers,
        }
    }

    fn lost(suspended: u64, set_forward: u64) -> LostTime {
        let secs = Duration::from_secs;
        LostTime { suspended: secs(suspended), set_forward: secs(set_forward) }
    }

    #[test]
    fn what_the_timers_did_not_count_is_lost_and_is_told_once() {
        let mut suspend_detector = suspend_detector(clocks(1000, 20, 10));
        assert_eq!(suspend_detector.look(clocks(1005, 25, 15)), lost(0, 0));
        // The machine was suspended for an hour, and the wall clock was right all the time.
        assert_eq!(suspend_detector.look(clocks(4606, 3626, 16)), lost(3600, 3600));
        assert_eq!(suspend_detector.look(clocks(4607, 3627, 17)), lost(0, 0));
        // A virtual machine was paused, and later a person set the clock back.
        assert_eq!(suspend_detector.look(clocks(4668, 3628, 18)), lost(0, 60));
        assert_eq!(suspend_detector.look(clocks(4009, 3629, 19)), lost(0, 0));
        assert_eq!(suspend_detector.look(clocks(4010, 3630, 20)), lost(0, 0));
    }

    /// The clocks are read one after the other.
    #[test]
    fn a_process_that_is_stopped_between_two_readings_was_not_suspended() {
        let mut suspend_detector = suspend_detector(clocks(1000, 20, 10));
        suspend_detector.look(clocks(1001, 21, 31));
        assert_eq!(suspend_detector.look(clocks(1022, 42, 32)).suspended, Duration::ZERO);
    }

    #[test]
    fn the_clocks_of_this_machine_agree_while_it_runs() {
        let mut suspend_detector = SuspendDetector::default();
        for _ in 0..100 {
            assert_eq!(suspend_detector.look(Clocks::now()).suspended, Duration::ZERO);
            std::thread::yield_now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_is_told_of_a_suspend_long_before_its_timer_ends() {
        static SUSPENDED: AtomicI64 = AtomicI64::new(0);
        let read = || {
            let ahead = i128::from(SUSPENDED.load(SeqCst));
            clocks(ahead, ahead, 0)
        };
        let (mut suspend_detector, began) = (SuspendDetector::by(read), Instant::now());
        let due = began + Duration::from_secs(20);
        assert_eq!(suspend_detector.sleep_until(due).await, None);
        assert_eq!(began.elapsed(), Duration::from_secs(20));

        let (began, due) = (Instant::now(), Instant::now() + Duration::from_secs(20));
        tokio::spawn(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            SUSPENDED.store(600, SeqCst);
        });
        assert_eq!(suspend_detector.sleep_until(due).await, Some(lost(600, 600)));
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        // Time that is lost while nothing sleeps is reported at once.
        SUSPENDED.store(700, SeqCst);
        let began = Instant::now();
        assert_eq!(suspend_detector.sleep_until(due).await, Some(lost(100, 100)));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
