//! Tests of one candidate. The test says what the other candidates do.

use super::*;
use crate::replica::leader::DurationsError;

/// A candidate that leads. Its request was sent at moment 1000, was answered at 1010, and wrote version 11.
fn leader() -> Candidate {
    let mut candidate = candidate("me");
    candidate.saw(Some(lease(10, "")), at(1000));
    let draft = draft(&candidate, 1000);
    candidate.wrote(written(&draft, 11), at(1000), at(1010));
    candidate
}

/// A candidate that saw at moment 1000 that another candidate leads, at version 10.
fn standby() -> Candidate {
    let mut candidate = candidate("me");
    candidate.saw(Some(lease(10, "other")), at(1000));
    candidate
}

fn draft(candidate: &Candidate, now: u64) -> Draft {
    match candidate.next(at(now)) {
        Move::Write(draft) => draft,
        other => panic!("not a write: {other:?}"),
    }
}

#[test]
fn a_replica_without_observations_reads_the_lease_and_claims_nothing() {
    let candidate = candidate("me");
    assert_eq!(candidate.next(at(0)), Move::Read);
    assert_eq!(candidate.valid_until(), None);
    assert_eq!(candidate.leader(), None);
}

#[test]
fn a_lease_that_is_not_there_is_created_at_once() {
    let mut candidate = candidate("me");
    candidate.saw(None, at(0));
    assert_eq!(
        candidate.next(at(0)),
        Move::Write(Draft {
            replaces: None,
            holder: "me".to_owned(),
            seconds: 5,
            transitions: 0,
            acquires: true,
        })
    );
}

#[test]
fn a_released_lease_is_taken_at_once_on_the_condition_that_it_still_is() {
    let mut candidate = candidate("me");
    candidate.saw(Some(lease(10, "")), at(0));
    assert_eq!(
        candidate.next(at(0)),
        Move::Write(Draft {
            replaces: Some("10".to_owned()),
            holder: "me".to_owned(),
            seconds: 5,
            transitions: 3,
            acquires: true,
        })
    );
}

#[test]
fn a_release_is_noticed_by_one_that_waits_within_the_retry_period() {
    let mut candidate = standby();
    assert_eq!(candidate.next(at(1000)), Move::Wait(at(1500)));
    assert_eq!(candidate.next(at(1500)), Move::Read);
    candidate.saw(Some(lease(11, "")), at(1501));
    assert_eq!(draft(&candidate, 1501).replaces.as_deref(), Some("11"));
}

#[test]
fn a_silent_holder_is_replaced_after_nineteen_twentieths_of_the_duration_without_another_read() {
    let mut candidate = standby();
    candidate.saw(Some(lease(10, "other")), at(5700));
    assert_eq!(candidate.next(at(5749)), Move::Wait(at(5750)), "no later than possible");
    assert_eq!(draft(&candidate, 5750).replaces.as_deref(), Some("10"));
}

#[test]
fn a_claim_that_missed_a_renewal_is_refused_and_waits_anew() {
    let mut candidate = standby();
    candidate.saw(Some(lease(10, "other")), at(5800));
    assert!(matches!(candidate.next(at(5900)), Move::Write(_)));
    candidate.refused();
    assert_eq!(candidate.next(at(5905)), Move::Read);
    candidate.saw(Some(lease(11, "other")), at(5910));
    assert_eq!(candidate.next(at(5910)), Move::Wait(at(6410)));
}

#[test]
fn after_a_request_without_an_answer_a_replica_reads_before_it_claims() {
    let mut candidate = standby();
    candidate.unanswered(at(5500));
    assert_eq!(candidate.next(at(6000)), Move::Read);
}

#[test]
fn any_change_of_the_lease_counts_as_life_when_it_is_seen() {
    let mut candidate = standby();
    candidate.saw(Some(lease(11, "other")), at(5999));
    candidate.saw(Some(lease(11, "other")), at(10_748));
    assert_eq!(candidate.next(at(10_748)), Move::Wait(at(10_749)));
    assert_eq!(draft(&candidate, 10_749).replaces.as_deref(), Some("11"));
}

#[test]
fn a_suspended_replica_waits_anew_if_the_lease_changed_meanwhile() {
    let mut candidate = standby();
    candidate.saw(Some(lease(40, "other")), at(60_000));
    assert_eq!(candidate.next(at(60_000)), Move::Wait(at(60_500)));
    assert_eq!(candidate.next(at(60_500)), Move::Read);
}

