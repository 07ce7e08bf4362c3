//! Whether the store continues from its earlier state, as this replica's own Lease shows it.
//!
//! A store that is restored from a backup goes back: it loses writes, and gives their versions to other writes. A
//! client is not told. A watch that restarts at a version in the future delivers nothing and no error. A watch that
//! restarts at a version that has been reached again delivers only what came after it. So each renewal of the probe
//! checks three things:
//!
//! * A renewal is written on the condition that the Lease is in the state in which the last renewal left it. A store
//!   that has lost that renewal refuses the new one, whatever its versions are.
//! * The answer must not have a lower version than any version of a Lease that was seen before the renewal was sent.
//!   Otherwise versions went back.
//! * The watch must deliver the renewal. Otherwise the watch is deaf.
//!
//! A list of the Leases that shows this Lease at a lower version than was known before the list began shows the same.
//! This matters if the store goes back twice, and this replica renews its probe in neither history in between.

use std::{borrow::Cow, sync::Arc};

use crate::vocabulary::version::Version;

/// This replica's own Lease at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurLease {
    /// Its uid.
    pub uid: Arc<str>,
    /// Its version.
    pub version: Version,
    /// The token of the last renewal.
    pub token: i64,
}

/// What shows that the store has gone back to an earlier state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackSign {
    /// A write was answered with a version below one that had been seen.
    #[error("the probe's renewal was answered with version {}, after {} had been seen", .answered.0, .seen.0)]
    LowerVersion {
        /// The version of the answer.
        answered: Version,
        /// A version that had been seen before.
        seen: Version,
    },
    /// The Lease is not in the state in which this replica left it.
    #[error("the probe's Lease is at version {}, and was left at {}", .found.0, .left.0)]
    Forgotten {
        /// The version that the Lease has.
        found: Version,
        /// The version that this replica left.
        left: Version,
    },
    /// The Lease is gone, although the watch has not shown a deletion.
    #[error("the probe's Lease is gone, without having been deleted")]
    Lost,
    /// The API server answered with a version of this kind below one that had been seen.
    #[error("{kind} are at version {}, after {} was seen", .reached.0, .seen.0)]
    KindWentBack {
        /// The plural of the kind, as in URLs.
        kind: Cow<'static, str>,
        /// The version of the answer.
        reached: Version,
        /// A version that had been seen before.
        seen: Version,
    },
    /// A list contains an object at a version below the one that was known.
    #[error("a list shows an object at a lower version than was known before")]
    ListedObject,
    /// A list contains a Lease at a version below the one that was known.
    #[error("a list shows a Lease at a lower version than was known before")]
    ListedLease,
    /// A read returned an object at a version below the one that was known.
    #[error("a read shows an object at a lower version than was known")]
    ReadObject,
}

/// What is known of this replica's own Lease.
#[derive(Debug, Clone, Default)]
pub struct RollbackDetector {
    /// The Lease after the last renewal that was answered or shown by the watch.
    left: Option<OurLease>,
    /// The first renewal that was answered and that the watch has not shown yet.
    unshown: Option<i64>,
    /// The version of the Lease that was known when the current list began. Absent once the list has shown the Lease.
    before_list: Option<Version>,
    /// What a list has shown, until the caller takes it.
    noticed: Option<RollbackSign>,
}

impl RollbackDetector {
    /// The Lease after the last renewal that was answered or shown; the next renewal is written on this condition. A
    /// renewal that was given up may have been written since. Then the next one is refused, and a read shows the
    /// state.
    pub fn left(&self) -> Option<&OurLease> {
        self.left.as_ref()
    }

    /// A renewal was answered with this state of the Lease. `seen` is the newest version of any Lease that had been
    /// seen when it was sent.
    ///
    /// # Errors
    /// If the store has gone back.
    pub fn answered(&mut self, lease: OurLease, seen: Version) -> Result<(), RollbackSign> {
        if lease.version < seen {
            return Err(RollbackSign::LowerVersion { answered: lease.version, seen });
        }
        // The watch may have shown the renewal before the answer arrived.
        if self.left.as_ref().is_none_or(|left| left.version < lease.version) {
            self.unshown.get_or_insert(lease.token);
            self.left = Some(lease);
        }
        Ok(())
    }

    /// A list of the Leases begins. It is requested after everything that is known now, and shows the newest state.
    pub fn list_begins(&mut self) {
        self.before_list = self.left.as_ref().map(|left| left.version);
    }

    /// Whether a list has shown that the store has gone back, since the last call of this method.
    pub fn take_noticed(&mut self) -> Option<RollbackSign> {
        self.noticed.take()
    }

    /// The watch, or the list with which it begins, shows the Lease.
    pub fn shown(&mut self, lease: OurLease) {
        if let Some(left) = self.before_list.take().filter(|known| lease.version < *known) {
            self.noticed = Some(RollbackSign::Forgotten { found: lease.version, left });
        }
        if self.unshown.is_some_and(|token| token <= lease.token) {
            self.unshown = None;
        }
        if self.left.as_ref().is_none_or(|left| left.version <= lease.version) {
            self.left = Some(lease);
        }
    }

