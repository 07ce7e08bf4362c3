//! Whether a watch brings what is known to have been written.
//!
//! A watch can be deaf without an error: its connection hangs, or the store went back to an earlier state, and the
//! watch was begun again at a version in the future. What it has not brought shows that: a write of ours that was
//! answered, or an object that a write of ours was refused for.

use std::time::Duration;

/// A watch that has owed something for this long, and has brought nothing of it, is begun anew with a list.
pub const LISTED_ANEW_AFTER: Duration = Duration::from_secs(15);
/// After this long, whatever was tried, the process is to be started anew: `/livez` fails.
pub const DEAF_AFTER: Duration = Duration::from_secs(60);

/// Listens to one watch.
#[derive(Debug, Clone, Default)]
pub struct Ear {
    owed: Option<u64>,
    silent: Duration,
    next_list: Duration,
}

impl Ear {
    /// `owed` stands for what the watch should have brought; it changes once the watch has brought any of it.
    /// `passed` is how long this process has run since the last call. Returns whether the watch is to be begun anew.
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

    /// How long the watch has owed something without bringing anything of it, where that is too long.
    pub fn deaf_for(&self) -> Option<Duration> {
        (self.silent >= DEAF_AFTER).then_some(self.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Listens each second until a list is wanted.
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
