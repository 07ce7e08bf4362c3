//! Which addresses were published, and when each came and went.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

/// An address appeared in what is published, or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The address.
    pub address: String,
    /// Whether the address is published from this moment on.
    pub published: bool,
    /// When the observer saw the change, on the monotonic clock.
    pub at: Instant,
}

/// A time in which an address was published without interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// When the address appeared.
    pub from: Instant,
    /// When the address left; `None` if it is still published.
    pub to: Option<Instant>,
}

/// All observations of one observer. An address is published while at least one object contains it, so an address
/// that moves to another object may be in both for a moment.
#[derive(Debug, Default)]
pub struct History {
    objects: HashMap<String, BTreeSet<String>>,
    /// The number of objects that contain an address.
    copies: HashMap<String, usize>,
    began: Option<Instant>,
    changes: Vec<Change>,
    states: usize,
    pub(crate) managers: BTreeSet<String>,
    pub(crate) interruptions: usize,
    pub(crate) gaps: usize,
}

impl History {
    /// Returns the addresses that are published now.
    pub fn published(&self) -> BTreeSet<String> {
        let now = self.copies.iter().filter(|(_, copies)| **copies > 0);
        now.map(|(address, _)| address.clone()).collect()
    }

    /// Whether an address is published now.
    pub fn is_published(&self, address: &str) -> bool {
        self.copies.get(address).is_some_and(|copies| *copies > 0)
    }

    /// Returns all changes, in order. The first ones are those of the first state.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the addresses that left, in order. An address that left twice occurs twice.
    pub fn left(&self) -> Vec<String> {
        let left = self.changes.iter().filter(|change| !change.published);
        left.map(|change| change.address.clone()).collect()
    }

    /// Returns when an address left for the first time.
    pub fn first_left(&self, address: &str) -> Option<Instant> {
        let mut left = self.changes.iter().filter(|change| !change.published);
        left.find(|change| change.address == address).map(|change| change.at)
    }

    /// Returns since when an address is published, or since when it no longer is. Returns `None` if the present state
    /// is the other one, or if the address was never published.
    pub fn since(&self, address: &str, published: bool) -> Option<Instant> {
        let last = self.changes.iter().rfind(|change| change.address == address)?;
        (last.published == published).then_some(last.at)
    }

    /// Returns the times in which each address was published.
    pub fn stays(&self) -> BTreeMap<String, Vec<Stay>> {
        let mut stays: BTreeMap<String, Vec<Stay>> = BTreeMap::new();
        for Change { address, published, at } in &self.changes {
            let of_address = stays.entry(address.clone()).or_default();
            match of_address.last_mut() {
                Some(stay) if !published => stay.to = Some(*at),
                _ => of_address.push(Stay { from: *at, to: None }),
            }
        }
        stays
    }

    /// Returns the given addresses that were missing from at least one state.
    pub fn missing(&self, addresses: &BTreeSet<String>) -> Vec<String> {
        let stays = self.stays();
        let always = |address: &&String| {
            let stay = Stay { from: self.began.unwrap_or_else(Instant::now), to: None };
            stays.get(*address).is_none_or(|of_address| of_address[..] != [stay])
        };
        addresses.iter().filter(always).cloned().collect()
    }

    /// Returns the number of states that were seen.
    pub fn states(&self) -> usize {
        self.states
    }

    /// Returns the values of the label `managed-by` of all objects that were seen.
    pub fn managers(&self) -> &BTreeSet<String> {
        &self.managers
    }

    /// Returns how often the watch failed. It was then continued where it ended; the states meanwhile have the moment
    /// at which they were read.
    pub fn interruptions(&self) -> usize {
        self.interruptions
    }

    /// Returns how often states could not be read after the watch had failed.
    pub fn gaps(&self) -> usize {
        self.gaps
    }

    /// Records a new state of one object. A deleted object has no addresses.
    pub fn record(&mut self, object: String, addresses: BTreeSet<String>, at: Instant) {
        self.states += 1;
        self.replace(object, addresses, at);
    }

