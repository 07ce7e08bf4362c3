use super::*;
use crate::{
    carriers::{
        rights::{BoundPod, Identity},
        silence::{Finding, Held},
    },
    liveness::{
        index::{LeaseDecision, NextBeat, Outcome, Record, Removal},
        rhythm::Wanted,
    },
    objects::heartbeat::HeartbeatLease,
    vocabulary::pace::Pace,
};

const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };

const TERM: Term = Term(4);

fn at(millis: u64) -> MonotonicTime {
    MonotonicTime::from_millis(millis)
}

fn pod() -> PodUid {
    "gateway".into()
}

fn carrier(epoch: u64) -> Incarnation {
    Incarnation { pod: pod(), epoch }
}

fn claim() -> Option<Claim> {
    Some(Claim { term: TERM, until: at(1_000_000) })
}

/// A leader with one gateway, which carries for one instance, and the index.
struct Leader {
    set: CarrierSet,
    index: Index,
    batch: u64,
}

impl Leader {
    /// Leads since second 1, and the gateway is listed.
    fn new() -> Self {
        let times = Times { longest_ttl: PACE.ttl, tolerance: PACE.tolerance() };
        let mut set = CarrierSet::new(times, at(0));
        let mut index = Index::default();
        index.begin_list();
        observe(&mut index, "1", 1, at(0));
        index.end_list();
        let hello = Up::Hello { incarnation: carrier(1), term: None };
        set.receive(&pod(), hello, false, &mut index, at(100));
        let mut leader = Self { set, index, batch: 0 };
        leader.receive(Up::Since { up_to: Sequence(0), ids: Vec::new() }, 100);
        leader.receive(introduction(), 100);
        leader.begin_term(&[carrier(1)], 1000);
        leader
    }

    fn begin_term(&mut self, listed: &[Incarnation], now: u64) -> Vec<Effect> {
        let listed = Some(listed.iter().cloned().collect());
        self.set.begin_term(TERM, listed, &mut self.index, at(now))
    }

    fn receive(&mut self, frame: Up, now: u64) -> Vec<Effect> {
        self.set.receive(&pod(), frame, true, &mut self.index, at(now))
    }

    /// A batch with a beat that was sent `age` milliseconds after the tick that it returns.
    fn batch(&mut self, age: u64, now: u64) {
        self.batch += 1;
        let (sequence, echo) = (Sequence(self.batch), Tick::at(at(now - age)));
        let ids = [InstanceId(0)].into();
        self.receive(Up::Batch { sequence, echo, answers: None, ids }, now);
    }

    /// Asks the gateway, which answers at once.
    fn prove(&mut self, now: u64) {
        for effect in self.set.ask_all(at(now)) {
            let Effect::Send(_, Down::Ask { question, .. }) = effect else { continue };
            self.batch += 1;
            let (sequence, echo) = (Sequence(self.batch), Tick::at(at(now)));
            let batch = Up::Batch { sequence, echo, answers: Some(question), ids: [].into() };
            self.receive(batch, now);
        }
    }

    /// Asks each second, from one to the other.
    fn prove_each_second(&mut self, from: u64, to: u64) {
        (from..=to).for_each(|second| self.prove(second * 1000));
    }

    fn acknowledged(&mut self, claim: Option<Claim>, all_know: bool, now: u64) -> usize {
        self.set.acknowledge(claim, all_know, at(now)).len()
    }

    fn record(&self) -> Record {
        self.index.records_of(&Key::new("shop", "reg")).remove(0)
    }

    fn finding(&self, now: u64) -> Finding {
        self.set.finding(&self.record(), PACE, Some(at(now)), at(now))
    }
}

/// The watch shows the Lease of the instance, which this Pod owns.
fn observe(index: &mut Index, owner: &str, version: u64, now: MonotonicTime) {
    let lease: HeartbeatLease = serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": "reg.a", "namespace": "shop", "uid": "lease", "resourceVersion": version.to_string(),
            "labels": { beatkeeper_api::heartbeat::REGISTRATION_LABEL: "reg" },
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": owner, "controller": true }
            ],
        },
        "spec": { "holderIdentity": "a", "renewTime": "2026-01-01T00:00:00.000000Z" },
    }))
    .expect("a Lease");
    index.observe("shop", crate::objects::heartbeat::Heartbeat::read(&lease), now);
}

