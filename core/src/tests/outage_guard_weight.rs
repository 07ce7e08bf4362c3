//! How much other namespaces count when the guard decides whether a path is broken (L6). No tenant decides for
//! another.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    liveness::{
        index::LeaseDecision,
        outage_guard::{BrokenPath, OutageArea, OutageGuard},
    },
    vocabulary::pace::{Pace, Silence},
};

/// When the guard is asked, in milliseconds: days after the start.
const NOW: u64 = 500_000_000;
/// The pace of the instances that the guard is asked about.
const PACE: Pace = pace(30_000, 10_000);
/// The pace of a fleet of instances that are nearly always late, and never dead.
const ABSURD: Pace = pace(86_400_000, 100);

const fn pace(ttl: u64, interval: u64) -> Pace {
    Pace { ttl: Duration::from_millis(ttl), interval: Duration::from_millis(interval) }
}

/// Registrations, each with a pace. The last beat of each instance has a given age.
#[derive(Default)]
struct Crowd {
    index: Option<Index>,
    paces: HashMap<Key, Pace>,
}

impl Crowd {
    fn with(
        mut self,
        namespace: &str,
        name: &str,
        pace: Pace,
        quiet: impl IntoIterator<Item = u64>,
    ) -> Self {
        let index = self.index.get_or_insert_with(index);
        let registration = Key::new(namespace, name);
        self.paces.insert(registration.clone(), pace);
        for (n, quiet) in quiet.into_iter().enumerate() {
            let mut beat = beat("any", 1, 1);
            beat.lease = format!("{name}.vm-{n}");
            beat.registration = Some(name.to_owned());
            index.observe(namespace, beat, at(NOW - quiet));
        }
        let decisions: Vec<_> = index.records_of(&registration).iter().map(published).collect();
        let _ = index.commit(&registration, &decisions, at(NOW));
        self
    }

    /// Asks about an instance of registration shop/greeter with a ttl that has just passed.
    fn ask(&self) -> Option<BrokenPath> {
        let silence = Silence { since: at(NOW) - PACE.ttl, before: Duration::ZERO };
        OutageGuard::default().check(
            &key("greeter"),
            PACE,
            Some(silence),
            self.index.as_ref().expect("an index"),
            |registration| self.paces.get(registration).copied(),
            at(NOW),
        )
    }

    fn place(&self) -> Option<OutageArea> {
        self.ask().map(|broken| broken.place)
    }
}

fn published(record: &Record) -> LeaseDecision {
    published_at(PACE, record)
}

/// The ages of the last beats of `number` instances, in milliseconds: one is dead, and the others beat on time.
fn one_of(number: u64) -> impl Iterator<Item = u64> {
    std::iter::once(30_000).chain((1..number).map(move |n| n * 9_000 / number))
}

fn shop() -> OutageArea {
    OutageArea::Namespace("shop".to_owned())
}

#[test]
fn a_fleet_that_beat_once_and_claims_ten_beats_a_second_holds_no_instance_elsewhere() {
    for beaten in [200, 20_000, 40_000, 3_600_000, 80_000_000] {
        let crowd = Crowd::default().with("shop", "greeter", PACE, one_of(15));
        let crowd = crowd.with("fleet", "device", ABSURD, (0..160).map(|_| beaten));
        assert_eq!(crowd.place(), None, "{beaten} ms ago");
    }
}

#[test]
fn sleeping_devices_are_no_sign_of_a_broken_path_in_any_number_of_namespaces() {
    for pace in [ABSURD, pace(86_400_000, 60_000), pace(90_000_000, 86_400_000)] {
        let mut crowd = Crowd::default().with("shop", "greeter", PACE, one_of(1));
        for n in 0..30 {
            let asleep = (0..20).map(|device| 40_000_000 + 1_000_000 * device);
            crowd = crowd.with(&format!("fleet-{n}"), "device", pace, asleep);
        }
        assert_eq!(crowd.place(), None, "{pace:?}");
    }
}

