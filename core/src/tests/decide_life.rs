//! Whether an instance is alive: deadlines, evidence, cold starts and holds.

use std::time::Duration;

use super::*;
use crate::{
    decide::verdict::Suspect,
    liveness::{
        index::{Basis, NextBeat, Outcome},
        outage_guard::{BrokenPath, OutageArea, weight::BeatCount},
        proven_time::{Gap, ProvenTime},
        silence_log::SilenceLog,
    },
};

const LEASE: &str = "greeter.vm-1";

fn seen_at_1000() -> Index {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    index
}

fn published() -> World {
    World::new().published("192.0.2.1")
}

fn evidence(index: &mut Index, sent: u64) {
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(sent), at(sent));
}

fn suspected(verdict: &Verdict) -> Option<Option<MonotonicTime>> {
    verdict.lease.as_ref()?.suspect.as_ref().map(|suspect| suspect.deadline)
}

#[test]
fn an_instance_is_doubted_at_the_very_instant_of_its_deadline_and_not_before() {
    let index = seen_at_1000();
    let before = published().one(&index, at(30_999));
    assert_eq!((suspected(&before), before.requeue_at), (None, Some(at(31_000))));
    let doubted = published().one(&index, at(31_000));
    assert_eq!(suspected(&doubted), Some(Some(at(31_000))));
    assert_eq!(doubted.requeue_at, Some(at(31_000)), "at once");
    assert_eq!(
        line(&doubted),
        "Ready BeatOverdue: its beat is late; it is pruned when its ttl passes"
    );
}

#[test]
fn a_late_instance_is_expected_to_be_a_suspect_from_its_deadline_on() {
    let index = seen_at_1000();
    let expected_expiries = |now| Suspect::expected_expiries(&[published().one(&index, at(now))]);
    assert_eq!(expected_expiries(10_000), [], "not late yet");
    for now in [30_999, 31_000] {
        let suspect = Suspect { lease: LEASE.into(), deadline: Some(at(31_000)) };
        assert_eq!(expected_expiries(now), [suspect]);
    }
}

#[test]
fn of_the_expected_suspects_only_the_present_ones_are_read() {
    let world = published();
    let expected_expiries = || vec![Suspect { lease: LEASE.into(), deadline: Some(at(31_000)) }];
    let in_doubt = |evidence: &Evidence, index: &Index, now| {
        evidence
            .in_doubt(
                expected_expiries(),
                &world.registration,
                &world.ttl,
                index,
                |_, _| None,
                at(now),
            )
            .len()
    };
    let mut index = seen_at_1000();
    let proven = Evidence { path: ProvenTime::without_gaps(), ..Evidence::default() };
    let proven = Evidence { proven: proven.path.clone(), ..proven };
    assert_eq!([30_999, 31_000].map(|now| in_doubt(&proven, &index, now)), [0, 1]);
    let gap = ProvenTime::with_gaps(vec![Gap { from: at(12_000), to: at(25_000) }]);
    let outage = Evidence { path: gap.clone(), proven: gap, ..Evidence::default() };
    assert_eq!(
        [54_999, 55_000].map(|now| in_doubt(&outage, &index, now)),
        [0, 1],
        "a ttl after it"
    );
    index.observe("shop", beat("vm-1", 2, 2), at(30_500));
    assert_eq!(in_doubt(&proven, &index, 31_000), 0, "it has beaten");
    index.observe_deleted(&key(LEASE), Version(3));
    assert_eq!(in_doubt(&proven, &index, 30_501), 1, "its Lease has gone");
    assert_eq!(in_doubt(&proven, &index, 70_000), 1, "and is read once, however late its beat is");
}

#[test]
fn evidence_sent_at_the_deadline_expires_and_a_millisecond_earlier_does_not() {
    let mut index = seen_at_1000();
    evidence(&mut index, 30_999);
    assert_eq!(published().one(&index, at(31_000)).state.as_str(), "Ready");
    evidence(&mut index, 31_000);
    let expired = published().one(&index, at(31_000));
    assert_eq!(line(&expired), "Expired TTLPassed: no beat for its ttl of 30s");
    assert_eq!((expired.requeue_at, expired.last_beat), (None, Some(at(1000))));
    assert!(expired.lease.expect("its Lease").decision.outcome.is_expired());
}

