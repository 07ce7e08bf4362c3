//! Tests of the numbers of terms.

use super::*;

/// The only thing that is left to do.
fn draft(candidate: &Candidate, now: u64) -> Draft {
    match candidate.next(at(now)) {
        Move::Write(draft) => draft,
        other => panic!("not a write: {other:?}"),
    }
}

/// Writes what is drafted at this moment, with this version, and returns the number. The answer comes at once.
fn write(candidate: &mut Candidate, version: u64, now: u64) -> i32 {
    let draft = draft(candidate, now);
    candidate.wrote(written(&draft, version), at(now), at(now));
    draft.transitions
}

/// A Lease with this number.
fn numbered(version: u64, holder: &str, transitions: i32) -> Option<LeaderLease> {
    Some(LeaderLease { transitions, ..lease(version, holder) })
}

/// Leads with number 3 since moment 1000, at version 11.
fn leader() -> Candidate {
    let mut candidate = candidate("me");
    candidate.saw(numbered(10, "", 2), at(1000));
    assert_eq!(write(&mut candidate, 11, 1000), 3);
    candidate
}

#[test]
fn a_claim_that_is_renewed_in_time_keeps_its_number() {
    let mut candidate = leader();
    assert_eq!(write(&mut candidate, 12, 1500), 3);
    assert_eq!(candidate.number(), Some(3));
}

#[test]
fn a_claim_from_another_holder_has_a_higher_number() {
    let mut candidate = candidate("me");
    candidate.saw(numbered(10, "other", 7), at(0));
    candidate.saw(numbered(10, "other", 7), at(5000));
    assert_eq!(write(&mut candidate, 11, 5000), 8);
}

#[test]
fn a_claim_after_one_that_lapsed_has_a_higher_number_even_if_the_lease_still_names_the_replica() {
    let mut candidate = leader();
    candidate.unanswered(at(3900));
    candidate.saw(numbered(11, "me", 3), at(4000));
    assert_eq!(write(&mut candidate, 12, 4000), 4);
    assert_eq!(write(&mut candidate, 13, 4500), 4);
}

#[test]
fn a_renewal_that_is_answered_after_the_claim_lapsed_keeps_its_number() {
    // It was conditional on the version of this term, so no other replica has written in between.
    let mut candidate = leader();
    let renewal = draft(&candidate, 3999);
    candidate.wrote(written(&renewal, 12), at(3999), at(4500));
    assert_eq!((candidate.number(), candidate.holds(at(4500))), (Some(3), true));
}

#[test]
fn a_claim_that_was_not_answered_is_made_anew_with_a_higher_number() {
    let mut candidate = candidate("me");
    candidate.saw(numbered(10, "", 2), at(1000));
    assert_eq!(draft(&candidate, 1000).transitions, 3);
    candidate.unanswered(at(2250));
    candidate.saw(numbered(11, "me", 3), at(2750));
    assert_eq!(write(&mut candidate, 12, 2750), 4);
}

#[test]
fn a_leader_that_creates_its_deleted_lease_anew_takes_a_higher_number() {
    let mut candidate = leader();
    candidate.refused();
    candidate.saw(None, at(1520));
    assert_eq!(write(&mut candidate, 1, 1520), 4);
}

#[test]
fn a_standby_that_saw_the_deleted_lease_begins_above_it() {
    let mut candidate = candidate("me");
    candidate.saw(numbered(10, "other", 7), at(1000));
    candidate.saw(None, at(1500));
    candidate.saw(None, at(7000));
    assert_eq!(write(&mut candidate, 1, 7000), 8);
}

#[test]
fn a_number_of_this_replica_from_a_time_before_others_led_is_not_used_again() {
    let mut candidate = leader();
    candidate.unanswered(at(3900));
    // Another replica leads in the Lease that was created after a deletion, and gives up.
    candidate.saw(numbered(20, "other", 0), at(9000));
    candidate.saw(numbered(21, "", 0), at(9500));
    assert_eq!(write(&mut candidate, 22, 9500), 4);
}

#[test]
fn a_number_that_was_told_is_exceeded_by_the_next_claim() {
    let mut candidate = candidate("me");
    candidate.exceed(40);
    candidate.exceed(7);
    candidate.saw(None, at(0));
    assert_eq!(write(&mut candidate, 1, 0), 41);
    assert_eq!(write(&mut candidate, 2, 500), 41);
}

#[test]
fn a_leader_with_a_number_that_is_not_above_the_told_one_claims_anew() {
    let mut candidate = leader();
    candidate.exceed(2);
    assert_eq!(write(&mut candidate, 12, 1500), 3, "it is above");
    candidate.exceed(3);
    let draft = draft(&candidate, 2000);
    assert_eq!((draft.transitions, draft.acquires), (4, false));
    assert_eq!(write(&mut candidate, 13, 2000), 4);
    assert_eq!(write(&mut candidate, 14, 2500), 4);
    candidate.exceed(9);
    assert_eq!(write(&mut candidate, 15, 3000), 10);
}

#[test]
fn the_largest_number_begins_no_term_with_each_renewal() {
    let mut candidate = leader();
    candidate.exceed(u64::MAX);
    assert_eq!(write(&mut candidate, 12, 1500), i32::MAX);
    assert_eq!(write(&mut candidate, 13, 2000), i32::MAX);
}

#[test]
fn what_is_urgent_is_written_before_the_retry_period_is_over() {
    let mut candidate = leader();
    assert_eq!(candidate.next(at(1100)), Move::Wait(at(1500)));
    candidate.hurry(at(1100));
    assert_eq!(write(&mut candidate, 12, 1100), 3);
    assert_eq!(candidate.next(at(1101)), Move::Wait(at(1600)), "once");
}

#[test]
fn a_replica_that_has_no_answer_or_does_not_lead_does_not_hurry() {
    let mut failing = leader();
    failing.unanswered(at(1100));
    failing.hurry(at(1200));
    assert_eq!(failing.next(at(1200)), Move::Wait(at(1600)));
    let mut standby = candidate("me");
    standby.saw(numbered(10, "other", 7), at(1000));
    standby.hurry(at(1200));
    assert_eq!(standby.next(at(1200)), Move::Wait(at(1500)));
}