#[test]
fn silent_registrations_of_the_namespace_hold_no_instance_where_beats_arrive() {
    let mut crowd = Crowd::default().with("shop", "greeter", PACE, one_of(15));
    for n in 0..30 {
        crowd = crowd.with("shop", &format!("silent-{n}"), PACE, vec![30_000; 50]);
    }
    assert_eq!(crowd.place(), None, "14 of 15 beat on time");
    let alone = Crowd::default()
        .with("shop", "greeter", PACE, one_of(1))
        .with("shop", "cart", PACE, vec![3_000; 14])
        .with("shop", "silent", PACE, vec![30_000; 1000]);
    assert_eq!(alone.place(), None, "one of its namespace weighs ten at most");
}

#[test]
fn an_instance_that_is_alone_in_its_namespace_is_not_held_by_one_other_namespace() {
    let alone = || Crowd::default().with("shop", "greeter", PACE, one_of(1));
    let crowd = alone().with("bank", "desk", PACE, vec![25_000; 500]);
    assert_eq!(crowd.place(), None);
    let crowd = crowd.with("yard", "crane", PACE, vec![25_000; 2]);
    assert_eq!(crowd.place(), Some(OutageArea::Cluster), "several that fell silent together");
    let crowd = crowd.with("mill", "saw", PACE, [2_000]);
    assert_eq!(crowd.place(), None, "another namespace beats");
}

#[test]
fn where_the_path_is_cut_for_all_single_instances_of_namespaces_are_held_as_well() {
    let mut crowd = Crowd::default().with("shop", "greeter", PACE, one_of(1));
    for n in 0..15 {
        crowd = crowd.with(&format!("team-{n}"), "app", PACE, [20_000 + 500 * n]);
    }
    let broken = crowd.ask().expect("held");
    assert_eq!((broken.place, broken.flow.due, broken.flow.arrived), (OutageArea::Cluster, 16, 0));
    // A tenant with a working path counts as one of many, however many instances it has.
    let crowd = crowd.with("flood", "app", PACE, vec![1_000; 2_000]);
    assert_eq!(crowd.place(), Some(OutageArea::Cluster));
}

#[test]
fn a_namespace_that_is_cut_off_is_held_however_much_others_beat() {
    let mut crowd = Crowd::default().with("shop", "greeter", PACE, vec![30_000; 100]);
    assert_eq!(crowd.place(), Some(shop()));
    for n in 0..50 {
        crowd = crowd.with(&format!("flood-{n}"), "app", PACE, vec![1_000; 100]);
    }
    assert_eq!(crowd.place(), Some(shop()));
    let crowd = crowd.with("shop", "flood", pace(1_000, 100), vec![50; 2_000]);
    let broken = crowd.ask().expect("held");
    assert_eq!((broken.flow.due, broken.flow.arrived, broken.weighed), (110, 10, true));
}

/// The possible instances of a registration in another namespace.
fn others() -> impl Strategy<Value = (Pace, Vec<u64>)> {
    let pace = (0..6_u32, 0..6_u32, 1..10_u64).prop_map(|(ttl, interval, part)| {
        let ttl = 10_u64.pow(ttl + 3) * part;
        pace(ttl, (ttl / 10_u64.pow(interval)).max(100))
    });
    let quiet = prop_oneof![0..100_u64, 0..40_000_u64, 0..400_000_000_u64];
    let together = (quiet.clone(), 0..200_usize).prop_map(|(quiet, number)| vec![quiet; number]);
    (pace, prop_oneof![vec(quiet, 0..200), together])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// The instances in other namespaces may do anything.
    #[test]
    fn silence_elsewhere_holds_no_death_where_nine_tenths_of_the_others_beat_on_time(
        on_time in 1..40_u64,
        slow in any::<bool>(),
        of_another in 0..5_u64,
        elsewhere in vec(others(), 1..12),
    ) {
        let interval = if slow { 25_000 } else { 10_000 };
        let quiet = move |n: u64| n * interval / 40;
        let dead = on_time / 10;
        let own = (0..=dead).map(|_| 30_000).chain((dead..on_time).map(quiet));
        let mut crowd = Crowd::default().with("shop", "greeter", pace(30_000, interval), own);
        crowd = crowd.with("shop", "cart", pace(30_000, interval), (0..of_another).map(quiet));
        for (n, (pace, quiet)) in elsewhere.into_iter().enumerate() {
            crowd = crowd.with(&format!("team-{n}"), "app", pace, quiet);
        }
        prop_assert_eq!(crowd.place(), None);
    }
}
