//! The outage guard (L6).

use std::time::Duration;

use super::*;
use crate::{
    liveness::{
        index::{Basis, LeaseDecision, NextBeat, Outcome},
        outage_guard::{BrokenPath, OutageArea, OutageGuard, weight::BeatCount},
        proven_time::{Gap, ProvenTime},
        silence_log::SilenceLog,
    },
    vocabulary::pace::{Pace, Silence},
};

const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(20) };

/// Makes `number` published instances of registration greeter. Instance n beats at second n.
fn beating(number: u64) -> Index {
    let mut index = index();
    for n in 0..number {
        index.observe("shop", beat(&format!("vm-{n}"), 1, n + 1), at(n * 1000));
    }
    publish(&mut index, |_| true);
    index
}

/// Decides that the matching instances of registration greeter are published. The decision contains no other
/// instance.
fn publish(index: &mut Index, which: impl Fn(&Record) -> bool) {
    publish_of(index, &key("greeter"), which);
}

fn publish_of(index: &mut Index, registration: &Key, which: impl Fn(&Record) -> bool) {
    let decisions: Vec<_> =
        index.records_of(registration).iter().filter(|it| which(it)).map(published).collect();
    let _ = index.commit(registration, &decisions, at(0));
}

fn published(record: &Record) -> LeaseDecision {
    published_at(PACE, record)
}

fn ask(guard: &mut OutageGuard, index: &Index, now: u64) -> Option<(OutageArea, BeatCount)> {
    let broken = ask_for(guard, index, &key("greeter"), now)?;
    assert_eq!(broken.window, Duration::from_secs(10));
    Some((broken.place, broken.flow))
}

/// Asks the guard about an instance with a ttl that has just passed.
fn ask_for(
    guard: &mut OutageGuard,
    index: &Index,
    registration: &Key,
    now: u64,
) -> Option<BrokenPath> {
    let before = PACE.ttl.saturating_sub(Duration::from_millis(now));
    let silence = Silence { since: at(now) - PACE.ttl, before };
    guard.check(registration, PACE, Some(silence), index, |_| Some(PACE), at(now))
}

/// The expected place of [`ask`] if the namespace alone shows that the path is broken.
fn in_shop() -> OutageArea {
    OutageArea::Namespace("shop".to_owned())
}

#[test]
fn when_all_instances_fall_silent_the_path_is_taken_for_broken() {
    let (mut guard, index) = (OutageGuard::default(), beating(12));
    let flow = BeatCount { due: 12, arrived: 0 };
    assert_eq!(ask(&mut guard, &index, 31_500), Some((in_shop(), flow)));
}

#[test]
fn with_fewer_than_ten_beats_due_no_broken_path_is_assumed() {
    let index = beating(9);
    assert_eq!(ask(&mut OutageGuard::default(), &index, 29_500), None);
}

#[test]
fn no_beat_is_due_from_an_instance_without_a_verdict() {
    let (mut guard, mut index) = (OutageGuard::default(), beating(12));
    // The other instances are gone with their Pods, and their Leases are not yet deleted by the garbage
    // collector.
    publish(&mut index, |record| &*record.lease == "greeter.vm-7");
    assert_eq!(ask(&mut guard, &index, 31_500), None);
    let left = index.records_of(&key("greeter")).into_iter().filter(|record| record.published);
    assert_eq!(left.map(|record| record.lease.to_string()).collect::<Vec<_>>(), ["greeter.vm-7"]);
    let gone = BeatCount { due: 12, arrived: 0 };
    publish(&mut index, |_| true);
    assert_eq!(ask(&mut guard, &index, 31_500), Some((in_shop(), gone)));
}

#[test]
fn no_beats_are_due_from_the_dead_that_protection_keeps_or_from_leases_missing_in_the_watch() {
    let is_broken = |index: &Index| ask(&mut OutageGuard::default(), index, 31_500).is_some();
    let mut index = beating(12);
    assert!(is_broken(&index));
    let kept = |record| LeaseDecision {
        outcome: Outcome::Published(Basis::MinReady),
        ..published(record)
    };
    let kept: Vec<_> = index.records_of(&key("greeter")).iter().map(kept).collect();
    let _ = index.commit(&key("greeter"), &kept, at(0));
    assert!(!is_broken(&index));
    publish(&mut index, |_| true);
    assert!(is_broken(&index));
    for n in 0..3 {
        index.observe_deleted(&key(&format!("greeter.vm-{n}")), Version(100));
    }
    assert!(!is_broken(&index), "nine are shown");
}

#[test]
fn when_a_tenth_of_the_beats_arrives_the_other_instances_are_dead() {
    let mut index = beating(11);
    index.observe("shop", beat("vm-0", 2, 100), at(25_000));
    let mut guard = OutageGuard::default();
    assert_eq!(ask(&mut guard, &index, 29_999), None, "1 of 10");
    let flow = BeatCount { due: 11, arrived: 1 };
    assert_eq!(ask(&mut guard, &index, 30_000), Some((in_shop(), flow)));
}

#[test]
fn an_instance_on_time_with_its_next_beat_due_later_is_no_evidence() {
    let index = beating(12);
    let flow = |now| ask(&mut OutageGuard::default(), &index, now).map(|(_, flow)| flow);
    assert_eq!(flow(30_999), Some(BeatCount { due: 11, arrived: 0 }));
    assert_eq!(flow(31_000), Some(BeatCount { due: 12, arrived: 0 }));
}

