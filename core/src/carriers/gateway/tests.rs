use std::time::Duration;

use super::*;
use crate::carriers::frames::Tick;

const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };

fn at(millis: u64) -> MonotonicTime {
    MonotonicTime::from_millis(millis)
}

fn leader() -> ReplicaName {
    "replica-0".into()
}

fn lease(name: &str) -> Key {
    Key::new("shop", name)
}

fn identity() -> Identity {
    Identity { user: "system:serviceaccount:shop:default".into(), pod: None }
}

/// A gateway with the stream of a leader.
fn led() -> Gateway {
    let me = Incarnation { pod: "pod".into(), epoch: 7 };
    let mut gateway = Gateway::new(me, Duration::from_secs(15), at(0));
    gateway.connected(&leader());
    gateway.receive(&leader(), Down::Hello { have: None }, at(0));
    gateway.receive(&leader(), Down::Leads(Term(1)), at(0));
    gateway.outputs();
    gateway
}

/// The same with an instance that may renew, whose first beat was accepted.
fn with_an_instance() -> Gateway {
    let mut gateway = led();
    gateway.beat(RequestId(1), &lease("a"), &identity(), at(1));
    let allowed = Verdict::Allowed(PACE);
    gateway.receive(
        &leader(),
        Down::Verdict { id: InstanceId(0), verdict: allowed, term: Term(1) },
        at(2),
    );
    // The verdict came after the first batch, so only the second one counts.
    gateway.receive(&leader(), acknowledge(1, 1), at(3));
    gateway.receive(&leader(), acknowledge(2, 1), at(4));
    gateway.outputs();
    gateway
}

fn acknowledge(batch: u64, term: u64) -> Down {
    Down::Acknowledge { batch: Sequence(batch), term: Term(term), not_held: Vec::new() }
}

fn answers(gateway: &mut Gateway) -> Vec<(RequestId, Answer)> {
    let outputs = gateway.outputs().into_iter();
    outputs
        .filter_map(|output| match output {
            Output::Answer(request, answer) => Some((request, answer)),
            _ => None,
        })
        .collect()
}

fn batches(gateway: &mut Gateway) -> Vec<(u64, usize)> {
    let outputs = gateway.outputs().into_iter();
    outputs
        .filter_map(|output| match output {
            Output::Send(_, Up::Batch { sequence, ids, .. }) => Some((sequence.0, ids.len())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_beat_is_accepted_when_the_leader_holds_it_and_not_before() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    assert_eq!(answers(&mut gateway), []);
    let batch = gateway.last.0;
    gateway.receive(&leader(), acknowledge(batch, 1), at(10_004));
    assert_eq!(answers(&mut gateway), [(RequestId(2), Answer::Accepted(PACE))]);
}

#[test]
fn a_beat_of_an_instance_that_is_not_judged_is_carried_and_not_accepted() {
    let mut gateway = led();
    gateway.beat(RequestId(1), &lease("a"), &identity(), at(1));
    assert_eq!(batches(&mut gateway), [(1, 1)]);
    gateway.receive(&leader(), acknowledge(1, 1), at(2));
    assert_eq!(answers(&mut gateway), []);
}

#[test]
fn an_acknowledgement_of_an_earlier_term_accepts_nothing() {
    let mut gateway = with_an_instance();
    gateway.connected(&"replica-1".into());
    gateway.receive(&"replica-1".into(), Down::Leads(Term(2)), at(9_000));
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    gateway.outputs();
    gateway.receive(&leader(), acknowledge(gateway.last.0, 1), at(10_002));
    assert_eq!(answers(&mut gateway), []);
}

#[test]
fn an_acknowledgement_that_comes_late_accepts_nothing_and_the_beat_is_carried_again() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    let first = gateway.last.0;
    gateway.outputs();
    gateway.receive(&leader(), acknowledge(first, 1), at(11_001));
    assert_eq!(answers(&mut gateway), []);
    gateway.wake(at(11_001));
    assert_eq!(batches(&mut gateway), [(first + 1, 1)]);
}

#[test]
fn a_beat_that_no_leader_takes_is_refused_after_a_quarter_of_its_slack() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    for second in 11..15 {
        gateway.wake(at(second * 1000));
        assert_eq!(answers(&mut gateway), [], "slack/4 is 5 s");
    }
    gateway.wake(at(15_000));
    let refused = Answer::Unavailable { retry_after: RETRY_AFTER, cut_off: false };
    assert_eq!(answers(&mut gateway), [(RequestId(2), refused)]);
}

#[test]
fn without_any_stream_a_beat_is_refused_at_once_and_told_to_go_elsewhere() {
    let mut gateway = with_an_instance();
    gateway.disconnected(&leader());
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    let refused = Answer::Unavailable { retry_after: RETRY_AFTER, cut_off: true };
    assert_eq!(answers(&mut gateway), [(RequestId(2), refused)]);
}

#[test]
fn beats_gather_while_a_batch_is_under_way_and_no_longer_than_five_milliseconds() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    assert_eq!(batches(&mut gateway).len(), 1, "none was under way");
    gateway.beat(RequestId(3), &lease("a"), &identity(), at(10_001));
    gateway.beat(RequestId(4), &lease("a"), &identity(), at(10_002));
    assert_eq!(batches(&mut gateway), []);
    assert_eq!(gateway.next_wake(), at(10_006));
    gateway.wake(at(10_006));
    assert_eq!(batches(&mut gateway).len(), 1, "an instance is in a batch once");
}

