//! How many of something each key has.

use std::{cell::RefCell, collections::HashMap, hash::Hash};

/// The counts. Nothing is kept of a key that has none.
#[derive(Debug)]
pub struct Counts<K>(pub(crate) RefCell<HashMap<K, usize>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash> Counts<K> {
    /// How many a key has.
    pub fn of(&self, key: &K) -> usize {
        self.0.borrow().get(key).copied().unwrap_or_default()
    }

    /// A key has one more.
    pub fn more(&self, key: K) {
        *self.0.borrow_mut().entry(key).or_default() += 1;
    }

    /// A key has one less, if it has any.
    pub fn less(&self, key: &K) {
        let mut counts = self.0.borrow_mut();
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
            }
        }
    }
}