fn introduction() -> Up {
    let identity = Identity {
        user: "system:serviceaccount:shop:default".into(),
        pod: Some(BoundPod { name: "a".into(), uid: "1".into() }),
    };
    Up::Introduce { id: InstanceId(0), lease: Key::new("shop", "reg.a"), identity, allowed: true }
}

#[test]
fn a_beat_is_acknowledged_by_the_leader_whose_claim_holds_after_it_was_taken_in() {
    let mut leader = Leader::new();
    leader.batch(100, 2000);
    assert_eq!(leader.acknowledged(None, true, 2001), 0);
    let over = Some(Claim { term: TERM, until: at(2001) });
    assert_eq!(leader.acknowledged(over, true, 2001), 0);
    let earlier = Some(Claim { term: Term(3), until: at(9000) });
    assert_eq!(leader.acknowledged(earlier, true, 2001), 0);
    assert_eq!(leader.acknowledged(claim(), true, 2001), 1);
    assert_eq!(leader.acknowledged(claim(), true, 2002), 0, "once");
}

#[test]
fn nothing_is_acknowledged_while_a_replica_does_not_know_carriers() {
    let mut leader = Leader::new();
    leader.batch(100, 2000);
    assert_eq!(leader.acknowledged(claim(), false, 2001), 0);
}

#[test]
fn a_gateway_that_the_election_does_not_list_yet_is_not_acknowledged() {
    let mut leader = Leader::new();
    leader.begin_term(&[], 1500);
    leader.batch(100, 2000);
    assert_eq!(leader.acknowledged(claim(), true, 2001), 0);
    let wanted = leader.set.list_to_write(at(2001)).expect("a list to write");
    leader.set.list_written(wanted);
    assert_eq!(leader.acknowledged(claim(), true, 2002), 1);
}

#[test]
fn a_batch_that_was_long_under_way_is_neither_taken_in_nor_acknowledged() {
    let mut leader = Leader::new();
    leader.prove(1001);
    let seen = leader.record().seen;
    leader.batch(1001, 60_000);
    assert_eq!(leader.record().seen, seen);
    assert_eq!(leader.acknowledged(claim(), true, 60_001), 0);
    leader.batch(1000, 60_002);
    assert_eq!(leader.record().seen, at(60_002));
}

#[test]
fn a_batch_out_of_order_closes_the_stream() {
    let mut leader = Leader::new();
    let batch = Up::Batch { sequence: Sequence(2), echo: Tick(0), answers: None, ids: [].into() };
    assert_eq!(leader.receive(batch, 2000), [Effect::Close(pod())]);
}

#[test]
fn a_pod_that_was_replaced_renews_nothing_for_the_one_that_follows() {
    let mut leader = Leader::new();
    leader.batch(100, 2000);
    observe(&mut leader.index, "2", 2, at(3000));
    let seen = leader.record().seen;
    leader.batch += 1;
    let (sequence, echo) = (Sequence(leader.batch), Tick::at(at(4000)));
    let ids = [InstanceId(0)].into();
    let effects = leader.receive(Up::Batch { sequence, echo, answers: None, ids }, 4000);
    assert_eq!(effects, [Effect::Judge(pod(), InstanceId(0))]);
    assert_eq!(leader.record().seen, seen);
}

#[test]
fn an_instance_is_silent_a_ttl_after_its_last_beat_if_all_is_proven() {
    let mut leader = Leader::new();
    leader.batch(0, 2000);
    leader.prove_each_second(2, 31);
    assert_eq!(leader.finding(31_999), Finding::Waits { until: at(32_000) });
    assert_eq!(leader.finding(32_000), Finding::NeedsProof { deadline: at(32_000) });
    leader.prove(32_000);
    let unread = leader.set.finding(&leader.record(), PACE, Some(at(31_999)), at(32_000));
    assert_eq!(unread, Finding::NeedsElectionRead { deadline: at(32_000) });
    assert_eq!(leader.finding(32_000), Finding::Silent { deadline: at(32_000) });
}