#[test]
fn the_last_note_is_told_when_an_instance_expires() {
    let mut index = index();
    let mut noted = beat("vm-1", 1, 1);
    noted.content.note = Some("disk 91 %".to_owned());
    index.observe("shop", noted.clone(), at(1000));
    index.confirm(&key(LEASE), found(&noted), at(31_000), at(31_000));
    assert_eq!(
        line(&published().one(&index, at(31_000))),
        "Expired TTLPassed: no beat for its ttl of 30s; it last said: disk 91 %"
    );
}

#[test]
fn lateness_is_told_from_half_of_the_slack_and_looked_at_exactly_then() {
    let index = seen_at_1000();
    let fresh = published().one(&index, at(1000));
    assert_eq!((line(&fresh).as_str(), fresh.requeue_at), ("Ready Beating: ", Some(at(21_000))));
    assert_eq!(published().one(&index, at(20_999)).reason.as_str(), "Beating");
    let overdue = published().one(&index, at(21_000));
    assert_eq!(overdue.reason.as_str(), "BeatOverdue");
    assert_eq!(overdue.requeue_at, Some(at(31_000)));
    assert!(
        overdue.lease.expect("its Lease").decision.next_beat == NextBeat::Wakes,
        "the next beat must be told"
    );
}

#[test]
fn an_unreadable_lease_is_held_and_stays_published() {
    let mut world = published();
    world.unreadable.insert(LEASE.into(), failure("connection refused"));
    let held = world.one(&seen_at_1000(), at(31_000));
    assert_eq!(
        line(&held),
        "Held LeaseUnreadable: its ttl has passed, but its Lease cannot be read to make sure: \
         connection refused"
    );
    assert!(held.is_published());
    assert_eq!(suspected(&held), Some(Some(at(31_000))), "and it is read again");
    let early = world.one(&seen_at_1000(), at(30_999));
    assert_eq!(early.state.as_str(), "Ready", "no read is needed before its deadline");
}

#[test]
fn an_unreadable_instance_that_drains_or_fails_is_not_held_as_if_it_were_ready() {
    let mut world = published();
    world.unreadable.insert(LEASE.into(), failure("connection refused"));
    for (health, state) in [("Draining", "Draining"), ("Failing", "NotReady")] {
        let mut index = index();
        let mut beat = beat("vm-1", 1, 1);
        beat.content.health = health.parse();
        index.observe("shop", beat, at(1000));
        let verdict = world.one(&index, at(31_000));
        assert_eq!(verdict.state.as_str(), state);
        assert!(verdict.is_published() && suspected(&verdict).is_some(), "kept and doubted");
    }
}

#[test]
fn what_is_doubted_and_not_published_stays_out_until_the_read_decides() {
    let awaiting = "Waiting AwaitingBeat: its ttl has passed without a beat; the next beat \
                    publishes it";
    let mut world = World::new();
    for index in [seen_at_1000(), inherited(&[beat("vm-1", 1, 1)])] {
        let doubted = world.one(&index, at(31_000));
        assert_eq!(line(&doubted), awaiting);
        assert!(suspected(&doubted).is_some());
    }
    world.unreadable.insert(LEASE.into(), failure("connection refused"));
    assert_eq!(
        line(&world.one(&seen_at_1000(), at(31_000))),
        "Waiting LeaseUnreadable: its Lease cannot be read: connection refused"
    );
}

#[test]
fn a_dead_instance_that_is_uncordoned_is_not_published_for_a_moment() {
    let (world, mut index) = (World::new(), index());
    let mut cordoned = beat("vm-1", 1, 1);
    cordoned.content.cordoned = Some("bad disk".to_owned());
    index.observe("shop", cordoned, at(1000));
    assert!(world.commit(&mut index, at(1000)));
    index.observe("shop", beat("vm-1", 1, 2), at(900_000));
    assert!(!world.one(&index, at(900_000)).is_published());
}

#[test]
fn a_published_instance_gets_one_ttl_after_a_cold_start() {
    let mut index = inherited(&[beat("vm-1", 1, 1)]);
    let verdict = published().one(&index, at(0));
    assert_eq!((line(&verdict).as_str(), verdict.last_beat), ("Ready Beating: ", None));
    assert_eq!(
        verdict.lease.expect("its Lease").decision.outcome,
        Outcome::Published(Basis::FoundPublished)
    );
    assert!(published().commit(&mut index, at(0)));
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(30_000), at(30_000));
    assert_eq!(published().one(&index, at(29_999)).state.as_str(), "Ready");
    assert_eq!(published().one(&index, at(30_000)).state.as_str(), "Expired");
}

