//! Edits of ttl and interval: which ttl applies to an instance (L8).

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::vocabulary::pace::Pace;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pace(ttl: u64, interval: u64) -> Pace {
    Pace { ttl: secs(ttl), interval: secs(interval) }
}

/// The reaction of a client to an edit of the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// It reads the registration again this often (in seconds), as the agent and the SDK do.
    Follows { every: u64 },
    /// It keeps its first pace, as the example programs do.
    Never,
}

/// An instance, a registration with a pace that is edited, and an operator that observes both.
struct Play {
    world: World,
    index: Index,
    client: Client,
    /// Whether the Lease carries the ttl that the instance knows.
    says: bool,
    knows: Pace,
    beat: Option<MonotonicTime>,
    version: u64,
}

impl Play {
    fn new(client: Client, says: bool, first: Pace) -> Self {
        let mut play = Self {
            world: World::new().published("192.0.2.1"),
            index: Index::default(),
            client,
            says,
            knows: first,
            beat: None,
            version: 0,
        };
        play.set(first);
        play.world.ttl = TtlHistory::new(first.ttl);
        play
    }

    fn set(&mut self, pace: Pace) {
        self.world.registration.ttl = pace.ttl;
        self.world.registration.interval = pace.interval;
    }

    fn edit(&mut self, pace: Pace, now: MonotonicTime) {
        self.set(pace);
        self.world.ttl.set(pace.ttl, now);
    }

    /// Restarts the operator. The new process knows only what is in the Leases and in the status.
    fn restart(&mut self, now: MonotonicTime) {
        let pace = self.world.registration.pace();
        let record = self.index.records_of(&key("greeter")).pop();
        let awaited = record.is_some_and(|it| self.world.ttl.awaits(&it, pace.interval).is_some());
        let told = awaited.then(|| self.world.ttl.longest());
        self.world.ttl = TtlHistory::after(told, pace.ttl, now);
        self.index = Index::default();
        self.index.begin_list();
        self.version += 1;
        let lease = self.lease();
        self.index.observe("shop", lease, now);
        let _ = self.index.end_list();
    }

    fn lease(&self) -> Heartbeat {
        let renewed = self.beat.map_or(0, |beat| beat.since(at(0)).as_millis());
        let mut lease = beat("vm-1", i64::try_from(renewed).expect("small"), self.version);
        lease.content.duration = self.says.then_some(self.knows.ttl);
        lease.content.addresses = vec!["192.0.2.1".into()];
        lease
    }

    fn beat(&mut self, now: MonotonicTime) {
        self.beat = Some(now);
        self.version += 1;
        let lease = self.lease();
        self.index.observe("shop", lease, now);
    }

    /// Does what the client does at a moment.
    fn live(&mut self, now: MonotonicTime) {
        if let Client::Follows { every } = self.client
            && now.since(at(0)).as_millis().is_multiple_of(u128::from(every) * 1000)
        {
            self.knows = self.world.registration.pace();
        }
        if self.beat.is_none_or(|beat| now >= beat + self.knows.interval) {
            self.beat(now);
        }
    }

    /// Does what the operator does at a moment. Returns whether the operator doubts that the instance is alive.
    fn is_doubted(&mut self, now: MonotonicTime) -> bool {
        let verdict = self.world.one(&self.index, now);
        let doubted = verdict.lease.as_ref().is_some_and(|lease| lease.suspect.is_some());
        let _ = commit(&mut self.index, &[verdict], now);
        doubted
    }

    /// Plays from second `from` to second `to`. Returns the first moment at which the operator doubts that the
    /// instance is alive.
    fn play(&mut self, from: u64, to: u64, lives: bool) -> Option<MonotonicTime> {
        (from * 4..to * 4).map(|quarter| at(quarter * 250)).find(|&now| {
            if lives {
                self.live(now);
            }
            self.is_doubted(now)
        })
    }
}

pub(super) fn paces() -> impl Strategy<Value = Pace> {
    select(vec![(60, 20), (10, 3), (10, 9), (30, 10), (60, 55), (4, 1), (300, 30), (120, 3)])
        .prop_map(|(ttl, interval)| pace(ttl, interval))
}

pub(super) fn clients() -> impl Strategy<Value = Client> {
    prop_oneof![Just(Client::Never), (1..=30_u64).prop_map(|every| Client::Follows { every })]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_instance_that_keeps_its_last_known_interval_never_becomes_a_suspect_by_an_edit(
        client in clients(),
        says in any::<bool>(),
        first in paces(),
        edits in vec((paces(), 1..90_u64, any::<bool>()), 1..8),
    ) {
        let mut play = Play::new(client, says, first);
        let mut now = 100;
        prop_assert_eq!(play.play(0, now, true), None);
        for (pace, lasts, restart) in edits {
            play.edit(pace, at(now * 1000));
            prop_assert!(!play.is_doubted(at(now * 1000)), "the edit to {:?}", pace);
            if restart {
                play.restart(at(now * 1000));
            }
            prop_assert_eq!(play.play(now, now + lasts, true), None, "{:?}", pace);
            now += lasts;
        }
        prop_assert_eq!(play.play(now, now + 100, true), None, "the last pace");
    }
}

