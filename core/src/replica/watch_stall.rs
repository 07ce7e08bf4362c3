//! Whether a watch delivers what is known to have been written.
//!
//! A watch can be deaf without an error: its connection hangs; or the store went back to an earlier state, and the
//! watch was restarted at a version in the future. This is detected by what the watch has not delivered: a write of
//! the operator that was answered, or the object because of which a write was refused.

use std::time::Duration;

/// If a watch owes an object for this long and has delivered none that it owes, it is restarted with a list.
pub const RELIST_AFTER: Duration = Duration::from_secs(15);
/// After this time, the process should be restarted, whatever else was tried: `/livez` fails.
pub const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Checks one watch.
#[derive(Debug, Clone, Default)]
pub struct DeliveryCheck {
    owed: Option<u64>,
    silent: Duration,
    next_list: Duration,
}

impl DeliveryCheck {
    /// `owed` identifies what the watch should have delivered. It changes once the watch has delivered any of it.
    /// `passed` is how long this process has run since the last call. Returns whether the watch must be restarted.
    pub fn check(&mut self, owed: Option<u64>, passed: Duration) -> bool {
        if owed.is_none() || owed != self.owed {
            *self = Self { owed, silent: Duration::ZERO, next_list: RELIST_AFTER };
            return false;
        }
        self.silent += passed;
        let due = self.silent >= self.next_list;
        if due {
            self.next_list = self.silent + RELIST_AFTER;
        }
        due
    }

    /// How long the watch has owed something without delivering any of it, if this is longer than [`STALLED_AFTER`].
    pub fn stalled_for(&self) -> Option<Duration> {
        (self.silent >= STALLED_AFTER).then_some(self.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Calls `listen` each second until a list is requested.
    fn seconds_until_a_list(check: &mut DeliveryCheck, owed: Option<u64>) -> Option<u32> {
        (1..100).find(|_| check.check(owed, SECOND))
    }

    #[test]
    fn a_watch_without_missing_events_is_not_stuck() {
        let mut check = DeliveryCheck::default();
        assert_eq!(seconds_until_a_list(&mut check, None), None);
        assert!((0..100).all(|n| !check.check(Some(n), SECOND)), "each time another debt");
        assert_eq!(check.stalled_for(), None);
    }

    #[test]
    fn a_watch_without_events_is_relisted_repeatedly_and_finally_ends_the_process() {
        let mut check = DeliveryCheck::default();
        assert!(!check.check(Some(7), SECOND));
        assert_eq!(seconds_until_a_list(&mut check, Some(7)), Some(15));
        assert_eq!(seconds_until_a_list(&mut check, Some(7)), Some(15));
        assert_eq!(check.stalled_for(), None, "30 s");
        for _ in 0..30 {
            check.check(Some(7), SECOND);
        }
        assert_eq!(check.stalled_for(), Some(STALLED_AFTER));
        check.check(None, SECOND);
        assert_eq!(check.stalled_for(), None);
    }
}