#[test]
fn a_replica_that_dials_again_is_told_what_it_lacks() {
    let mut gateway = with_an_instance();
    let all = gateway.last;
    for (have, lacks) in [(None, 1), (Some((7, all)), 0), (Some((6, all)), 1)] {
        gateway.connected(&leader());
        gateway.receive(&leader(), Down::Hello { have }, at(5_000));
        let since = gateway.outputs().into_iter().find_map(|output| match output {
            Output::Send(_, Up::Since { up_to, ids }) => Some((up_to, ids.len())),
            _ => None,
        });
        assert_eq!(since, Some((all, lacks)), "{have:?}");
    }
}

#[test]
fn a_question_is_answered_only_after_a_beat_has_gone_the_way_of_all_beats() {
    let mut gateway = led();
    gateway.receive(&leader(), Down::Tick(Tick(44)), at(100));
    let ask = Down::Ask { question: Question(3), term: Some(Term(1)) };
    gateway.receive(&leader(), ask, at(100));
    assert_eq!(gateway.outputs(), [Output::ProvePath(leader(), Question(3))]);
    gateway.path_is_proven(&leader(), Question(3), at(101));
    let answered = gateway.outputs().into_iter().any(|output| {
        matches!(
            output,
            Output::Send(_, Up::Batch { echo: Tick(44), answers: Some(Question(3)), .. })
        )
    });
    assert!(answered);
}

#[test]
fn a_question_of_a_leader_that_was_followed_is_not_answered() {
    let mut gateway = led();
    let ask = Down::Ask { question: Question(3), term: Some(Term(0)) };
    gateway.receive(&leader(), ask, at(100));
    assert_eq!(gateway.outputs(), []);
}

#[test]
fn a_refused_instance_is_told_why_and_its_number_is_not_used_again() {
    let mut gateway = led();
    gateway.beat(RequestId(1), &lease("a"), &identity(), at(1));
    gateway.outputs();
    let verdict = Verdict::Unknown;
    gateway.receive(&leader(), Down::Verdict { id: InstanceId(0), verdict, term: Term(1) }, at(2));
    assert_eq!(answers(&mut gateway), [(RequestId(1), Answer::Unknown)]);
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(3));
    let introduced = gateway.outputs().into_iter().find_map(|output| match output {
        Output::Send(_, Up::Introduce { id, .. }) => Some(id),
        _ => None,
    });
    assert_eq!(introduced, Some(InstanceId(1)));
}

#[test]
fn a_closed_request_is_neither_carried_nor_answered() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    gateway.beat(RequestId(3), &lease("a"), &identity(), at(10_001));
    gateway.outputs();
    gateway.cancel(RequestId(3));
    gateway.wake(at(10_006));
    let carried: usize = batches(&mut gateway).iter().map(|(_, instances)| instances).sum();
    assert_eq!(carried, 0);
    gateway.receive(&leader(), acknowledge(gateway.last.0, 1), at(10_007));
    assert_eq!(answers(&mut gateway), []);
}

#[test]
fn a_gateway_that_leaves_refuses_what_is_open_and_says_so_last() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    gateway.outputs();
    gateway.leave(at(10_001));
    let outputs = gateway.outputs();
    assert!(outputs.iter().any(|output| matches!(output, Output::Answer(RequestId(2), _))));
    assert_eq!(outputs.last(), Some(&Output::Send(leader(), Up::Leaving)));
}

#[test]
fn a_beat_that_the_leader_could_not_take_in_waits_for_the_verdict() {
    let mut gateway = with_an_instance();
    gateway.beat(RequestId(2), &lease("a"), &identity(), at(10_000));
    let (batch, not_held) = (gateway.last, vec![InstanceId(0)]);
    let acknowledged = Down::Acknowledge { batch, term: Term(1), not_held };
    gateway.receive(&leader(), acknowledged, at(10_001));
    assert_eq!(answers(&mut gateway), []);
    let verdict =
        Down::Verdict { id: InstanceId(0), verdict: Verdict::Allowed(PACE), term: Term(1) };
    gateway.receive(&leader(), verdict, at(10_002));
    gateway.receive(&leader(), acknowledge(gateway.last.0, 1), at(10_003));
    assert_eq!(answers(&mut gateway), [(RequestId(2), Answer::Accepted(PACE))]);
}

#[test]
fn a_verdict_that_came_after_a_batch_does_not_accept_what_the_batch_carried() {
    let mut gateway = led();
    gateway.beat(RequestId(1), &lease("a"), &identity(), at(1));
    gateway.beat(RequestId(2), &lease("b"), &identity(), at(1));
    let verdict =
        Down::Verdict { id: InstanceId(0), verdict: Verdict::Allowed(PACE), term: Term(1) };
    gateway.receive(&leader(), verdict, at(2));
    gateway.outputs();
    gateway.receive(&leader(), acknowledge(1, 1), at(3));
    assert_eq!(answers(&mut gateway), []);
}

#[test]
fn a_verdict_of_a_leader_that_was_followed_changes_nothing() {
    let mut gateway = with_an_instance();
    let verdict = Down::Verdict { id: InstanceId(0), verdict: Verdict::Unknown, term: Term(0) };
    gateway.receive(&leader(), verdict, at(5_000));
    assert!(gateway.roster.judgement(InstanceId(0)).is_some());
}

#[test]
fn an_identity_may_renew_what_a_leader_has_allowed_and_nothing_else() {
    let mut gateway = led();
    gateway.beat(RequestId(1), &lease("a"), &identity(), at(1));
    assert!(!gateway.may_renew(&lease("a"), &identity()), "it is not judged yet");
    let gateway = with_an_instance();
    assert!(gateway.may_renew(&lease("a"), &identity()));
    assert!(!gateway.may_renew(&lease("b"), &identity()));
    let other = Identity { user: "other".into(), pod: None };
    assert!(!gateway.may_renew(&lease("a"), &other));
    assert_eq!(gateway.streams(), 1);
}
