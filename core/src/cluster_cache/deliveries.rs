//! The debts of a watch: changes that the store is known to have, and that the watch has not shown yet.
//!
//! A watch may be restarted at a version that the store has not reached, because the store was rolled back to a backup.
//! Such a watch shows nothing and reports no error. Its debts reveal that it receives no changes.

use std::collections::HashMap;

use crate::vocabulary::{key::Key, version::Version};

/// What the watch of one kind owes.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// The first write of ours that the watch has not shown.
    written: Option<Version>,
    /// Objects with the versions for which a write of ours was refused. They have other versions by now.
    refused: HashMap<Key, Version>,
    /// How often a debt was settled.
    settled: u64,
}

/// States that a watch owes something. The value stays equal for as long as no debt is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingDelivery(u64);

impl PendingDelivery {
    /// A number that changes when a debt is settled.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl Deliveries {
    /// The debt of the watch. None if the watch has shown everything that is known to have been written.
    pub(super) fn owed(&self) -> Option<PendingDelivery> {
        (self.written.is_some() || !self.refused.is_empty())
            .then_some(PendingDelivery(self.settled))
    }

    /// Notes that a write of ours was answered with a version that the watch has not reached.
    pub(super) fn written(&mut self, version: Version) {
        self.written.get_or_insert(version);
    }

    /// Notes that a write of ours was refused, although the watch has shown the object at this version last.
    pub(super) fn refused(&mut self, key: &Key, version: Version) {
        self.refused.insert(key.clone(), version);
    }

    /// Notes that the watch shows an object, or its deletion, at a version. A watch shows versions in order.
    pub(super) fn shown(&mut self, key: &Key, version: Version) {
        self.settle_written(version);
        self.listed(key, version);
    }

    /// Notes that a list shows an object at a version.
    pub(super) fn listed(&mut self, key: &Key, version: Version) {
        if self.refused.get(key).is_some_and(|refused| *refused != version) {
            self.refused.remove(key);
            self.settled += 1;
        }
    }

    /// Begins a list, which will show everything that was written before.
    pub(super) fn begin_list(&mut self) {
        *self = Self { settled: self.settled + 1, ..Self::default() };
    }

    /// Ends a list. It shows everything that was written up to the version of its newest object.
    pub(super) fn end_list(&mut self, newest: Version) {
        self.settle_written(newest);
    }

    fn settle_written(&mut self, shown: Version) {
        if self.written.is_some_and(|written| written <= shown) {
            self.written = None;
            self.settled += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_cache::object_cache::ObjectCache;

    fn key() -> Key {
        Key::new("shop", "greeter")
    }

    #[test]
    fn a_watch_owes_what_we_wrote_until_it_shows_that_or_something_later() {
        let mut cache = ObjectCache::default();
        cache.put(key(), Version(5), "before");
        assert_eq!(cache.debt(), None);
        cache.put_own(key(), Version(7), "ours");
        let debt = cache.debt();
        cache.put_own(key(), Version(9), "ours again");
        assert!(debt.is_some() && cache.debt() == debt, "nothing has come since");
        cache.put(Key::new("shop", "other"), Version(8), "");
        assert_eq!(cache.debt(), None, "the next debt counts from the next write on");
        cache.put_own(key(), Version(12), "ours");
        assert!(cache.debt().is_some() && cache.debt() != debt);
        cache.begin_list();
        assert_eq!(cache.debt(), None, "the list shows it, whatever its version");
    }

    #[test]
    fn a_watch_owes_what_an_object_is_that_a_write_was_refused_for() {
        let mut cache = ObjectCache::default();
        cache.put(key(), Version(5), "as we know it");
        cache.refused(&key(), Version(4));
        assert_eq!(cache.debt(), None, "it has been shown since");
        cache.refused(&key(), Version(5));
        cache.put(Key::new("shop", "other"), Version(9), "");
        assert!(cache.debt().is_some(), "that is another object");
        cache.put(key(), Version(6), "as it is");
        assert_eq!(cache.debt(), None);
        let absent = Key::new("shop", "absent");
        cache.refused(&absent, Version(0));
        assert!(cache.debt().is_some(), "it was to be made, and is there");
        cache.put(absent.clone(), Version(3), "");
        assert_eq!(cache.debt(), None);
    }

    #[test]
    fn what_we_wrote_while_a_list_was_read_is_owed_unless_the_list_is_later() {
        let mut cache = ObjectCache::default();
        let other = Key::new("shop", "other");
        for (listed, owed) in [(6, true), (8, false)] {
            cache.begin_list();
            cache.put_own(key(), Version(7), "ours");
            cache.put(other.clone(), Version(listed), "");
            cache.end_list();
            assert_eq!(cache.debt().is_some(), owed);
        }
    }
}
