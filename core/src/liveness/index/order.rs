//! Instances in the order of their last beats. So the late ones are found without a look at the others.
//!
//! A beat moves its instance to the end of its list, which costs the same in a list of any length.

use slab::Slab;

use crate::{liveness::index::store::Slot, vocabulary::monotonic_time::MonotonicTime};

const NONE: u32 = u32::MAX;

/// The place of one record in its list.
#[derive(Debug, Clone, Copy)]
struct Link {
    list: u32,
    before: u32,
    after: u32,
}

impl Link {
    const NOWHERE: Self = Self { list: NONE, before: NONE, after: NONE };
}

/// The two ends of a list.
#[derive(Debug, Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
}

/// One list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List(u32);

/// Lists of records, each in the order of the last beats.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By the number of the slot.
    links: Vec<Link>,
    lists: Slab<Ends>,
}

impl Order {
    /// Begins an empty list.
    pub(super) fn begin(&mut self) -> List {
        let at = self.lists.insert(Ends { oldest: NONE, newest: NONE });
        List(u32::try_from(at).expect("no memory holds that many lists"))
    }

    /// Ends a list.
    pub(super) fn end(&mut self, List(list): List) {
        let mut next = self.lists.remove(list as usize).oldest;
        while next != NONE {
            let link = std::mem::replace(&mut self.links[next as usize], Link::NOWHERE);
            next = link.after;
        }
    }

    /// Whether a record is in this list.
    pub(super) fn is_in(&self, List(list): List, slot: Slot) -> bool {
        self.links.get(slot.number() as usize).is_some_and(|link| link.list == list)
    }

    /// Puts records into a list that are in none, in the order of their last beats. `seen` says when a record has last
    /// beaten. The search begins at the end, where a record belongs that has just beaten, and goes through the list once
    /// for all of them.
    pub(super) fn put_all(
        &mut self,
        List(list): List,
        oldest_first: &[Slot],
        seen: impl Fn(Slot) -> MonotonicTime,
    ) {
        let mut before = self.lists[list as usize].newest;
        for slot in oldest_first.iter().rev() {
            let beaten = seen(*slot);
            while before != NONE && seen(Slot::of_number(before)) > beaten {
                before = self.links[before as usize].before;
            }
            self.insert(list, *slot, before);
        }
    }

    /// Puts a record behind another one, or at the beginning.
    fn insert(&mut self, list: u32, slot: Slot, before: u32) {
        let at = slot.number();
        if self.links.len() <= at as usize {
            self.links.resize(at as usize + 1, Link::NOWHERE);
        }
        let ends = &mut self.lists[list as usize];
        let after = match before {
            NONE => std::mem::replace(&mut ends.oldest, at),
            _ => std::mem::replace(&mut self.links[before as usize].after, at),
        };
        match after {
            NONE => ends.newest = at,
            _ => self.links[after as usize].before = at,
        }
        self.links[at as usize] = Link { list, before, after };
    }

    /// Takes a record out of its list, if it is in one.
    pub(super) fn take_out(&mut self, slot: Slot) {
        let Some(link) = self.links.get_mut(slot.number() as usize) else { return };
        let Link { list, before, after } = std::mem::replace(link, Link::NOWHERE);
        if list == NONE {
            return;
        }
        let ends = &mut self.lists[list as usize];
        match before {
            NONE => ends.oldest = after,
            _ => self.links[before as usize].after = after,
        }
        match after {
            NONE => ends.newest = before,
            _ => self.links[after as usize].before = before,
        }
    }

    /// A record has beaten. Moves it in its list, if it is in one.
    pub(super) fn beaten(&mut self, slot: Slot, seen: impl Fn(Slot) -> MonotonicTime) {
        let list = self.links.get(slot.number() as usize).map_or(NONE, |link| link.list);
        if list != NONE {
            self.take_out(slot);
            self.put_all(List(list), &[slot], seen);
        }
    }

    /// The records of a list, the one first that has beaten longest ago.
    pub(super) fn oldest_first(&self, List(list): List) -> impl Iterator<Item = Slot> {
        let some = |at: u32| (at != NONE).then_some(at);
        let first = some(self.lists[list as usize].oldest);
        let next = move |at: &u32| some(self.links[*at as usize].after);
        std::iter::successors(first, next).map(Slot::of_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(order: &Order, list: List) -> Vec<u32> {
        order.oldest_first(list).map(Slot::number).collect()
    }

    #[test]
    fn a_list_is_in_the_order_of_the_beats_whatever_the_order_in_which_they_are_told() {
        let mut order = Order::default();
        let (one, other) = (order.begin(), order.begin());
        let mut seen = [50, 10, 30, 20, 40].map(MonotonicTime::from_millis);
        for slots in [&[1, 0][..], &[3, 2]] {
            let slots: Vec<Slot> = slots.iter().map(|at| Slot::of_number(*at)).collect();
            order.put_all(one, &slots, |slot| seen[slot.number() as usize]);
        }
        order.put_all(other, &[Slot::of_number(4)], |slot| seen[slot.number() as usize]);
        assert!(order.is_in(other, Slot::of_number(4)) && !order.is_in(one, Slot::of_number(4)));
        assert_eq!((numbers(&order, one), numbers(&order, other)), (vec![1, 3, 2, 0], vec![4]));
        seen[1] = MonotonicTime::from_millis(60);
        order.beaten(Slot::of_number(1), |slot| seen[slot.number() as usize]);
        assert_eq!(numbers(&order, one), [3, 2, 0, 1]);
        order.take_out(Slot::of_number(0));
        order.take_out(Slot::of_number(9));
        order.beaten(Slot::of_number(0), |slot| seen[slot.number() as usize]);
        assert_eq!(numbers(&order, one), [3, 2, 1]);
        order.end(one);
        order.put_all(other, &[Slot::of_number(3)], |slot| seen[slot.number() as usize]);
        assert_eq!(numbers(&order, other), [3, 4]);
    }
}