#[test]
fn when_beats_arrive_again_the_time_without_them_is_a_gap() {
    let (mut guard, mut index) = (OutageGuard::default(), beating(12));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    assert!(ask(&mut guard, &index, 36_000).is_some());
    for n in 0..12 {
        index.observe("shop", beat(&format!("vm-{n}"), 2, 100 + n), at(40_000));
    }
    assert_eq!(ask(&mut guard, &index, 41_000), None);
    let gap = Gap { from: at(21_500), to: at(41_000) };
    let proven = |guard: &OutageGuard, name| guard.proven_time(&ProvenTime::default(), &key(name));
    assert_eq!(proven(&guard, "greeter"), ProvenTime::with_gaps(vec![gap]));
    assert_eq!(proven(&guard, "cart"), ProvenTime::default());
    guard.forget(&key("greeter"));
    assert_eq!(proven(&guard, "greeter"), ProvenTime::default());
}

#[test]
fn one_namespace_can_be_cut_off_while_others_beat() {
    let mut index = beating(12);
    for n in 0..12 {
        let mut elsewhere = beat(&format!("vm-{n}"), 1, 50 + n);
        elsewhere.registration = Some("greeter".to_owned());
        index.observe("bank", elsewhere, at(30_000 + n));
    }
    let flow = BeatCount { due: 12, arrived: 0 };
    // Without a decision about namespace bank, the guard does not know which of its instances are published.
    let bank = Key::new("bank", "greeter");
    let decisions: Vec<_> = index.records_of(&bank).iter().map(published).collect();
    let _ = index.commit(&bank, &decisions, at(30_100));
    assert_eq!(ask(&mut OutageGuard::default(), &index, 31_500), Some((in_shop(), flow)));
}

#[test]
fn known_dead_instances_and_those_never_seen_to_beat_do_not_count() {
    let index = inherited(&(0..12).map(|n| beat(&format!("vm-{n}"), 1, n)).collect::<Vec<_>>());
    assert_eq!(ask(&mut OutageGuard::default(), &index, 29_000), None);
}

#[test]
fn an_instance_only_found_at_a_cold_start_counts_as_no_arrival() {
    let mut index = inherited(&(0..12).map(|n| beat(&format!("vm-{n}"), 1, n)).collect::<Vec<_>>());
    let memory = SilenceLog::read_from("its-uid", Version(101), "v2 its-uid 60000 100:1000");
    index.resume_silence(&memory.expect("a memory"));
    let granted = |record| LeaseDecision {
        outcome: Outcome::Published(Basis::FoundPublished),
        next_beat: NextBeat::Wakes,
        ..published(record)
    };
    let granted: Vec<_> = index.records_of(&key("greeter")).iter().map(granted).collect();
    let _ = index.commit(&key("greeter"), &granted, at(0));
    let flow = BeatCount { due: 12, arrived: 0 };
    assert_eq!(ask(&mut OutageGuard::default(), &index, 20), Some((in_shop(), flow)));
}

#[test]
fn the_path_is_judged_again_until_it_works() {
    let (mut guard, mut index) = (OutageGuard::default(), beating(12));
    assert!(!guard.must_check_again(&key("greeter")));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    assert!(guard.must_check_again(&key("greeter")));
    for n in 0..12 {
        index.observe("shop", beat(&format!("vm-{n}"), 2, 100 + n), at(40_000));
    }
    assert_eq!(ask(&mut guard, &index, 40_001), None);
    assert!(!guard.must_check_again(&key("greeter")));
}

#[test]
fn a_departure_does_not_mend_a_path() {
    let (mut guard, mut index) = (OutageGuard::default(), beating(10));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    index.confirm(&key("greeter.vm-3"), LiveRead::Absent, at(32_000), at(32_000));
    let flow = BeatCount { due: 9, arrived: 0 };
    assert_eq!(ask(&mut guard, &index, 32_001), Some((in_shop(), flow)));
    index.observe("shop", beat("vm-0", 2, 100), at(33_000));
    assert_eq!(ask(&mut guard, &index, 33_001), None, "one of nine");
}

#[test]
fn a_path_found_broken_in_an_earlier_term_is_judged_anew_by_the_published_instances() {
    let (mut guard, mut index) = (OutageGuard::default(), beating(12));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    // Another replica was the leader meanwhile, and eleven instances have left.
    let all: Vec<_> = index.records_of(&key("greeter")).iter().map(published).collect();
    index.note_published(&key("greeter"), &all[..1]);
    guard.begin_term();
    assert!(!guard.must_check_again(&key("greeter")));
    assert_eq!(ask(&mut guard, &index, 33_000), None);
    let whole = ProvenTime::without_gaps();
    assert_eq!(guard.proven_time(&whole, &key("greeter")), whole, "and what passed is no gap");
}

#[test]
fn a_path_broken_at_the_beginning_of_a_term_is_found_by_the_first_decision() {
    let (mut guard, mut index) = (OutageGuard::default(), beating(12));
    let all: Vec<_> = index.records_of(&key("greeter")).iter().map(published).collect();
    // This replica has made no decision yet, and takes over.
    index.note_published(&key("greeter"), []);
    assert_eq!(ask(&mut guard, &index, 31_500), None);
    index.note_published(&key("greeter"), &all);
    guard.begin_term();
    assert!(ask(&mut guard, &index, 31_500).is_some());
}
