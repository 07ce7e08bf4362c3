//! Whether a watch delivers what is known to have been written.
//!
//! A watch can be deaf without an error: its connection hangs; or the store went back to an earlier state, and the
//! watch was restarted at a version in the future. This is detected by what the watch has not delivered: a write of
//! the operator that was answered, or the object because of which a write was refused.

use std::time::Duration;

/// If a watch owes an object for this long and has delivered none that it owes, it is restarted with a list.
pub const LISTED_ANEW_AFTER: Duration = Duration::from_secs(15);
/// After this time, the process should be restarted, whatever else was tried: `/livez` fails.
pub const DEAF_AFTER: Duration = Duration::from_secs(60);

/// Checks one watch.
#[derive(Debug, Clone, Default)]
pub struct Ear {
    owed: Option<u64>,
    silent: Duration,
    next_list: Duration,
}

impl Ear {
    /// `owed` identifies what the watch should have delivered. It changes once the watch has delivered any of it.
    /// `passed` is how long this process has run since the last call. Returns whether the watch must be restarted.
    pub fn listen(&mut self, owed: Option<u64>, passed: Duration) -> bool {
        if owed.is_none() || owed != self.owed {
            *self = Self { owed, silent: Duration::ZERO, next_list: LISTED_ANEW_AFTER };
            return false;
        }
        self.silent += passed;
        let due = self.silent >= self.next_list;
        if due {
            self.next_list = self.silent + LISTED_ANEW_AFTER;
        }
        due
    }

    /// How long the watch has owed something without delivering any of it, if this is longer than [`DEAF_AFTER`].
    pub fn deaf_for(&self) -> Option<Duration> {
        (self.silent >= DEAF_AFTER).then_some(self.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Calls `listen` each second until a list is requested.
    fn seconds_until_a_list(ear: &mut Ear, owed: Option<u64>) -> Option<u32> {
        (1..100).find(|_| ear.listen(owed, SECOND))
    }

    #[test]
    fn a_watch_that_owes_nothing_or_pays_is_not_deaf() {
        let mut ear = Ear::default();
        assert_eq!(seconds_until_a_list(&mut ear, None), None);
        assert!((0..100).all(|n| !ear.listen(Some(n), SECOND)), "each time another debt");
        assert_eq!(ear.deaf_for(), None);
    }

    #[test]
    fn one_that_brings_nothing_is_listed_anew_again_and_again_and_ends_the_process_at_last() {
        let mut ear = Ear::default();
        assert!(!ear.listen(Some(7), SECOND));
        assert_eq!(seconds_until_a_list(&mut ear, Some(7)), Some(15));
        assert_eq!(seconds_until_a_list(&mut ear, Some(7)), Some(15));
        assert_eq!(ear.deaf_for(), None, "30 s");
        for _ in 0..30 {
            ear.listen(Some(7), SECOND);
        }
        assert_eq!(ear.deaf_for(), Some(DEAF_AFTER));
        ear.listen(None, SECOND);
        assert_eq!(ear.deaf_for(), None);
    }
}
