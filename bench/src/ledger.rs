//! Combines what the loader did with what the watcher saw. The events of the two may arrive in any order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::clock::Moment;
use crate::messages::{Event, Instance};

/// An act of an instance. The ledger measures its lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The instance falls silent. It should be removed one ttl after its last renewal was sent, and not earlier.
    Death,
    /// The instance deregisters. It should be removed at once.
    Leave,
    /// The instance registers, or comes back. It should be published at once.
    Return,
}

/// A completed act, from its beginning to its observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    /// The kind of the act.
    pub act: Act,
    /// The instance of the act.
    pub instance: Instance,
    /// When the last renewal, or the request of another act, was sent.
    pub sent: Moment,
    /// When the last renewal was answered. For other acts, when the request was sent.
    pub answered: Moment,
    /// The moment after which the act counts as late.
    pub deadline: Moment,
    /// When the watcher saw the effect.
    pub seen: Moment,
}

impl Done {
    /// Returns the seconds past the deadline; negative if the effect was seen too early.
    pub fn lag(&self) -> f64 {
        self.seen.seconds_after(self.deadline)
    }
}

struct Open {
    act: Act,
    /// When the request was sent, and answered.
    began: Option<(Moment, Moment)>,
    seen: Option<Moment>,
}

/// The ledger of one run.
pub struct Ledger {
    ttl: Duration,
    there: HashSet<Instance>,
    open: HashMap<Instance, Open>,
    done: Vec<Done>,
    strays: Vec<Instance>,
}

impl Ledger {
    /// Makes a ledger without registered instances.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            there: HashSet::new(),
            open: HashMap::new(),
            done: Vec::new(),
            strays: Vec::new(),
        }
    }

    /// Call this before an instance is ordered to do something.
    pub fn expect(&mut self, act: Act, instances: &[Instance]) {
        for &instance in instances {
            self.open.insert(instance, Open { act, began: None, seen: None });
        }
    }

    /// Whether everything expected was seen.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether an instance is registered and nothing is expected of it.
    pub fn is_idle(&self, instance: Instance) -> bool {
        self.there.contains(&instance) && !self.open.contains_key(&instance)
    }

    /// Whether an instance is not registered and nothing is expected of it.
    pub fn is_away(&self, instance: Instance) -> bool {
        !self.there.contains(&instance) && !self.open.contains_key(&instance)
    }

    /// Returns the instances with an expected act that was not seen, and ends the waiting for these acts.
    pub fn give_up(&mut self) -> Vec<(Instance, Act)> {
        self.open.drain().map(|(instance, open)| (instance, open.act)).collect()
    }

    /// Returns the acts that were completed since the last call.
    pub fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// Returns the instances that were seen to be removed without having died or left, since the last call.
    pub fn take_strays(&mut self) -> Vec<Instance> {
        std::mem::take(&mut self.strays)
    }

    /// Handles an event of the loader or the watcher.
    pub fn take_in(&mut self, event: &Event) {
        match *event {
            Event::Died { instance, last_renewal, answered } => {
                self.began(instance, Act::Death, (last_renewal, answered))
            }
            Event::Leaving { instance, at } => self.began(instance, Act::Leave, (at, at)),
            Event::Joining { instance, at } => self.began(instance, Act::Return, (at, at)),
            Event::There { instance, at } => {
                self.there.insert(instance);
                self.ended(instance, at, true);
            }
            Event::Gone { instance, at } => {
                self.there.remove(&instance);
                if !self.ended(instance, at, false) {
                    self.strays.push(instance);
                }
            }
            Event::Ready | Event::Counted { .. } | Event::Hammered { .. } => {}
        }
    }

    fn began(&mut self, instance: Instance, act: Act, moments: (Moment, Moment)) {
        if let Some(open) = self.open.get_mut(&instance).filter(|open| open.act == act) {
            open.began = Some(moments);
            self.close(instance);
        }
    }

    /// Records that an instance was seen to appear or to be removed. Returns whether this was expected.
    fn ended(&mut self, instance: Instance, seen: Moment, there: bool) -> bool {
        let expected = |open: &&mut Open| (open.act == Act::Return) == there;
        let Some(open) = self.open.get_mut(&instance).filter(expected) else { return false };
        open.seen.get_or_insert(seen);
        self.close(instance);
        true
    }

    fn close(&mut self, instance: Instance) {
        let open = self.open.get(&instance);
        if let Some(&Open { act, began: Some((sent, answered)), seen: Some(seen) }) = open {
            self.open.remove(&instance);
            let deadline = if act == Act::Death { sent + self.ttl } else { sent };
            self.done.push(Done { act, instance, sent, answered, deadline, seen });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn there(instance: Instance) -> Ledger {
        let mut ledger = Ledger::new(TTL);
        ledger.take_in(&Event::There { instance, at: at(1) });
        ledger
    }

    #[test]
    fn the_lag_of_a_death_counts_from_a_ttl_after_the_last_renewal() {
        let mut ledger = there(7);
        ledger.expect(Act::Death, &[7]);
        ledger.take_in(&Event::Died { instance: 7, last_renewal: at(20), answered: at(21) });
        assert!(!ledger.is_settled());
        ledger.take_in(&Event::Gone { instance: 7, at: at(32) });
        assert!(ledger.is_settled());
        let done = ledger.take_done();
        assert_eq!((done[0].deadline, done[0].lag()), (at(30), 2.0));
    }

    #[test]
    fn one_that_goes_before_its_deadline_has_a_negative_lag() {
        let mut ledger = there(7);
        ledger.expect(Act::Death, &[7]);
        ledger.take_in(&Event::Died { instance: 7, last_renewal: at(20), answered: at(21) });
        ledger.take_in(&Event::Gone { instance: 7, at: at(29) });
        assert_eq!(ledger.take_done()[0].lag(), -1.0);
    }

    #[test]
    fn the_order_of_the_observers_does_not_matter() {
        let mut ledger = there(7);
        ledger.expect(Act::Leave, &[7]);
        ledger.take_in(&Event::Gone { instance: 7, at: at(22) });
        ledger.take_in(&Event::Leaving { instance: 7, at: at(21) });
        assert_eq!(ledger.take_done()[0].lag(), 1.0);
        ledger.expect(Act::Return, &[7]);
        ledger.take_in(&Event::There { instance: 7, at: at(25) });
        ledger.take_in(&Event::Joining { instance: 7, at: at(24) });
        assert_eq!(ledger.take_done()[0].lag(), 1.0);
        assert!(ledger.is_idle(7) && ledger.is_settled());
    }

    #[test]
    fn one_that_goes_though_it_beats_is_a_stray_and_no_death() {
        let mut ledger = there(7);
        ledger.take_in(&Event::Gone { instance: 7, at: at(22) });
        assert_eq!(ledger.take_strays(), [7]);
        assert_eq!(ledger.take_done(), []);
        assert!(ledger.is_away(7));
    }

    #[test]
    fn what_never_happens_can_be_given_up() {
        let mut ledger = there(7);
        ledger.expect(Act::Death, &[7]);
        assert_eq!(ledger.give_up(), [(7, Act::Death)]);
        assert!(ledger.is_settled());
    }
}