    /// Records a state of all objects. Additions come before removals, because all belong to one moment.
    pub fn record_all(&mut self, objects: BTreeMap<String, BTreeSet<String>>, at: Instant) {
        self.states += 1;
        self.began.get_or_insert(at);
        for (object, addresses) in &objects {
            let mut both = self.objects.get(object).cloned().unwrap_or_default();
            both.extend(addresses.iter().cloned());
            self.replace(object.clone(), both, at);
        }
        let gone: Vec<String> =
            self.objects.keys().filter(|object| !objects.contains_key(*object)).cloned().collect();
        objects.into_iter().for_each(|(object, addresses)| self.replace(object, addresses, at));
        gone.into_iter().for_each(|object| self.replace(object, BTreeSet::new(), at));
    }

    fn replace(&mut self, object: String, addresses: BTreeSet<String>, at: Instant) {
        let before = self.objects.remove(&object).unwrap_or_default();
        for address in addresses.difference(&before) {
            let copies = self.copies.entry(address.clone()).or_default();
            *copies += 1;
            if *copies == 1 {
                self.changes.push(Change { address: address.clone(), published: true, at });
            }
        }
        for address in before.difference(&addresses) {
            let copies = self.copies.entry(address.clone()).or_default();
            *copies = copies.saturating_sub(1);
            if *copies == 0 {
                self.changes.push(Change { address: address.clone(), published: false, at });
            }
        }
        if !addresses.is_empty() {
            self.objects.insert(object, addresses);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<String> {
        addresses.iter().map(|&address| address.to_owned()).collect()
    }

    fn record(history: &mut History, object: &str, addresses: &[&str], at: Instant) {
        history.record(object.to_owned(), set(addresses), at);
    }

    #[test]
    fn an_address_that_moves_between_objects_leaves_only_if_it_is_removed_first() {
        let now = Instant::now();
        let mut history = History::default();
        history.record_all([("one".to_owned(), set(&["a"]))].into(), now);
        record(&mut history, "two", &["a"], now);
        record(&mut history, "one", &[], now);
        assert_eq!((history.left(), history.missing(&set(&["a"]))), (vec![], vec![]));
        record(&mut history, "two", &[], now);
        record(&mut history, "one", &["a"], now);
        assert_eq!(history.missing(&set(&["a"])), ["a"]);
        assert_eq!(history.states(), 5);
    }

    #[test]
    fn a_list_in_which_an_address_has_moved_is_one_state() {
        let start = Instant::now();
        let mut history = History::default();
        history.record_all([("one".to_owned(), set(&["a", "b"]))].into(), start);
        history.record_all([("two".to_owned(), set(&["a"]))].into(), start);
        assert_eq!((history.left(), history.published()), (vec!["b".to_owned()], set(&["a"])));
    }

    #[test]
    fn each_stay_has_its_moments_and_the_last_change_counts_as_the_present() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::default();
        history.record_all(BTreeMap::new(), at(0));
        record(&mut history, "one", &["a"], at(1));
        record(&mut history, "one", &[], at(2));
        record(&mut history, "one", &["a"], at(3));
        let stays = [Stay { from: at(1), to: Some(at(2)) }, Stay { from: at(3), to: None }];
        assert_eq!(history.stays()["a"], stays);
        assert_eq!((history.since("a", true), history.since("a", false)), (Some(at(3)), None));
        assert_eq!((history.first_left("a"), history.since("b", false)), (Some(at(2)), None));
    }

    #[test]
    fn an_address_that_the_first_state_lacks_was_missing() {
        let now = Instant::now();
        let mut history = History::default();
        history.record_all(BTreeMap::new(), now);
        record(&mut history, "one", &["a"], now + Duration::from_secs(1));
        assert_eq!(history.missing(&set(&["a"])), ["a"]);
    }
}
