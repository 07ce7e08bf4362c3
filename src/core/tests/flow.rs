//! The guard against a broken path.

use std::time::Duration;

use super::*;
use crate::core::{
    flow::{Flow, Guard, Place},
    index::Settled,
    proven::{Gap, Pace, Proven},
};

const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(20) };

/// So many published instances of registration greeter, each of whom beat at its own second, from
/// second 0 on.
fn beating(number: u64) -> Index {
    let mut index = index();
    for n in 0..number {
        index.observe("shop", beat(&format!("vm-{n}"), 1, n + 1), at(n * 1000));
    }
    publish(&mut index, |_| true);
    index
}

/// Decides that those of registration greeter with a look of these are published, and says nothing of the others.
fn publish(index: &mut Index, which: impl Fn(&Record) -> bool) {
    let settled: Vec<_> =
        index.snapshot(&key("greeter")).iter().filter(|it| which(it)).map(published).collect();
    let _ = index.settle(&key("greeter"), &settled, at(0));
}

fn published(record: &Record) -> Settled {
    Settled {
        lease: record.lease.clone(),
        token: record.token.clone(),
        quiet: true,
        expired: false,
        placed: true,
        published: true,
        granted: false,
        takes_out: false,
        protected: false,
    }
}

fn ask(guard: &mut Guard, index: &Index, now: u64) -> Option<(Place, Flow)> {
    let broken = guard.ask("shop", PACE, index, |_| Some(PACE), at(now))?;
    assert_eq!(broken.window, Duration::from_secs(10));
    Some((broken.place, broken.flow))
}

#[test]
fn when_all_fall_silent_it_is_the_way_and_not_they() {
    let (mut guard, index) = (Guard::default(), beating(12));
    let flow = Flow { due: 12, arrived: 0 };
    assert_eq!(ask(&mut guard, &index, 31_500), Some((Place::Cluster, flow)));
    assert_eq!(guard.broken().count(), 2, "in the cluster and in its only namespace");
}

/// Very many that are published and beat at second 0, and of whom the first `again` did so once more at second 25.
fn very_many(number: usize, again: usize) -> Index {
    let mut index = index();
    for n in 0..number {
        index.observe("shop", beat(&format!("vm-{n}"), 1, 1), at(0));
    }
    publish(&mut index, |_| true);
    for n in 0..again {
        index.observe("shop", beat(&format!("vm-{n}"), 2, 2), at(25_000));
    }
    index
}

#[test]
fn of_very_many_a_sample_may_show_that_the_way_is_whole_and_only_all_of_them_that_it_is_broken() {
    let elsewhere = |index: &Index| {
        let broken = Guard::default().ask("elsewhere", PACE, index, |_| Some(PACE), at(30_500));
        broken.map(|broken| (broken.place, broken.flow))
    };
    let number = 20_000;
    assert_eq!(elsewhere(&very_many(number, number / 2)), None);
    assert_eq!(elsewhere(&very_many(number, number / 8)), None, "all were counted");
    let flow = Flow { due: number, arrived: number / 16 };
    assert_eq!(elsewhere(&very_many(number, number / 16)), Some((Place::Cluster, flow)));
    assert_eq!(
        elsewhere(&very_many(number, 0)),
        Some((Place::Cluster, Flow { arrived: 0, ..flow }))
    );
}

#[test]
fn with_fewer_than_ten_beats_due_nothing_can_be_told() {
    let index = beating(9);
    assert_eq!(ask(&mut Guard::default(), &index, 29_500), None);
}

#[test]
fn of_those_whom_no_decision_speaks_of_any_more_no_beat_is_due() {
    let (mut guard, mut index) = (Guard::default(), beating(12));
    // They are gone with their Pods, and their Leases wait to be collected.
    publish(&mut index, |record| &*record.lease == "greeter.vm-7");
    assert_eq!(ask(&mut guard, &index, 31_500), None);
    let left = index.snapshot(&key("greeter")).into_iter().filter(|record| record.published);
    assert_eq!(left.map(|record| record.lease.to_string()).collect::<Vec<_>>(), ["greeter.vm-7"]);
    let gone = Flow { due: 12, arrived: 0 };
    publish(&mut index, |_| true);
    assert_eq!(ask(&mut guard, &index, 31_500), Some((Place::Cluster, gone)));
}

#[test]
fn nobody_waits_for_the_beats_of_the_dead_whom_protection_keeps_or_of_those_whom_no_watch_shows() {
    let is_broken = |index: &Index| ask(&mut Guard::default(), index, 31_500).is_some();
    let mut index = beating(12);
    assert!(is_broken(&index));
    let kept = |record| Settled { protected: true, ..published(record) };
    let kept: Vec<_> = index.snapshot(&key("greeter")).iter().map(kept).collect();
    let _ = index.settle(&key("greeter"), &kept, at(0));
    assert!(!is_broken(&index));
    publish(&mut index, |_| true);
    assert!(is_broken(&index));
    for n in 0..3 {
        index.observe_deleted(&key(&format!("greeter.vm-{n}")), Version(100));
    }
    assert!(!is_broken(&index), "nine are shown");
}

