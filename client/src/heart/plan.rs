//! When the next beat is due.

use tokio::time::Instant;

use crate::{
    awake::{Lost, earlier},
    schedule::Backoff,
};

/// When the next beat is due, and what that depends on.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) due: Instant,
    /// From when on the pause until it is counted.
    pub(super) anchor: Instant,
    pub(super) backoff: Backoff,
    /// The last try has failed, and an earlier one had not.
    pub(super) failing: bool,
    /// It is due early, since the machine was suspended or paused, and others perhaps with it.
    pub(super) woken: bool,
}

impl Plan {
    /// The first one is due at once.
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { due: now, anchor: now, backoff: Backoff::default(), failing: false, woken: false }
    }

    /// Time has passed that no timer has counted: what is due by now is due at once.
    pub(super) fn make_up_for(&mut self, lost: Lost, renews: bool, now: Instant) {
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

    /// A beat was sent five seconds ago, and the next one is due twenty seconds after it.
    fn plan(now: Instant) -> Plan {
        let anchor = now - secs(5);
        Plan { due: anchor + secs(20), anchor, ..Plan::begin() }
    }

    #[test]
    fn after_a_suspend_what_was_due_meanwhile_is_due_at_once() {
        let now = Instant::now() + secs(100);
        let (mut short, mut long) = (plan(now), plan(now));
        short.make_up_for(Lost { suspended: secs(10), ..Lost::default() }, true, now);
        assert_eq!((short.due - now, short.woken), (secs(5), false), "by that much less");
        long.make_up_for(Lost { suspended: secs(60), ..Lost::default() }, true, now);
        assert!(long.due <= now && long.woken);
        assert_eq!(now - long.due, secs(45), "how late it is");
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_makes_a_beat_early_and_not_late() {
        let now = Instant::now() + secs(100);
        let (mut short, mut long, mut once) = (plan(now), plan(now), plan(now));
        short.make_up_for(Lost { set_forward: secs(10), ..Lost::default() }, true, now);
        assert_eq!((short.due - now, short.woken), (secs(15), false));
        long.make_up_for(Lost { set_forward: secs(60), ..Lost::default() }, true, now);
        assert_eq!((long.due, long.woken), (now, true));
        // Its one beat was sent, and others beat for it: a clock that is set after the start changes nothing.
        once.make_up_for(Lost { set_forward: secs(60), ..Lost::default() }, false, now);
        assert_eq!(once.due - now, secs(15));
    }
}
