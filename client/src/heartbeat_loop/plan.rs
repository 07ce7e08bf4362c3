//! When the next beat is due.

use tokio::time::Instant;

use crate::{
    schedule::Backoff,
    suspend::{LostTime, earlier},
};

/// When the next beat is due, and the state that this depends on.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) due: Instant,
    /// The moment from which the pause until the next beat counts.
    pub(super) anchor: Instant,
    pub(super) backoff: Backoff,
    /// The last try has failed, and an earlier one had not.
    pub(super) failing: bool,
    /// The beat is due early, because the machine was suspended or paused. Other machines may have been
    /// paused too.
    pub(super) woken: bool,
}

impl Plan {
    /// The first beat is due at once.
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { due: now, anchor: now, backoff: Backoff::default(), failing: false, woken: false }
    }

    /// Accounts for time that no timer has counted: a beat that is due by now is due at once.
    pub(super) fn account_for(&mut self, lost: LostTime, renews: bool, now: Instant) {
        self.due = earlier(self.due, lost.suspended);
        self.anchor = earlier(self.anchor, lost.suspended);
        if renews && self.due <= now + lost.set_forward {
            self.due = self.due.min(now);
            self.woken = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A plan in which a beat was sent 5 s ago and the next beat is due 20 s after that one.
    fn plan(now: Instant) -> Plan {
        let anchor = now - secs(5);
        Plan { due: anchor + secs(20), anchor, ..Plan::begin() }
    }

    #[test]
    fn after_a_suspend_what_was_due_meanwhile_is_due_at_once() {
        let now = Instant::now() + secs(100);
        let (mut short, mut long) = (plan(now), plan(now));
        short.account_for(LostTime { suspended: secs(10), ..LostTime::default() }, true, now);
        assert_eq!((short.due - now, short.woken), (secs(5), false), "by that much less");
        long.account_for(LostTime { suspended: secs(60), ..LostTime::default() }, true, now);
        assert!(long.due <= now && long.woken);
        assert_eq!(now - long.due, secs(45), "how late it is");
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_makes_a_beat_early_and_not_late() {
        let now = Instant::now() + secs(100);
        let (mut short, mut long, mut once) = (plan(now), plan(now), plan(now));
        short.account_for(LostTime { set_forward: secs(10), ..LostTime::default() }, true, now);
        assert_eq!((short.due - now, short.woken), (secs(15), false));
        long.account_for(LostTime { set_forward: secs(60), ..LostTime::default() }, true, now);
        assert_eq!((long.due, long.woken), (now, true));
        // The process has sent its single beat, and other processes beat for the instance: a clock that is
        // set after the start changes nothing.
        once.account_for(LostTime { set_forward: secs(60), ..LostTime::default() }, false, now);
        assert_eq!(once.due - now, secs(15));
    }
}