#[test]
fn when_a_tenth_arrives_the_others_are_dead() {
    let mut index = beating(11);
    index.observe("shop", beat("vm-0", 2, 100), at(25_000));
    let mut guard = Guard::default();
    assert_eq!(ask(&mut guard, &index, 29_999), None, "1 of 10");
    let flow = Flow { due: 11, arrived: 1 };
    assert_eq!(ask(&mut guard, &index, 30_000), Some((Place::Cluster, flow)));
}

#[test]
fn who_is_on_time_with_a_beat_due_later_says_nothing() {
    let mut flow = Flow::default();
    let index = beating(1);
    flow.count(&only(&index), PACE.interval, Duration::from_secs(10), at(19_999));
    assert_eq!(flow, Flow::default());
    flow.count(&only(&index), PACE.interval, Duration::from_secs(10), at(20_000));
    assert_eq!(flow, Flow { due: 1, arrived: 0 });
}

#[test]
fn when_beats_flow_again_the_stretch_without_them_is_a_gap() {
    let (mut guard, mut index) = (Guard::default(), beating(12));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    assert!(ask(&mut guard, &index, 36_000).is_some());
    for n in 0..12 {
        index.observe("shop", beat(&format!("vm-{n}"), 2, 100 + n), at(40_000));
    }
    assert_eq!(ask(&mut guard, &index, 41_000), None);
    let gap = Gap { from: at(21_500), to: at(41_000) };
    let proven = guard.proven(&Proven::default(), "shop", PACE);
    assert_eq!(proven, Proven::with_gaps(vec![gap]));
    let elsewhere = Pace { interval: Duration::from_secs(10), ..PACE };
    assert_eq!(guard.proven(&Proven::default(), "shop", elsewhere), Proven::default());
    assert_eq!(guard.broken().count(), 0);
}

#[test]
fn a_namespace_can_be_cut_off_while_the_others_beat() {
    let mut index = beating(12);
    for n in 0..12 {
        let mut elsewhere = beat(&format!("vm-{n}"), 1, 50 + n);
        elsewhere.registration = Some("greeter".to_owned());
        index.observe("bank", elsewhere, at(30_000 + n));
    }
    let flow = Flow { due: 12, arrived: 0 };
    let place = Place::Namespace("shop".to_owned());
    // The others were not decided about yet: what is published is not known of them.
    let bank = Key::new("bank", "greeter");
    let settled: Vec<_> = index.snapshot(&bank).iter().map(published).collect();
    let _ = index.settle(&bank, &settled, at(30_100));
    assert_eq!(ask(&mut Guard::default(), &index, 31_500), Some((place, flow)));
}

#[test]
fn the_dead_that_are_known_to_be_dead_and_those_never_seen_to_beat_do_not_count() {
    let index = inherited(&(0..12).map(|n| beat(&format!("vm-{n}"), 1, n)).collect::<Vec<_>>());
    assert_eq!(ask(&mut Guard::default(), &index, 29_000), None);
}

#[test]
fn who_was_only_found_at_a_cold_start_has_not_arrived() {
    let mut index = inherited(&(0..12).map(|n| beat(&format!("vm-{n}"), 1, n)).collect::<Vec<_>>());
    index.recall(&"60000 100:1000".parse().expect("a memory"));
    let granted = |record| Settled { quiet: false, granted: true, ..published(record) };
    let granted: Vec<_> = index.snapshot(&key("greeter")).iter().map(granted).collect();
    let _ = index.settle(&key("greeter"), &granted, at(0));
    let flow = Flow { due: 12, arrived: 0 };
    assert_eq!(ask(&mut Guard::default(), &index, 20), Some((Place::Cluster, flow)));
}

#[test]
fn it_is_to_be_asked_again_until_the_way_is_whole() {
    let (mut guard, mut index) = (Guard::default(), beating(12));
    assert!(!guard.is_to_be_asked_again("shop", PACE));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    assert!(guard.is_to_be_asked_again("shop", PACE));
    for n in 0..12 {
        index.observe("shop", beat(&format!("vm-{n}"), 2, 100 + n), at(40_000));
    }
    assert_eq!(ask(&mut guard, &index, 40_001), None);
    assert!(!guard.is_to_be_asked_again("shop", PACE));
}

#[test]
fn a_way_is_not_mended_by_one_who_leaves() {
    let (mut guard, mut index) = (Guard::default(), beating(10));
    assert!(ask(&mut guard, &index, 31_500).is_some());
    index.confirm(&key("greeter.vm-3"), LiveRead::Absent, at(32_000), at(32_000));
    let flow = Flow { due: 9, arrived: 0 };
    assert_eq!(ask(&mut guard, &index, 32_001), Some((Place::Cluster, flow)));
    index.observe("shop", beat("vm-0", 2, 100), at(33_000));
    assert_eq!(ask(&mut guard, &index, 33_001), None, "one of nine");
}
