//! Time that no timer counts: a machine is suspended, or a virtual machine is paused.
//!
//! `Instant`, and with it each timer, goes by CLOCK_MONOTONIC on Linux, which stands still while the machine is
//! suspended. CLOCK_BOOTTIME does not: where it has run ahead of the other, the machine was suspended, and
//! what was due meanwhile is due now. A paused virtual machine often sees no pause on either clock; when it
//! runs again, its wall clock is set forward. A person may have set it as well, so this is only a reason to act early,
//! and no proof that time has passed.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep_until};

/// While it waits, it looks at the clocks ten times, but at most and at least so often.
const LOOK_LEAST: Duration = Duration::from_millis(50);
const LOOK_MOST: Duration = Duration::from_secs(5);
/// No suspend is shorter.
const SUSPENDED_LEAST: i128 = 50_000_000;
/// Further away than any process lives.
const NEVER: Duration = Duration::from_secs(86_400 * 365);
/// Less is a clock that is kept right.
const SET_LEAST: i128 = 1_000_000_000;

/// What the clocks of the machine show, in nanoseconds; each counts from a moment of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// CLOCK_REALTIME.
    pub wall: i128,
    /// CLOCK_BOOTTIME.
    pub boot: i128,
    /// CLOCK_MONOTONIC, by which timers go. Read last: a process that is stopped between two readings sees the
    /// others behind, and never ahead.
    pub timers: i128,
}

impl Clocks {
    /// As they are.
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

/// What no timer has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// The machine was suspended for so long.
    pub suspended: Duration,
    /// The wall clock was set forward by so much.
    pub set_forward: Duration,
}

/// Follows the clocks.
#[derive(Debug)]
pub struct Awake {
    read: fn() -> Clocks,
    /// By how much the others were ahead of that of the timers: CLOCK_BOOTTIME only gains.
    boot: i128,
    wall: i128,
}

impl Default for Awake {
    fn default() -> Self {
        Self::by(Clocks::now)
    }
}

impl Awake {
    fn by(read: fn() -> Clocks) -> Self {
        let Clocks { wall, boot, timers } = read();
        Self { read, boot: boot - timers, wall: wall - timers }
    }

    /// What was lost since the last look.
    pub fn look(&mut self, now: Clocks) -> Lost {
        let (boot, wall) = (now.boot - now.timers, now.wall - now.timers);
        let nanos = |gained: i128, least: i128| {
            let gained = if gained < least { 0 } else { gained };
            Duration::from_nanos(u64::try_from(gained).unwrap_or(u64::MAX))
        };
        let suspended = nanos(boot - self.boot, SUSPENDED_LEAST);
        let set_forward = nanos(wall - self.wall, SET_LEAST);
        self.boot = self.boot.max(boot);
        self.wall = wall;
        Lost { suspended, set_forward }
    }

    /// Waits until then; or for less, if time was lost since the last look. When cancelled, it forgets nothing.
    pub async fn sleep_until(&mut self, due: Instant) -> Option<Lost> {
        let left = due.saturating_duration_since(Instant::now());
        let every = (left / 10).clamp(LOOK_LEAST, LOOK_MOST);
        loop {
            let lost = self.look((self.read)());
            if lost != Lost::default() {
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

/// Sleeps for so long, whether the machine is suspended meanwhile or not.
pub async fn sleep(pause: Duration) {
    let (mut awake, now) = (Awake::default(), Instant::now());
    let mut due = now.checked_add(pause).unwrap_or(now + NEVER);
    while let Some(lost) = awake.sleep_until(due).await {
        due = earlier(due, lost.suspended);
    }
}

/// A moment, as it is counted after time was lost.
pub fn earlier(at: Instant, lost: Duration) -> Instant {
    // Before any moment that the clock can hold: long ago.
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

    fn awake(now: Clocks) -> Awake {
        Awake { read: Clocks::now, boot: now.boot - now.timers, wall: now.wall - now.timers }
    }

    fn lost(suspended: u64, set_forward: u64) -> Lost {
        let secs = Duration::from_secs;
        Lost { suspended: secs(suspended), set_forward: secs(set_forward) }
    }

    #[test]
    fn what_the_timers_did_not_count_is_lost_and_is_told_once() {
        let mut awake = awake(clocks(1000, 20, 10));
        assert_eq!(awake.look(clocks(1005, 25, 15)), lost(0, 0));
        // Suspended for an hour: the wall clock was right all the time.
        assert_eq!(awake.look(clocks(4606, 3626, 16)), lost(3600, 3600));
        assert_eq!(awake.look(clocks(4607, 3627, 17)), lost(0, 0));
        // A paused virtual machine, and then a clock that somebody sets back.
        assert_eq!(awake.look(clocks(4668, 3628, 18)), lost(0, 60));
        assert_eq!(awake.look(clocks(4009, 3629, 19)), lost(0, 0));
        assert_eq!(awake.look(clocks(4010, 3630, 20)), lost(0, 0));
    }

    /// The clocks are read one after the other.
    #[test]
    fn a_process_that_is_stopped_between_two_readings_was_not_suspended() {
        let mut awake = awake(clocks(1000, 20, 10));
        awake.look(clocks(1001, 21, 31));
        assert_eq!(awake.look(clocks(1022, 42, 32)).suspended, Duration::ZERO);
    }

    #[test]
    fn the_clocks_of_this_machine_agree_while_it_runs() {
        let mut awake = Awake::default();
        for _ in 0..100 {
            assert_eq!(awake.look(Clocks::now()).suspended, Duration::ZERO);
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
        let (mut awake, began) = (Awake::by(read), Instant::now());
        let due = began + Duration::from_secs(20);
        assert_eq!(awake.sleep_until(due).await, None);
        assert_eq!(began.elapsed(), Duration::from_secs(20));

        let (began, due) = (Instant::now(), Instant::now() + Duration::from_secs(20));
        tokio::spawn(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            SUSPENDED.store(600, SeqCst);
        });
        assert_eq!(awake.sleep_until(due).await, Some(lost(600, 600)));
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        // What is lost while nothing sleeps is told at once.
        SUSPENDED.store(700, SeqCst);
        let began = Instant::now();
        assert_eq!(awake.sleep_until(due).await, Some(lost(100, 100)));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