#[test]
fn a_loss_gives_each_instance_a_full_ttl_from_its_end() {
    let mut leader = Leader::new();
    leader.batch(0, 2000);
    let lost = Incarnation { pod: "lost".into(), epoch: 1 };
    leader.begin_term(&[carrier(1), lost], 3000);
    leader.prove(3001);
    assert_eq!(leader.set.loss, None);
    leader.set.wake(&leader.index, |_| false, at(4000));
    assert_eq!(leader.finding(5000), Finding::Waits { until: at(34_000) });
}

#[test]
fn no_silence_counts_before_each_listed_gateway_has_answered() {
    let mut leader = Leader::new();
    leader.batch(0, 2000);
    leader.prove_each_second(2, 40);
    leader.begin_term(&[carrier(1)], 40_500);
    assert_eq!(leader.finding(40_500), Finding::Held(Held::RoundIsOpen));
    leader.prove(40_501);
    assert_eq!(leader.finding(40_501), Finding::Silent { deadline: at(32_000) });
}

#[test]
fn an_instance_of_a_gateway_that_is_cut_off_and_lives_is_held() {
    let mut leader = Leader::new();
    leader.batch(0, 2000);
    leader.prove_each_second(2, 10);
    leader.set.disconnected(&pod(), at(10_500));
    leader.set.wake(&leader.index, |_| false, at(11_000));
    assert_eq!(leader.finding(60_000), Finding::Held(Held::CarrierIsCutOff));
    leader.set.wake(&leader.index, |_| true, at(61_000));
    assert_eq!(leader.finding(100_000), Finding::Held(Held::NoCarrier), "it was the only one");
}

#[test]
fn after_the_death_of_its_gateway_an_instance_has_a_ttl_and_the_others_prove_it() {
    let mut leader = Leader::new();
    let other: PodUid = "other".into();
    leader.batch(0, 2000);
    let hello = Up::Hello { incarnation: Incarnation { pod: other.clone(), epoch: 9 }, term: None };
    leader.set.receive(&other, hello, true, &mut leader.index, at(2000));
    leader.prove_each_second(2, 10);
    leader.set.disconnected(&pod(), at(10_500));
    leader.set.wake(&leader.index, |lost| *lost == pod(), at(30_000));
    let Finding::Waits { until } = leader.finding(30_001) else { panic!("it is not due") };
    assert_eq!(until, at(60_000));
}

#[test]
fn the_answer_of_a_batch_that_was_not_taken_in_proves_nothing() {
    let mut leader = Leader::new();
    leader.prove(1001);
    let last = leader.set.carriers[0].proof.last();
    let Some(Effect::Send(_, Down::Ask { question, .. })) = leader.set.ask_all(at(2000)).pop()
    else {
        panic!("it asks")
    };
    leader.batch += 1;
    let (sequence, echo) = (Sequence(leader.batch), Tick::at(at(2000)));
    let late = Up::Batch { sequence, echo, answers: Some(question), ids: [].into() };
    leader.receive(late, 3001);
    assert_eq!(leader.set.carriers[0].proof.last(), last);
}

#[test]
fn a_gateway_that_proves_nothing_holds_its_instances_for_ten_ttls() {
    let mut leader = Leader::new();
    leader.batch(0, 2000);
    leader.prove_each_second(2, 10);
    assert_eq!(leader.finding(309_999), Finding::NeedsProof { deadline: at(32_000) });
    let Finding::Waits { until } = leader.finding(310_000) else { panic!("it has a ttl more") };
    assert_eq!(until, at(340_000));
}