#[test]
fn an_unpublished_instance_waits_for_a_beat_after_a_cold_start() {
    let mut index = inherited(&[beat("vm-1", 1, 1)]);
    let waiting = World::new().one(&index, at(0));
    assert_eq!(
        line(&waiting),
        "Waiting AwaitingBeat: its Lease was there when the controller started; the next beat \
         publishes it"
    );
    assert_eq!(waiting.requeue_at, Some(at(30_000)));
    index.observe("shop", beat("vm-1", 2, 2), at(10));
    assert_eq!(line(&World::new().one(&index, at(10))), "Ready Beating: ");
}

#[test]
fn one_that_another_leader_may_have_pruned_waits_for_a_beat_when_a_term_begins() {
    let awaits = "Waiting AwaitingBeat: it is not published and its last beat is late; the next beat \
                  publishes it";
    // Overdue: the interval of 10 s and half of the slack of 20 s, after the beat was seen at 1 s.
    let mut term = World { term_began: at(2000), ..World::new() };
    let mut index = seen_at_1000();
    assert_eq!(term.one(&index, at(20_999)).state.as_str(), "Ready");
    let overdue = term.one(&index, at(21_000));
    assert_eq!(line(&overdue), awaits);
    assert_eq!((overdue.requeue_at, overdue.last_beat), (Some(at(31_000)), Some(at(1000))));
    // The instance died under a ttl of 30 s, which was then set to an hour.
    term.ttl.set(Duration::from_secs(3600), at(40_000));
    term.term_began = at(41_000);
    assert_eq!(line(&term.one(&index, at(41_000))), awaits);
    // A published instance has its ttl. An unpublished one is published by its next beat.
    let published = World { term_began: at(41_000), ..published() };
    assert_eq!(published.one(&index, at(22_000)).state.as_str(), "Ready");
    term.commit(&mut index, at(41_000));
    let beat = index.observe("shop", beat("vm-1", 2, 2), at(42_000));
    assert_eq!(beat, woken_after(41_000));
    assert_eq!(term.one(&index, at(42_000)).state.as_str(), "Ready");
}

#[test]
fn one_that_is_late_and_not_published_does_not_come_back_before_it_beats() {
    let (world, mut index) = (World::new(), seen_at_1000());
    assert_eq!(world.one(&index, at(20_999)).reason.as_str(), "Beating");
    assert_eq!(world.one(&index, at(21_000)).reason.as_str(), "AwaitingBeat");
    assert_eq!(published().one(&index, at(21_000)).reason.as_str(), "BeatOverdue");
    index.observe("shop", beat("vm-1", 2, 2), at(21_500));
    assert_eq!(world.one(&index, at(21_500)).reason.as_str(), "Beating");
}

#[test]
fn a_lease_without_a_renew_time_never_beat() {
    let mut index = index();
    let mut empty = beat("vm-1", 1, 1);
    empty.token.renewed = None;
    index.observe("shop", empty, at(1000));
    let verdict = World::new().one(&index, at(99_000));
    assert_eq!(
        line(&verdict),
        "Waiting NeverBeat: Lease greeter.vm-1 has no spec.renewTime: no beat has been written"
    );
    assert_eq!((verdict.requeue_at, verdict.last_beat), (None, None));
}

#[test]
fn a_shorter_ttl_waits_until_the_instance_follows_and_a_longer_one_applies_at_once() {
    let (mut world, mut index) = (published(), seen_at_1000());
    world.ttl.set(Duration::from_secs(15), at(5000));
    assert_eq!(world.one(&index, at(30_999)).requeue_at, Some(at(31_000)), "still 30 s");
    index.observe("shop", beat("vm-1", 2, 2), at(10_000));
    assert_eq!(world.one(&index, at(24_999)).requeue_at, Some(at(30_000)), "late, and not dead");
    world.ttl.set(Duration::from_secs(60), at(24_999));
    let verdict = world.one(&index, at(25_000));
    assert_eq!((suspected(&verdict), verdict.requeue_at), (None, Some(at(45_000))));
}

#[test]
fn a_gap_in_proven_time_moves_the_deadline() {
    let (mut world, index) = (published(), seen_at_1000());
    world.evidence.path = ProvenTime::with_gaps(vec![Gap { from: at(5000), to: at(13_000) }]);
    world.evidence.proven.clone_from(&world.evidence.path);
    assert_eq!(world.one(&index, at(31_000)).requeue_at, Some(at(39_000)));
    assert_eq!(suspected(&world.one(&index, at(39_000))), Some(Some(at(39_000))));
}

