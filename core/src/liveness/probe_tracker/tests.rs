use super::*;

fn at(millis: u64) -> MonotonicTime {
    MonotonicTime::from_millis(millis)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A path for ttl 5 s and interval 1 s: one renewal per second, tolerance 1.5 s.
fn tracker() -> ProbeTracker {
    let mut tracker = ProbeTracker::new(at(0));
    tracker.set_pace(Some(Pace { ttl: millis(5000), interval: millis(1000) }));
    tracker
}

fn probe(tracker: &mut ProbeTracker, sent: u64, back: u64) {
    let token = tracker.send(at(sent), 0);
    assert!(tracker.came_back(token, Version(sent), at(back)).is_some());
}

fn gaps(gaps: &[(u64, u64)]) -> ProvenTime {
    ProvenTime::with_gaps(
        gaps.iter().map(|&(from, to)| Gap { from: at(from), to: at(to) }).collect(),
    )
}

#[test]
fn renewals_that_come_back_in_time_prove_everything() {
    let mut tracker = tracker();
    for n in 0..10 {
        probe(&mut tracker, n * 1000, n * 1000 + 5);
    }
    assert_eq!(*tracker.proven_time(), ProvenTime::without_gaps());
    assert_eq!(tracker.proof(), Some(at(9000)), "as of when it was sent");
    assert_eq!(tracker.next(at(9500)), at(10_000));
}

#[test]
fn renewals_are_recognised_although_a_webhook_cuts_renew_times() {
    let second = 1_000_000;
    let mut tracker = tracker();
    let token = tracker.send(at(0), 7 * second + 400_000);
    tracker.stored(token, 7 * second);
    assert!(tracker.came_back(7 * second, Version(1), at(5)).is_some());
    // The watch may be faster than the answer.
    for n in 1..10 {
        let token = tracker.send(at(n * 1000), 7 * second + 500_000);
        assert_eq!(token % second, 0, "it is stored as it is");
        assert!(tracker.came_back(token, Version(n + 1), at(n * 1000 + 5)).is_some());
        tracker.stored(token, token);
    }
    assert_eq!(*tracker.proven_time(), ProvenTime::without_gaps());
}

#[test]
fn a_renewal_is_sent_ahead_of_a_deadline_and_serves_those_that_follow_closely() {
    let (one, other) = (Key::new("shop", "one"), Key::new("shop", "other"));
    let mut tracker = tracker();
    tracker.send(at(0), 0);
    tracker.await_deadline(&one, Some(at(500)));
    tracker.await_deadline(&other, Some(at(525)));
    assert_eq!(tracker.next(at(0)), at(475));
    tracker.send(at(475), 0);
    assert_eq!(tracker.next(at(475)), at(1475), "the other is served as well");
    tracker.await_deadline(&one, Some(at(526)));
    assert_eq!(tracker.next(at(475)), at(501));
    tracker.await_deadline(&one, None);
    assert_eq!(tracker.next(at(475)), at(1475), "it beats again");
}

#[test]
fn during_a_retry_after_no_probe_is_sent_and_no_time_is_proven() {
    let mut tracker = tracker();
    probe(&mut tracker, 0, 5);
    let token = tracker.send(at(1000), 0);
    assert_eq!(tracker.pause_for(millis(4000), at(1010)), at(5010));
    tracker.await_deadline(&Key::new("shop", "one"), Some(at(2000)));
    assert_eq!(tracker.next(at(1010)), at(5010), "whatever is due");
    assert!(tracker.is_paused(at(5009)) && !tracker.is_paused(at(5010)));
    assert_eq!(tracker.came_back(token, Version(2), at(1020)), None);
    probe(&mut tracker, 5010, 5020);
    assert_eq!(*tracker.proven_time(), gaps(&[(0, 5020)]));
    assert_eq!(tracker.pause_for(millis(3_600_000), at(6000)), at(66_000));
}

#[test]
fn one_that_comes_too_late_for_its_deadline_is_sent_at_once() {
    let mut tracker = tracker();
    tracker.send(at(0), 0);
    tracker.await_deadline(&Key::new("shop", "one"), Some(at(51)));
    assert!(tracker.next(at(700)) < at(700));
}

#[test]
fn a_renewal_reaches_a_little_beyond_its_sending_while_no_gap_can_have_begun() {
    assert!(reaches(at(1000), at(1000), at(9000)), "sent after the deadline, whenever it is back");
    assert!(reaches(at(1000), at(1050), at(1500)));
    assert!(!reaches(at(1000), at(1051), at(1060)), "too long before the deadline");
    assert!(!reaches(at(1000), at(1050), at(1501)), "everything may have stood still since");
}

#[test]
fn one_that_is_under_way_is_known_until_it_is_back() {
    let mut tracker = tracker();
    let token = tracker.send(at(475), 0);
    assert!(tracker.is_under_way_for(at(500), at(501)));
    assert!(!tracker.is_under_way_for(at(526), at(527)));
    tracker.came_back(token, Version(1), at(502));
    assert!(!tracker.is_under_way_for(at(500), at(503)));
}

#[test]
fn before_the_first_proof_there_is_none() {
    let mut tracker = tracker();
    assert_eq!((tracker.proof(), tracker.next(at(7))), (None, at(7)));
    probe(&mut tracker, 3000, 3001);
    assert_eq!(*tracker.proven_time(), gaps(&[(0, 3001)]), "since this process began");
}

#[test]
fn a_gap_lasts_from_when_the_last_proof_was_sent_to_when_the_next_one_is_back() {
    let mut tracker = tracker();
    probe(&mut tracker, 0, 5);
    probe(&mut tracker, 1000, 1400);
    probe(&mut tracker, 2000, 2600);
    assert_eq!(*tracker.proven_time(), gaps(&[(1000, 2600)]));
}

#[test]
fn one_that_is_overtaken_or_comes_back_twice_proves_nothing() {
    let mut tracker = tracker();
    let (first, second) = (tracker.send(at(0), 7), tracker.send(at(100), 7));
    assert_ne!(first, second, "no two are equal");
    assert!(tracker.came_back(second, Version(2), at(110)).is_some());
    assert_eq!(tracker.came_back(second, Version(2), at(120)), None, "again, after a relist");
    assert_eq!(tracker.came_back(first, Version(1), at(130)), None);
    assert_eq!(tracker.proof(), Some(at(100)));
}

#[test]
fn a_renewal_without_an_answer_counts_when_the_watch_shows_it() {
    let mut tracker = tracker();
    let token = tracker.send(at(0), 0);
    tracker.failed(Unproven::TooSlow);
    assert_eq!(tracker.failure(), Some(&Unproven::TooSlow));
    assert!(tracker.came_back(token, Version(1), at(900)).is_some());
    assert_eq!((tracker.failure(), tracker.proof()), (None, Some(at(0))));
}

#[test]
fn the_tightest_registration_sets_the_pace_within_bounds() {
    let period = |ttl, interval| {
        let mut tracker = ProbeTracker::new(at(0));
        tracker.set_pace(Some(Pace { ttl: millis(ttl), interval: millis(interval) }));
        tracker.send(at(0), 0);
        tracker.next(at(0)).since(at(0))
    };
    assert_eq!(period(90_000, 60_000), millis(7_500));
    assert_eq!(period(1_000, 900), millis(250));
    assert_eq!(period(86_400_000, 1_000), LONGEST_PERIOD);
    let mut tracker = ProbeTracker::new(at(0));
    tracker.set_pace(None);
    tracker.send(at(0), 0);
    assert_eq!(tracker.next(at(0)), at(10_000));
}

#[test]
fn renewals_that_never_come_back_do_not_pile_up() {
    let mut tracker = tracker();
    for n in 0..10_000 {
        tracker.send(at(n), 0);
    }
    assert_eq!(tracker.under_way.len(), UNDER_WAY);
}
