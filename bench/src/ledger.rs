//! Combines what the loader did with what the watcher saw. The events of the two may arrive in any order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::clock::Moment;
use crate::messages::{Act, Event, Instance};

/// A completed act, from its beginning to its observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    pub act: Act,
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
        self.seen - self.deadline
    }
}

struct Open {
    act: Act,
    /// When the request was sent, and answered.
    began: Option<(Moment, Moment)>,
    seen: Option<Moment>,
}

/// The ledger of one run.
#[derive(Default)]
pub struct Ledger {
    ttl: Duration,
    there: HashSet<Instance>,
    open: HashMap<Instance, Open>,
    /// The acts that were completed.
    pub done: Vec<Done>,
    /// The instances that were seen to be removed without having died or left.
    pub strays: Vec<Instance>,
}

impl Ledger {
    /// Makes a ledger without registered instances.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, ..Self::default() }
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

    /// Returns the instances that are registered and of which nothing is expected.
    pub fn idle(&self) -> impl Iterator<Item = Instance> {
        self.there.iter().copied().filter(|instance| !self.open.contains_key(instance))
    }

    /// Whether an instance is not registered and nothing is expected of it.
    pub fn is_away(&self, instance: Instance) -> bool {
        !self.there.contains(&instance) && !self.open.contains_key(&instance)
    }

    /// Returns the instances with an expected act that was not seen, and ends the waiting for these acts.
    pub fn give_up(&mut self) -> Vec<(Instance, Act)> {
        self.open.drain().map(|(instance, open)| (instance, open.act)).collect()
    }

    /// Handles an event of the loader or the watcher.
    pub fn take_in(&mut self, event: &Event) {
        match *event {
            Event::Acted { act, instance, sent, answered } => {
                if let Some(open) = self.open.get_mut(&instance).filter(|open| open.act == act) {
                    open.began = Some((sent, answered));
                    self.close(instance);
                }
            }
            Event::Seen { instance, there: true, at } if self.there.insert(instance) => {
                self.seen(instance, at, true);
            }
            Event::Seen { instance, there: false, at } if self.there.remove(&instance) => {
                if !self.seen(instance, at, false) {
                    self.strays.push(instance);
                }
            }
            // A watcher may report a state again.
            Event::Seen { .. } | Event::Ready | Event::Counted { .. } => {}
        }
    }

    /// Records that an instance was seen to appear or to be removed. Returns whether this was expected.
    fn seen(&mut self, instance: Instance, at: Moment, there: bool) -> bool {
        let expected = |open: &&mut Open| (open.act == Act::Return) == there;
        let Some(open) = self.open.get_mut(&instance).filter(expected) else { return false };
        open.seen.get_or_insert(at);
        self.close(instance);
        true
    }

    fn close(&mut self, instance: Instance) {
        let open = self.open.get(&instance);
        if let Some(&Open { act, began: Some((sent, answered)), seen: Some(seen) }) = open {
            self.open.remove(&instance);
            let silence = if act == Act::Death { self.ttl } else { Duration::ZERO };
            let deadline = sent + silence.as_secs_f64();
            self.done.push(Done { act, instance, sent, answered, deadline, seen });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn there(ledger: &mut Ledger, there: bool, at: Moment) {
        ledger.take_in(&Event::Seen { instance: 7, there, at });
    }

    fn acted(ledger: &mut Ledger, act: Act, sent: Moment, answered: Moment) {
        ledger.take_in(&Event::Acted { act, instance: 7, sent, answered });
    }

    /// Returns a ledger of an instance that is there, and of which this is expected.
    fn expecting(act: Option<Act>) -> Ledger {
        let mut ledger = Ledger::new(TTL);
        there(&mut ledger, true, 1.0);
        if let Some(act) = act {
            ledger.expect(act, &[7]);
        }
        ledger
    }

    #[test]
    fn the_lag_of_a_death_counts_from_a_ttl_after_the_last_renewal() {
        let mut ledger = expecting(Some(Act::Death));
        acted(&mut ledger, Act::Death, 20.0, 21.0);
        assert!(!ledger.is_settled());
        there(&mut ledger, false, 32.0);
        assert!(ledger.is_settled());
        assert_eq!((ledger.done[0].deadline, ledger.done[0].lag()), (30.0, 2.0));
    }

    #[test]
    fn one_that_goes_before_its_deadline_has_a_negative_lag() {
        let mut ledger = expecting(Some(Act::Death));
        acted(&mut ledger, Act::Death, 20.0, 21.0);
        there(&mut ledger, false, 29.0);
        assert_eq!(ledger.done[0].lag(), -1.0);
    }

    #[test]
    fn the_order_of_the_observers_does_not_matter() {
        let mut ledger = expecting(Some(Act::Leave));
        there(&mut ledger, false, 22.0);
        acted(&mut ledger, Act::Leave, 21.0, 21.0);
        ledger.expect(Act::Return, &[7]);
        there(&mut ledger, true, 25.0);
        acted(&mut ledger, Act::Return, 24.0, 24.0);
        let lags: Vec<f64> = ledger.done.iter().map(Done::lag).collect();
        assert_eq!(lags, [1.0, 1.0]);
        assert!(ledger.idle().eq([7]) && ledger.is_settled());
    }

    #[test]
    fn one_that_goes_though_it_beats_is_a_stray_and_no_death() {
        let mut ledger = expecting(None);
        there(&mut ledger, false, 22.0);
        there(&mut ledger, false, 23.0);
        assert_eq!((ledger.strays.as_slice(), ledger.done.as_slice()), (&[7][..], &[][..]));
        assert!(ledger.is_away(7));
    }

    #[test]
    fn what_never_happens_can_be_given_up() {
        let mut ledger = expecting(Some(Act::Death));
        assert_eq!(ledger.give_up(), [(7, Act::Death)]);
        assert!(ledger.is_settled());
    }
}
