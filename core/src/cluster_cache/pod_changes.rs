//! Which Pods have changed lately. A decision that is kept judges only the instances in these anew.

use std::collections::VecDeque;

use crate::vocabulary::key::Key;

/// So many changes are remembered. A decision that has seen fewer is made anew for all instances.
const REMEMBERED: usize = 4096;

/// The changes of Pods that were seen by a moment. By default none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodsSeen(u64);

/// The latest changes of Pods.
#[derive(Debug, Default)]
pub struct PodChanges {
    latest: VecDeque<Key>,
    /// The number of all changes.
    count: u64,
}

impl PodChanges {
    /// A Pod has changed.
    pub(super) fn note(&mut self, pod: &Key) {
        self.count += 1;
        self.latest.push_back(pod.clone());
        if self.latest.len() > REMEMBERED {
            self.latest.pop_front();
        }
    }

    /// The changes until now.
    pub fn seen(&self) -> PodsSeen {
        PodsSeen(self.count)
    }

    /// The Pods that have changed since. `None` if these are not all remembered.
    pub fn since(&self, PodsSeen(seen): PodsSeen) -> Option<impl Iterator<Item = &Key>> {
        let missed = usize::try_from(self.count.checked_sub(seen)?).ok()?;
        let first = self.latest.len().checked_sub(missed)?;
        Some(self.latest.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_that_have_changed_since_are_known_until_there_are_too_many() {
        let mut changes = PodChanges::default();
        let names = |changes: &PodChanges, seen| {
            Some(changes.since(seen)?.map(|pod| pod.name.clone()).collect::<Vec<_>>())
        };
        changes.note(&Key::new("shop", "cart-1"));
        let seen = changes.seen();
        assert_eq!(names(&changes, seen), Some(Vec::new()));
        changes.note(&Key::new("shop", "cart-2"));
        assert_eq!(names(&changes, seen), Some(vec!["cart-2".to_owned()]));
        for _ in 0..REMEMBERED {
            changes.note(&Key::new("bank", "till"));
        }
        assert_eq!(names(&changes, seen), None);
        assert_eq!(names(&changes, changes.seen()), Some(Vec::new()));
    }
}