#[test]
fn a_probe_that_was_sent_long_before_the_deadline_proves_no_death() {
    let (mut world, mut index) = (published(), seen_at_1000());
    evidence(&mut index, 31_000);
    world.evidence.probed = Some(at(30_949));
    let doubted = world.one(&index, at(31_000));
    assert_eq!((doubted.state.as_str(), suspected(&doubted)), ("Ready", Some(Some(at(31_000)))));
    world.evidence.unproven = Some(failure("no answer within 5s").into());
    assert_eq!(
        line(&world.one(&index, at(31_000))),
        "Held PathUnproven: its ttl has passed, but the operator's own probe does not come back, so \
         beats might not either: no answer within 5s"
    );
    world.evidence = Evidence { probed: Some(at(31_000)), ..Evidence::default() };
    assert_eq!(world.one(&index, at(31_000)).state.as_str(), "Expired");
}

#[test]
fn a_probe_that_was_sent_shortly_before_the_deadline_proves_death_while_no_gap_can_have_begun() {
    let (mut world, mut index) = (published(), seen_at_1000());
    evidence(&mut index, 31_450);
    world.evidence.probed = Some(at(30_950));
    assert_eq!(world.one(&index, at(31_450)).state.as_str(), "Expired");
    let (world, index) = (world, {
        let mut index = seen_at_1000();
        evidence(&mut index, 31_451);
        index
    });
    let doubted = world.one(&index, at(31_451));
    assert_eq!((doubted.state.as_str(), suspected(&doubted)), ("Ready", Some(Some(at(31_000)))));
}

#[test]
fn only_a_late_instance_has_a_deadline_ahead() {
    let (world, index) = (published(), seen_at_1000());
    let ahead = |now| world.one(&index, at(now)).deadline();
    assert_eq!((ahead(20_999), ahead(30_999)), (None, Some(at(31_000))));
    assert_eq!(ahead(31_000), None, "it has passed");
}

#[test]
fn where_almost_no_beats_arrive_silent_instances_are_held_for_ten_ttls_at_most() {
    let (mut world, mut index) = (published(), seen_at_1000());
    evidence(&mut index, 31_000);
    world.evidence.broken = Some(BrokenPath {
        weighed: false,
        place: OutageArea::Namespace("shop".to_owned()),
        flow: BeatCount { due: 12, arrived: 1 },
        window: Duration::from_secs(20),
    });
    let held = world.one(&index, at(32_000));
    assert_eq!(
        line(&held),
        "Held PathBroken: its ttl has passed, but of 12 beats due in namespace shop in the last 20s \
         only 1 arrived, so the way of the beats is taken to be broken: look for what keeps instances \
         from writing their Leases; held until 5m after its deadline at most"
    );
    assert_eq!(held.requeue_at, Some(at(37_000)), "to see whether they flow again");
    assert!(!held.lease.expect("its Lease").decision.outcome.is_expired());
    assert_eq!(world.one(&index, at(330_999)).requeue_at, Some(at(331_000)));
    assert_eq!(world.one(&index, at(331_000)).state.as_str(), "Expired");
}

#[test]
fn an_unpublished_instance_is_not_held() {
    let (mut world, mut index) = (World::new(), seen_at_1000());
    evidence(&mut index, 31_000);
    world.evidence.broken = Some(BrokenPath {
        weighed: false,
        place: OutageArea::Cluster,
        flow: BeatCount { due: 12, arrived: 0 },
        window: Duration::from_secs(20),
    });
    assert_eq!(world.one(&index, at(32_000)).state.as_str(), "Expired");
}

#[test]
fn silence_that_an_earlier_process_has_proven_counts_until_the_next_beat() {
    let mut index = inherited(&[beat("vm-1", 1, 7)]);
    let text = "v2 its-uid 20000 5:1000 9:8000 11:12000";
    let memory = SilenceLog::read_from("its-uid", Version(12), text).expect("a memory");
    index.resume_silence(&memory);
    let world = published();
    assert_eq!(world.one(&index, at(15_000)).requeue_at, Some(at(18_000)), "12 s had passed");
    index.observe("shop", beat("vm-1", 2, 20), at(16_000));
    index.resume_silence(&memory);
    assert_eq!(only(&index).silence().before, Duration::ZERO);
    assert_eq!(world.one(&index, at(40_000)).requeue_at, Some(at(46_000)));
}

#[test]
fn the_requeue_time_of_a_living_instance_is_never_in_the_past() {
    let (world, index) = (published(), seen_at_1000());
    for now in (1000..31_000).step_by(250) {
        let verdict = world.one(&index, at(now));
        assert!(verdict.requeue_at.is_some_and(|again| again > at(now)), "{now}: {verdict:?}");
    }
}