#[test]
fn a_holder_that_wrote_a_longer_duration_is_waited_for_as_long() {
    let mut candidate = candidate("me");
    let long = LeaderLease { duration: millis(15_000), ..lease(10, "other") };
    candidate.saw(Some(long.clone()), at(0));
    candidate.saw(Some(long), at(14_249));
    assert_eq!(candidate.next(at(14_249)), Move::Wait(at(14_250)));
    assert_eq!(draft(&candidate, 14_250).seconds, 5);
}

#[test]
fn a_shorter_duration_than_ones_own_is_not_believed() {
    let mut candidate = candidate("me");
    let short = LeaderLease { duration: millis(1000), ..lease(10, "other") };
    candidate.saw(Some(short.clone()), at(0));
    candidate.saw(Some(short), at(4749));
    assert_eq!(candidate.next(at(4749)), Move::Wait(at(4750)));
}

#[test]
fn a_claim_holds_from_the_answer_until_the_renew_deadline_after_the_request() {
    let candidate = leader();
    assert_eq!(candidate.valid_until(), Some(at(4000)));
    assert!(candidate.holds(at(3999)));
    assert!(!candidate.holds(at(4000)));
    assert_eq!(candidate.leader(), Some("me"));
}

#[test]
fn a_leader_renews_every_retry_period_without_reading_first() {
    let candidate = leader();
    assert_eq!(candidate.next(at(1010)), Move::Wait(at(1510)));
    assert_eq!(
        candidate.next(at(1510)),
        Move::Write(Draft {
            replaces: Some("11".to_owned()),
            holder: "me".to_owned(),
            seconds: 5,
            transitions: 3,
            acquires: false,
        })
    );
}

#[test]
fn an_answer_that_comes_late_counts_from_when_it_was_asked_for() {
    let mut candidate = leader();
    let draft = draft(&candidate, 1510);
    candidate.wrote(written(&draft, 12), at(1510), at(4400));
    assert_eq!(candidate.valid_until(), Some(at(4510)));
}

#[test]
fn an_answer_that_comes_after_the_renew_deadline_makes_no_claim() {
    let mut candidate = leader();
    let draft = draft(&candidate, 1510);
    candidate.wrote(written(&draft, 12), at(1510), at(9000));
    assert!(!candidate.holds(at(9000)));
}

#[test]
fn without_answers_the_claim_ends_by_itself() {
    let mut candidate = leader();
    for now in [1600, 2200, 2800, 3400] {
        candidate.unanswered(at(now));
        assert!(candidate.holds(at(now)));
        assert_eq!(candidate.next(at(now)), Move::Wait(at(now + 500)));
        assert_eq!(candidate.next(at(now + 500)), Move::Read);
    }
    assert!(!candidate.holds(at(4000)));
}

#[test]
fn a_write_that_succeeded_without_an_answer_is_continued() {
    let mut candidate = leader();
    candidate.unanswered(at(2000));
    candidate.saw(Some(lease(12, "me")), at(2510));
    assert_eq!(draft(&candidate, 2510).replaces.as_deref(), Some("12"));
    assert_eq!(candidate.valid_until(), Some(at(4000)), "a look proves nothing of the present");
}

#[test]
fn a_refused_write_is_followed_by_a_read_at_once() {
    let mut candidate = leader();
    assert!(matches!(candidate.next(at(1510)), Move::Write(_)));
    candidate.refused();
    assert_eq!(candidate.next(at(1511)), Move::Read);
}

#[test]
fn a_replica_that_lost_its_claim_renews_it_at_once_if_no_other_replica_has_taken_it() {
    let mut candidate = leader();
    candidate.unanswered(at(3900));
    assert!(!candidate.holds(at(30_000)));
    candidate.saw(Some(lease(11, "me")), at(30_000));
    let draft = draft(&candidate, 30_000);
    assert!(!draft.acquires);
    candidate.wrote(written(&draft, 12), at(30_000), at(30_001));
    assert!(candidate.holds(at(30_001)));
}

#[test]
fn a_replaced_leader_stands_by() {
    let mut candidate = leader();
    candidate.unanswered(at(3900));
    candidate.saw(Some(lease(12, "other")), at(30_000));
    assert_eq!(candidate.next(at(30_000)), Move::Wait(at(30_500)));
    assert_eq!(candidate.leader(), Some("other"));
}

