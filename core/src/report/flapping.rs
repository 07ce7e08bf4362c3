//! An instance with a state that changes repeatedly: its first events are sent one by one, and later ones are
//! summarized.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    report::{
        reported_states::{Face, ReportedStates},
        summary::SummaryLine,
    },
    vocabulary::{
        instance::InstanceName,
        monotonic_time::MonotonicTime,
        rate_limit::{RateLimit, RateLimiter},
    },
};

/// How often events report the state of one instance: the first ones at once, and then one per period, with the number
/// of changes in between.
const TELLS: RateLimit = RateLimit { burst: 4, every: Duration::from_secs(30) };

/// The instances with a state that has changed recently.
#[derive(Debug, Clone, Default)]
pub struct Flaps(BTreeMap<InstanceName, Flap>);

#[derive(Debug, Clone, Default)]
struct Flap {
    tells: RateLimiter,
    /// The last face that was seen; `None` while the instance is gone.
    seen: Option<Face>,
    /// How often it has changed since the last event.
    changes: u32,
}

/// The changes that no event has reported yet.
#[derive(Debug, Clone, Default)]
pub struct Withheld {
    names: BTreeSet<InstanceName>,
    /// Instances that are reported now, and that changed more than once since their last event.
    changes: BTreeMap<InstanceName, u32>,
    until: Option<MonotonicTime>,
}

impl Withheld {
    /// Whether the event of an instance is sent later.
    pub fn holds(&self, name: &InstanceName) -> bool {
        self.names.contains(name)
    }

    /// How often the state of an instance has changed since its last event, if more than once.
    pub fn changes(&self, name: &InstanceName) -> Option<u32> {
        self.changes.get(name).copied()
    }

    /// When the first withheld event can be sent.
    pub fn until(&self) -> Option<MonotonicTime> {
        self.until
    }
}

impl Flaps {
    /// Selects the instances that change too often. Their events have to wait.
    pub fn withhold(
        &mut self,
        before: &ReportedStates,
        lines: &[SummaryLine],
        now: MonotonicTime,
    ) -> Withheld {
        let mut withheld = Withheld::default();
        let mut told = before.faces().peekable();
        for line in lines {
            while let Some((name, face)) = told.next_if(|(name, _)| **name < line.instance) {
                self.note(name, Some(face), None, now, &mut withheld);
            }
            let known = told.next_if(|(name, _)| **name == line.instance).map(|(_, face)| face);
            self.note(&line.instance, known, Some(Face::of(line)), now, &mut withheld);
        }
        for (name, face) in told {
            self.note(name, Some(face), None, now, &mut withheld);
        }
        self.0.retain(|name, flap| !flap.tells.is_full(now) || withheld.holds(name));
        withheld
    }

    fn note(
        &mut self,
        name: &InstanceName,
        told: Option<Face>,
        is: Option<Face>,
        now: MonotonicTime,
        withheld: &mut Withheld,
    ) {
        if told == is {
            if let Some(flap) = self.0.get_mut(name) {
                flap.see(is);
            }
            return;
        }
        let flap = self.0.entry(name.clone()).or_insert(Flap { seen: told, ..Flap::default() });
        flap.see(is);
        match flap.tells.take(TELLS, now) {
            Ok(()) => {
                let changes = std::mem::take(&mut flap.changes);
                if changes > 1 {
                    withheld.changes.insert(name.clone(), changes);
                }
            }
            Err(due) => {
                withheld.names.insert(name.clone());
                withheld.until = Some(withheld.until.map_or(due, |until| until.min(due)));
            }
        }
    }
}

impl Flap {
    fn see(&mut self, is: Option<Face>) {
        if self.seen != is {
            self.seen = is;
            self.changes = self.changes.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use beatkeeper_api::InstanceState;

    use super::*;
    use crate::report::events::{self, remember};

    /// The events that are sent when the states of vm-1 change every 50 ms.
    fn told_of(states: impl Iterator<Item = Option<InstanceState>>) -> Vec<String> {
        let (mut flaps, mut told, mut notes) =
            (Flaps::default(), ReportedStates::default(), vec![]);
        for (n, state) in (0..).zip(states) {
            let now = MonotonicTime::from_millis(50 * n);
            let lines: Vec<SummaryLine> =
                state.map(|state| SummaryLine::beating("vm-1", state)).into_iter().collect();
            let withheld = flaps.withhold(&told, &lines, now);
            notes.extend(events::of(&told, &lines, &withheld).into_iter().map(|it| it.note));
            told = remember(&told, &lines, &withheld);
        }
        notes
    }

    #[test]
    fn repeated_changes_of_an_instance_are_reported_a_few_times_and_then_summed_up() {
        use InstanceState::{NotReady, Ready};
        let flaps = (0..600).map(|n| Some(if n % 2 == 0 { Ready } else { NotReady }));
        // After that, its state stays the same for half a minute.
        let notes = told_of(flaps.chain((0..700).map(|_| Some(Ready))));
        assert_eq!(notes.len(), 5, "{notes:?}");
        assert!(notes[4].ends_with("times since it was last told"), "{}", notes[4]);
    }

    #[test]
    fn an_instance_that_comes_and_goes_repeatedly_is_reported_no_more_often() {
        let flaps = (0..600).map(|n| (n % 2 == 0).then_some(InstanceState::Ready));
        let notes = told_of(flaps);
        assert_eq!(notes.len(), 4, "{notes:?}");
    }

    #[test]
    fn withheld_events_report_the_last_state_and_only_if_it_differs() {
        use InstanceState::{Expired, NotReady, Ready};
        let flaps = [Ready, NotReady, Ready, NotReady, Ready, Expired].map(Some).into_iter();
        let notes = told_of(flaps.chain((0..700).map(|_| Some(Expired))));
        assert_eq!(notes.len(), 5, "{notes:?}");
        let back = [Ready, NotReady, Ready, NotReady, Ready, NotReady].map(Some).into_iter();
        assert_eq!(told_of(back.chain((0..700).map(|_| Some(NotReady)))).len(), 4);
    }
}
