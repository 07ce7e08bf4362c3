//! The counts of each registration. With them a change of one registration updates the sums without adding up
//! all registrations.

use std::collections::{BTreeMap, HashMap};

use beatkeeper_api::InstanceState;
use prometheus_client::metrics::{family::Family, gauge::Gauge};

use crate::metrics::catalogue::Catalogue;
use beatkeeper_core::{
    decide::verdict::Verdict,
    vocabulary::{key::Key, reason::Reason},
};

/// At most this many registrations have series of their own.
const SERIES_MAX: usize = 1000;

/// Not `namespace`, which would clash with the label of the target, the namespace of the operator's Pod.
const NAMESPACE: &str = "registration_namespace";

type Labelled = Family<[(&'static str, &'static str); 1], Gauge>;
type PerRegistration = Family<[(&'static str, String); 3], Gauge>;

/// The share of one registration in the sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    states: BTreeMap<&'static str, i64>,
    holds: BTreeMap<Reason, i64>,
    reason: &'static str,
}

impl Tally {
    /// Counts the verdicts of a registration. `reason` is the reason of its condition Ready.
    pub(super) fn of(verdicts: &[Verdict], reason: &'static str) -> Self {
        let mut tally = Self { states: BTreeMap::new(), holds: BTreeMap::new(), reason };
        for verdict in verdicts {
            *tally.states.entry(verdict.state.as_str()).or_default() += 1;
            if verdict.state == InstanceState::Held {
                *tally.holds.entry(verdict.reason).or_default() += 1;
            }
        }
        tally
    }
}

#[derive(Debug)]
struct Entry {
    tally: Tally,
    has_series: bool,
}

/// The tallies of all registrations, and the metrics that are their sums.
#[derive(Debug)]
pub(super) struct Tallies {
    pub(super) instances: Labelled,
    pub(super) registrations: Labelled,
    pub(super) holds: Labelled,
    /// The series of each registration, if they are enabled.
    pub(super) each: Option<PerRegistration>,
    pub(super) left_out: Gauge,
    known: HashMap<Key, Entry>,
    series: usize,
}

impl Tallies {
    pub(super) fn new(per_registration: bool) -> Self {
        let instances = Labelled::default();
        for state in InstanceState::ALL {
            drop(instances.get_or_create(&[("state", state.as_str())]));
        }
        let holds = Labelled::default();
        for reason in Reason::holds() {
            drop(holds.get_or_create(&[("reason", reason.as_str())]));
        }
        Self {
            instances,
            registrations: Labelled::default(),
            holds,
            each: per_registration.then(PerRegistration::default),
            left_out: Gauge::default(),
            known: HashMap::new(),
            series: 0,
        }
    }

    /// Replaces the share of a registration.
    pub(super) fn put(&mut self, key: &Key, tally: Tally) {
        let before = self.known.remove(key);
        if let Some(before) = &before {
            self.sum_up(&before.tally, -1);
        }
        self.sum_up(&tally, 1);
        let had_series = before.is_some_and(|before| before.has_series);
        let has_series = had_series || (self.each.is_some() && self.series < SERIES_MAX);
        self.series += usize::from(has_series && !had_series);
        self.known.insert(key.clone(), Entry { tally, has_series });
        self.count_left_out();
        if has_series {
            self.set_series(key);
        }
    }

    /// Adds the sums to a registry.
    pub(super) fn register(&self, all: &mut Catalogue) {
        all.add("instances", &["state"], "Instances by state", self.instances.clone());
        all.add(
            "registrations",
            &["reason"],
            "ServiceRegistrations by the reason of their condition Ready; Published means that all is well",
            self.registrations.clone(),
        );
        all.add(
            "holds",
            &["reason"],
            "Instances that stay published although their ttl has passed, by reason",
            self.holds.clone(),
        );
        if let Some(each) = &self.each {
            all.add(
                "registration_instances",
                &[NAMESPACE, "registration", "state"],
                "Instances of one registration by state; only with --metrics-per-registration, for at most \
                 1000 registrations",
                each.clone(),
            );
            all.add(
                "registrations_without_series",
                &[],
                "Registrations without series of their own, because there are more than 1000; only with \
                 --metrics-per-registration",
                self.left_out.clone(),
            );
        }
    }

    /// Removes the share of a registration that is gone.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(gone) = self.known.remove(key) else { return };
        self.sum_up(&gone.tally, -1);
        if let (true, Some(each)) = (gone.has_series, &self.each) {
            self.series -= 1;
            for state in InstanceState::ALL {
                each.remove(&labels(key, state));
            }
        }
        self.count_left_out();
    }

    fn sum_up(&self, tally: &Tally, sign: i64) {
        let Tally { states, holds, reason } = tally;
        for (state, count) in states {
            self.instances.get_or_create(&[("state", *state)]).inc_by(sign * count);
        }
        for (reason, count) in holds {
            self.holds.get_or_create(&[("reason", reason.as_str())]).inc_by(sign * count);
        }
        self.registrations.get_or_create(&[("reason", *reason)]).inc_by(sign);
    }

    fn set_series(&self, key: &Key) {
        let (Some(each), Some(entry)) = (&self.each, self.known.get(key)) else { return };
        for state in InstanceState::ALL {
            let count = entry.tally.states.get(state.as_str()).copied().unwrap_or_default();
            each.get_or_create(&labels(key, state)).set(count);
        }
    }

    fn count_left_out(&self) {
        if self.each.is_none() {
            return;
        }
        let left_out = self.known.len() - self.series;
        self.left_out.set(i64::try_from(left_out).unwrap_or(i64::MAX));
    }
}