#[test]
fn deleting_the_lease_does_not_end_the_claim_of_another_replica() {
    let mut candidate = standby();
    candidate.saw(None, at(1500));
    assert_eq!(candidate.next(at(1500)), Move::Wait(at(2000)));
    candidate.saw(None, at(6249));
    assert_eq!(candidate.next(at(6249)), Move::Wait(at(6250)));
    assert_eq!(draft(&candidate, 6250).replaces, None);
}

#[test]
fn a_holder_that_wrote_a_longer_duration_is_waited_for_as_long_when_its_lease_is_deleted() {
    let mut candidate = candidate("me");
    let long = LeaderLease { duration: millis(15_000), ..lease(10, "other") };
    candidate.saw(Some(long), at(1000));
    candidate.saw(None, at(1100));
    candidate.saw(None, at(15_349));
    assert_eq!(candidate.next(at(15_349)), Move::Wait(at(15_350)));
    assert_eq!(draft(&candidate, 15_350).replaces, None);
}

#[test]
fn a_refusal_without_a_change_of_the_lease_delays_the_next_attempt() {
    let mut candidate = candidate("me");
    candidate.saw(Some(lease(10, "")), at(1000));
    assert!(matches!(candidate.next(at(1000)), Move::Write(_)));
    candidate.refused();
    assert_eq!(candidate.next(at(1005)), Move::Read);
    candidate.saw(Some(lease(10, "")), at(1010));
    assert_eq!(candidate.next(at(1010)), Move::Wait(at(1510)));
    assert!(matches!(candidate.next(at(1510)), Move::Write(_)));
}

#[test]
fn a_leader_recreates_its_deleted_lease_at_once() {
    let mut candidate = leader();
    candidate.refused();
    candidate.saw(None, at(1520));
    assert_eq!(draft(&candidate, 1520).replaces, None);
}

#[test]
fn a_renewal_that_changed_nothing_is_none() {
    // The other candidates cannot have seen it.
    let mut candidate = leader();
    let draft = draft(&candidate, 1510);
    candidate.wrote(written(&draft, 11), at(1510), at(1520));
    assert_eq!(candidate.valid_until(), Some(at(4000)));
}

#[test]
fn a_release_ends_the_claim_before_it_is_written() {
    let mut candidate = leader();
    let draft = candidate.release().expect("something to write");
    assert_eq!(candidate.valid_until(), None);
    assert_eq!(draft.replaces.as_deref(), Some("11"));
    assert_eq!(draft.holder, "");
}

#[test]
fn a_standby_has_nothing_to_release() {
    assert_eq!(standby().release(), None);
    assert_eq!(candidate("me").release(), None);
}

#[test]
fn durations_that_cannot_work_are_refused_by_the_name_of_the_flag() {
    let told = |lease, renew, retry| -> String {
        let error: DurationsError =
            Durations::new(millis(lease), millis(renew), millis(retry)).expect_err("refused");
        error.to_string()
    };
    assert_eq!(
        told(3000, 3000, 500),
        "--leader-elect-renew-deadline is 3s, which must be shorter than \
         --leader-elect-lease-duration, 3s, by more than one part in 20 of that: a leader has to stop \
         before another may take over"
    );
    assert!(told(5000, 4750, 500).starts_with("--leader-elect-renew-deadline is 4s750ms, which"));
    assert_eq!(
        told(5000, 3000, 1500),
        "--leader-elect-retry-period is 1s500ms, which must be above zero and less than half of \
         --leader-elect-renew-deadline, 3s: one try may fail"
    );
    assert!(told(5000, 3000, 0).contains("above zero"));
}

#[test]
fn the_written_duration_is_never_shorter_than_the_real_one() {
    let seconds = |lease| {
        Durations::new(millis(lease), millis(900), millis(100)).expect("valid").lease_seconds()
    };
    assert_eq!([seconds(1000), seconds(1001), seconds(1999), seconds(2000)], [1, 2, 2, 2]);
}

#[test]
fn two_requests_fit_into_the_renew_deadline() {
    let durations = durations();
    assert_eq!(durations.request_timeout(), millis(1250));
    assert!(
        durations.request_timeout() * 2 + durations.retry_period() <= durations.renew_deadline()
    );
}