#[test]
fn a_shorter_ttl_applies_to_an_instance_that_has_followed_and_a_longer_one_at_once() {
    for says in [true, false] {
        let mut play = Play::new(Client::Follows { every: 20 }, says, pace(60, 20));
        assert_eq!(play.play(0, 90, true), None);
        play.edit(pace(10, 3), at(90_000));
        // If the Lease carries no ttl, it takes as long as the former ttl until the shorter ttl applies.
        let followed = if says { 110 } else { 180 };
        assert_eq!(play.play(90, followed, true), None);
        let last = play.beat.expect("beats");
        assert_eq!(play.play(followed, 400, false), Some(last + secs(10)), "says: {says}");
    }
    let mut play = Play::new(Client::Never, true, pace(10, 3));
    assert_eq!(play.play(0, 20, true), None);
    play.edit(pace(60, 20), at(20_000));
    let last = play.beat.expect("beats");
    assert_eq!(play.play(20, 400, false), Some(last + secs(60)));
}

#[test]
fn an_instance_that_never_follows_is_measured_by_the_ttl_it_knows_and_no_longer_one() {
    for says in [true, false] {
        let mut play = Play::new(Client::Never, says, pace(60, 20));
        assert_eq!(play.play(0, 90, true), None);
        play.edit(pace(10, 3), at(90_000));
        assert_eq!(play.play(90, 600, true), None);
        let last = play.beat.expect("beats");
        assert_eq!(play.play(600, 1000, false), Some(last + secs(60)));
    }
}

#[test]
fn whatever_a_lease_says_no_ttl_counts_that_the_registration_never_had() {
    let mut play = Play::new(Client::Never, true, pace(60, 20));
    play.knows.ttl = secs(1_000_000);
    assert_eq!(play.play(0, 90, true), None);
    let last = play.beat.expect("beats");
    assert_eq!(play.play(90, 400, false), Some(last + secs(60)));
}

#[test]
fn one_that_appears_long_after_the_edit_is_measured_by_the_present_ttl_from_its_first_beat() {
    let mut play = Play::new(Client::Never, true, pace(3600, 20));
    play.edit(pace(10, 3), at(0));
    play.beat(at(200_000));
    assert_eq!(play.play(200, 400, false), Some(at(210_000)), "it says 3600 s of its own making");
}

#[test]
fn the_beat_with_which_an_instance_has_followed_wakes_the_registration() {
    let mut play = Play::new(Client::Never, true, pace(60, 20));
    assert_eq!(play.play(0, 41, true), None);
    play.edit(pace(10, 3), at(41_000));
    assert!(!play.is_doubted(at(41_000)));
    let woken = |play: &mut Play, now: u64| {
        play.beat = Some(at(now));
        play.version += 1;
        let lease = play.lease();
        !play.index.observe("shop", lease, at(now)).wake.is_empty()
    };
    assert!(!woken(&mut play, 60_000), "it beats as before");
    play.knows = pace(10, 3);
    assert!(woken(&mut play, 80_000), "its Lease says another ttl");
    assert!(!play.is_doubted(at(80_000)));
    assert!(woken(&mut play, 83_000), "and now it has followed");
    assert!(!play.is_doubted(at(83_000)));
    assert!(!woken(&mut play, 86_000), "from now on a beat is a beat (P4)");
}

#[test]
fn an_instance_silent_for_a_ttl_before_it_became_longer_may_have_been_pruned() {
    let mut ttl = TtlHistory::new(secs(30));
    assert!(!ttl.may_have_passed(at(0)));
    ttl.set(secs(3600), at(100_000));
    assert!(ttl.may_have_passed(at(69_000)));
    assert!(!ttl.may_have_passed(at(71_000)), "still in its ttl when the longer one came");
    ttl.set(secs(10), at(200_000));
    ttl.set(secs(60), at(205_000));
    assert!(ttl.may_have_passed(at(194_000)));
    assert!(!ttl.may_have_passed(at(196_000)));
}

#[test]
fn the_history_does_not_grow_with_the_number_of_edits() {
    let mut ttl = TtlHistory::new(secs(5000));
    for n in 0..1000 {
        ttl.set(secs(4000 - n), at(100_000 + n * 60));
    }
    assert_eq!(ttl.longest(), secs(5000));
    assert!(format!("{ttl:?}").len() < 3000, "{ttl:?}");
}