    /// The watch shows that the Lease was deleted.
    pub fn deleted(&mut self) {
        self.left = None;
    }

    /// A renewal was refused because the Lease is not in the expected state. `found` is what a read then shows; `None`
    /// if there is no Lease.
    ///
    /// # Errors
    /// If the store has gone back. Otherwise another writer has changed the Lease since.
    pub fn refused(&mut self, found: Option<OurLease>) -> Result<(), RollbackSign> {
        let Some(left) = self.left.take() else { return Ok(()) };
        let Some(found) = found else { return Err(RollbackSign::Lost) };
        // Other writers may change other fields without a renewal. A renewal that this replica gave up may also have
        // been written.
        if found.version < left.version || found.token < left.token || found.uid != left.uid {
            return Err(RollbackSign::Forgotten { found: found.version, left: left.version });
        }
        self.left = Some(found);
        Ok(())
    }

    /// The first renewal that was answered and that the watch has not shown, neither itself nor a later one.
    pub fn unshown(&self) -> Option<i64> {
        self.unshown
    }

    /// The store has gone back, or the watch restarts. The watch then no longer has to show what was expected of it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: u64, token: i64) -> OurLease {
        OurLease { uid: "ours".into(), version: Version(version), token }
    }

    /// A history with one renewal, answered with version 100.
    fn renewed() -> RollbackDetector {
        let mut history = RollbackDetector::default();
        assert_eq!(history.answered(lease(100, 1), Version(99)), Ok(()));
        history
    }

    #[test]
    fn a_renewal_is_written_on_what_the_last_one_left_of_which_was_heard() {
        assert_eq!(RollbackDetector::default().left(), None);
        let mut history = renewed();
        assert_eq!(history.left(), Some(&lease(100, 1)));
        history.shown(lease(120, 3));
        assert_eq!(history.left(), Some(&lease(120, 3)), "the watch has brought it");
        history.shown(lease(110, 2));
        assert_eq!(history.left(), Some(&lease(120, 3)), "late");
    }

    #[test]
    fn an_answer_below_a_version_that_was_seen_shows_that_the_store_went_back() {
        let mut history = renewed();
        let went_back = RollbackSign::LowerVersion { answered: Version(40), seen: Version(20_000) };
        assert_eq!(history.answered(lease(40, 2), Version(20_000)), Err(went_back));
    }

    #[test]
    fn a_lease_that_has_forgotten_our_renewal_shows_that_the_store_went_back() {
        let forgotten = |found: OurLease| {
            let mut history = renewed();
            history.refused(Some(found)).is_err()
        };
        assert!(forgotten(lease(60, 0)));
        assert!(forgotten(lease(150, 0)), "though its versions have caught up");
        assert!(forgotten(OurLease { uid: "other".into(), ..lease(150, 2) }));
        assert!(!forgotten(lease(150, 1)), "another writer has annotated it");
        assert!(!forgotten(lease(150, 2)), "our own that was given up");
    }

    #[test]
    fn a_missing_lease_was_deleted_or_the_store_was_rolled_back() {
        assert_eq!(renewed().refused(None), Err(RollbackSign::Lost));
        let mut history = renewed();
        history.deleted();
        assert_eq!(history.left(), None);
        assert_eq!(history.refused(None), Ok(()));
    }

    #[test]
    fn a_renewal_that_was_answered_is_awaited_from_the_watch() {
        let mut history = renewed();
        assert_eq!(history.unshown(), Some(1));
        assert_eq!(history.answered(lease(110, 2), Version(100)), Ok(()));
        assert_eq!(history.unshown(), Some(1), "none has come");
        history.shown(lease(110, 2));
        assert_eq!(history.unshown(), None);
        history.shown(lease(120, 3));
        assert_eq!(history.answered(lease(120, 3), Version(110)), Ok(()));
        assert_eq!(history.unshown(), None, "the watch was faster");
    }

    #[test]
    fn a_list_with_a_lower_version_than_was_known_before_shows_that_the_store_went_back() {
        let mut history = renewed();
        history.list_begins();
        history.shown(lease(40, 1));
        let forgotten = RollbackSign::Forgotten { found: Version(40), left: Version(100) };
        assert_eq!(history.take_noticed(), Some(forgotten));
        assert_eq!(history.take_noticed(), None, "told once");
    }

    #[test]
    fn a_list_that_misses_a_renewal_answered_since_it_began_shows_no_rollback() {
        let mut history = renewed();
        history.list_begins();
        assert_eq!(history.answered(lease(110, 2), Version(100)), Ok(()));
        history.shown(lease(100, 1));
        assert_eq!(history.take_noticed(), None);
    }

    #[test]
    fn a_late_event_with_a_lower_version_shows_no_rollback() {
        let mut history = renewed();
        history.shown(lease(40, 1));
        assert_eq!(history.take_noticed(), None);
    }
}