#[test]
fn a_batch_that_an_other_leader_may_have_accepted_is_not_dropped() {
    let mut leader = Leader::new();
    leader.prove(1001);
    leader.batch += 1;
    let (sequence, echo) = (Sequence(leader.batch), Tick::at(at(2000)));
    let late = Up::Batch { sequence, echo, answers: None, ids: [InstanceId(0)].into() };
    leader.set.receive(&pod(), late, false, &mut leader.index, at(20_000));
    assert_eq!(leader.record().seen, at(20_000));
}

/// The instance is decided to be dead. In the next term it has to be found published, or to beat.
fn a_death_is_doubted_by_the_next_term(mut leader: Leader) {
    let record = leader.record();
    let decision = LeaseDecision {
        lease: record.lease.clone(),
        token: record.token.clone(),
        carried_at: record.carried_at(),
        outcome: Outcome::Expired(Removal::ForSilence),
        next_beat: NextBeat::Wakes,
        wanted: Wanted::at(PACE, None),
        placed: true,
    };
    let _ = leader.index.commit(&Key::new("shop", "reg"), [&decision], at(40_000));
    assert!(leader.record().expired_at.is_some());
    leader.begin_term(&[carrier(1)], 90_000);
    let record = leader.record();
    assert!(record.expired_at.is_none() && record.provenance.awaits_beat());
    assert_eq!(record.seen, at(90_000));
}

#[test]
fn what_was_decided_to_be_dead_in_an_earlier_term_has_to_be_found_published_or_to_beat() {
    let mut leader = Leader::new();
    leader.batch(0, 2000);
    a_death_is_doubted_by_the_next_term(leader);
}

#[test]
fn a_death_is_doubted_also_if_the_last_beat_that_was_seen_renewed_the_lease() {
    let leader = Leader::new();
    assert_eq!(leader.record().carrier, None, "no gateway has brought a beat");
    a_death_is_doubted_by_the_next_term(leader);
}

#[test]
fn a_replica_that_stands_by_keeps_nothing_of_an_instance_that_no_leader_has_allowed() {
    let mut leader = Leader::new();
    leader.set.end_term();
    let introduce = |leader: &mut Leader, allowed| {
        let (id, lease) = (InstanceId(7), Key::new("shop", "reg.stranger"));
        let identity = Identity { user: "system:serviceaccount:shop:vm".into(), pod: None };
        let frame = Up::Introduce { id, lease, identity, allowed };
        leader.set.receive(&pod(), frame, false, &mut leader.index, at(3000));
        leader.set.named(&pod(), id).is_some()
    };
    assert!(!introduce(&mut leader, false));
    assert!(introduce(&mut leader, true));
}

#[test]
fn a_beat_that_could_not_be_taken_in_is_named_in_the_acknowledgement() {
    let mut leader = Leader::new();
    observe(&mut leader.index, "2", 2, at(1500));
    leader.batch(0, 2000);
    let effects = leader.set.acknowledge(claim(), true, at(2001));
    let not_held = vec![InstanceId(0)];
    let frame = Down::Acknowledge { batch: Sequence(1), term: TERM, not_held };
    assert_eq!(effects, [Effect::Send(pod(), frame)]);
}

#[test]
fn a_term_that_gateways_have_left_behind_is_told() {
    let mut leader = Leader::new();
    assert_eq!(leader.set.highest_term(), None);
    let hello = Up::Hello { incarnation: carrier(1), term: Some(Term(9)) };
    leader.receive(hello, 2000);
    assert_eq!(leader.set.highest_term(), Some(Term(9)));
}

#[test]
fn a_gateway_that_repeats_what_this_replica_has_told_it_knows_no_other_term() {
    let mut leader = Leader::new();
    leader.set.disconnected(&pod(), at(1500));
    let hello = |epoch| Up::Hello { incarnation: carrier(epoch), term: Some(TERM) };
    leader.receive(hello(1), 2000);
    assert_eq!(leader.set.highest_term(), None);
    // This process has never been told so by this replica.
    leader.receive(hello(2), 3000);
    assert_eq!(leader.set.highest_term(), Some(TERM));
    leader.set.disconnected(&pod(), at(3500));
    leader.receive(hello(2), 4000);
    assert_eq!(leader.set.highest_term(), Some(TERM));
}
