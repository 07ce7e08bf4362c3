//! A queue in which each tenant has its turn.

use std::collections::{BTreeMap, VecDeque};

/// Items that wait. Each key has one turn after the other, so many items of one key do not delay those of another.
#[derive(Debug)]
pub struct Turns<K, T> {
    waiting: BTreeMap<K, VecDeque<T>>,
    /// The keys with items, the next one first.
    order: VecDeque<K>,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Clone, T> Turns<K, T> {
    /// Adds an item behind the others of its key.
    pub fn push(&mut self, key: K, item: T) {
        let waiting = self.waiting.entry(key.clone()).or_default();
        if waiting.is_empty() {
            self.order.push_back(key);
        }
        waiting.push_back(item);
    }

    /// Takes the oldest item of the key whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let key = self.order.pop_front()?;
        let waiting = self.waiting.get_mut(&key)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&key);
        } else {
            self.order.push_back(key);
        }
        item
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_turn_however_many_items_of_another_wait() {
        let mut turns = Turns::default();
        for item in ["a1", "a2", "a3", "b1", "a4", "c1", "b2"] {
            turns.push(item.as_bytes()[0], item);
        }
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
    }

    #[test]
    fn a_key_that_comes_back_is_behind_those_that_wait() {
        let mut turns = Turns::default();
        turns.push("a", 1);
        assert_eq!(turns.pop(), Some(1));
        turns.push("b", 2);
        turns.push("a", 3);
        assert_eq!((turns.pop(), turns.pop(), turns.pop()), (Some(2), Some(3), None));
        turns.push("a", 4);
        turns.clear();
        assert_eq!(turns.pop(), None);
    }
}