fn labels(key: &Key, state: InstanceState) -> [(&'static str, String); 3] {
    [
        (NAMESPACE, key.namespace.clone()),
        ("registration", key.name.clone()),
        ("state", state.as_str().to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        Key::new("shop", format!("greeter-{n}"))
    }

    fn tally(ready: i64, held: i64, reason: &'static str) -> Tally {
        Tally {
            states: [("Ready", ready), ("Held", held)].into(),
            holds: [(Reason::Protected, held)].into(),
            reason,
        }
    }

    fn sum(of: &Labelled, label: &'static str, value: &'static str) -> i64 {
        of.get(&[(label, value)]).map_or(0, |gauge| gauge.get())
    }

    fn sums(tallies: &Tallies) -> [i64; 5] {
        [
            sum(&tallies.instances, "state", "Ready"),
            sum(&tallies.instances, "state", "Held"),
            sum(&tallies.holds, "reason", "Protected"),
            sum(&tallies.registrations, "reason", "Published"),
            sum(&tallies.registrations, "reason", "WriteFailed"),
        ]
    }

    #[test]
    fn the_sums_follow_each_registration_and_forget_those_that_are_gone() {
        let mut tallies = Tallies::new(false);
        tallies.put(&key(1), tally(3, 1, "Published"));
        tallies.put(&key(2), tally(2, 0, "Published"));
        assert_eq!(sums(&tallies), [5, 1, 1, 2, 0]);
        tallies.put(&key(1), tally(1, 2, "WriteFailed"));
        assert_eq!(sums(&tallies), [3, 2, 2, 1, 1]);
        tallies.remove(&key(1));
        tallies.remove(&key(1));
        assert_eq!(sums(&tallies), [2, 0, 0, 1, 0]);
        tallies.remove(&key(2));
        assert_eq!(sums(&tallies), [0; 5], "the present leader counts");
    }

    #[test]
    fn series_of_single_registrations_are_bounded_and_go_with_them() {
        let mut tallies = Tallies::new(true);
        for n in 0..SERIES_MAX + 2 {
            tallies.put(&key(n), tally(1, 0, "Published"));
        }
        let each = tallies.each.clone().expect("asked for");
        let told = |n| each.get(&labels(&key(n), InstanceState::Ready)).map(|gauge| gauge.get());
        assert_eq!((0..SERIES_MAX + 2).filter(|n| told(*n) == Some(1)).count(), SERIES_MAX);
        assert_eq!(tallies.left_out.get(), 2);
        tallies.remove(&key(7));
        assert_eq!(told(7), None);
        tallies.put(&key(SERIES_MAX), tally(1, 0, "Published"));
        assert_eq!(tallies.left_out.get(), 1, "one of those left out took the place");
        assert_eq!(told(SERIES_MAX), Some(1));
    }
}
