//! Decisions about instances whose beats gateways carry.

use super::*;
use crate::{
    carriers::silence::{Finding, Held},
    decide::{gateways::Findings, verdict::Suspect},
    liveness::index::{CarrierId, Delivery, Removal},
};

const LEASE: &str = "greeter.vm-1";

fn gateway() -> CarrierId {
    CarrierId::at_place(0)
}

fn carry(index: &mut Index, now: u64) {
    let (carried, _) = index.find_carried(&key(LEASE)).expect("it is known");
    index.carry(carried, gateway(), Delivery::Fresh, at(now)).expect("it is the same");
}

/// A gateway has carried the beats for longer than a ttl, the last one at second 41.
fn carried() -> Index {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    carry(&mut index, 5000);
    carry(&mut index, 41_000);
    index
}

/// The probe has never come back.
fn finds(finding: Finding) -> World {
    let names = [(gateway(), "gw-1".into())].into();
    let gateways = Some(Findings { of: vec![finding], names, unanswered: false });
    let mut world = World::new().published("192.0.2.1");
    world.evidence = Evidence { gateways, ..Evidence::default() };
    world
}

fn read(index: &mut Index, sent: u64) {
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(sent), at(sent));
}

fn suspected(verdict: &Verdict) -> Option<MonotonicTime> {
    verdict.lease.as_ref()?.suspect.as_ref()?.deadline
}

#[test]
fn an_instance_whose_beats_a_gateway_carries_lives_whatever_its_lease_says() {
    let verdict = finds(Finding::Waits { until: at(71_000) }).one(&carried(), at(45_000));
    assert_eq!((verdict.state.as_str(), verdict.requeue_at), ("Ready", Some(at(61_000))));
    assert_eq!(verdict.last_beat, Some(at(41_000)));
}

#[test]
fn a_silent_instance_of_a_gateway_leaves_after_a_live_read_and_needs_no_probe() {
    let (world, mut index) = (finds(Finding::Silent { deadline: at(71_000) }), carried());
    assert_eq!(suspected(&world.one(&index, at(71_000))), Some(at(71_000)));
    read(&mut index, 71_000);
    assert_eq!(
        line(&world.one(&index, at(71_000))),
        "Expired TTLPassed: no beat for its ttl of 30s; gateway gw-1 carried its last one"
    );
}

#[test]
fn the_read_of_the_election_is_awaited() {
    let (deadline, mut index) = (at(71_000), carried());
    read(&mut index, 71_000);
    let doubted = finds(Finding::NeedsElectionRead { deadline }).one(&index, at(71_000));
    assert_eq!((doubted.state.as_str(), suspected(&doubted)), ("Ready", Some(deadline)));
}

#[test]
fn an_instance_is_held_if_gateways_do_not_prove_in_time_that_beats_arrive() {
    let mut world = finds(Finding::NeedsProof { deadline: at(71_000) });
    let mut index = carried();
    read(&mut index, 71_000);
    assert_eq!(world.one(&index, at(71_000)).reason.as_str(), "BeatOverdue", "they are asked");
    world.evidence.gateways.as_mut().expect("gateways").unanswered = true;
    let held = world.one(&index, at(71_000));
    assert_eq!((held.state.as_str(), held.reason.as_str()), ("Held", "GatewayUnproven"));
    assert!(held.message.contains("gateway gw-1"), "{}", held.message);
}

#[test]
fn what_gateways_hold_stays_published_and_what_is_not_published_stays_out() {
    let index = carried();
    for (held, reason, again_at) in [
        (Held::CarrierIsCutOff, "GatewayCutOff", 95_000),
        (Held::NoCarrier, "NoGateway", 95_000),
        (Held::RoundIsOpen, "GatewayUnproven", 90_250),
    ] {
        let mut world = finds(Finding::Held(held));
        let verdict = world.one(&index, at(90_000));
        assert_eq!((verdict.state.as_str(), verdict.reason.as_str()), ("Held", reason));
        assert_eq!(verdict.requeue_at, Some(at(again_at)));
        assert_eq!(verdict.message.contains("gw-1"), held == Held::CarrierIsCutOff);
        world.published.clear();
        let verdict = world.one(&index, at(90_000));
        assert_eq!((verdict.state.as_str(), verdict.reason.as_str()), ("Waiting", "AwaitingBeat"));
    }
}

#[test]
fn for_a_ttl_after_the_way_of_its_beats_has_changed_a_prune_needs_both_proofs() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    carry(&mut index, 5000);
    read(&mut index, 35_000);
    let mut world = finds(Finding::Silent { deadline: at(35_000) });
    let doubted = world.one(&index, at(35_000));
    assert_eq!((doubted.state.as_str(), suspected(&doubted)), ("Ready", Some(at(35_000))));
    world.evidence.probed = Some(at(35_000));
    assert_eq!(world.one(&index, at(35_000)).state.as_str(), "Expired");
    world.evidence.proven = crate::liveness::proven_time::ProvenTime::with_gaps(vec![
        crate::liveness::proven_time::Gap { from: at(10_000), to: at(30_000) },
    ]);
    world.evidence.path = world.evidence.proven.clone();
    assert_eq!(world.one(&index, at(35_000)).state.as_str(), "Ready", "the later deadline counts");
}

#[test]
fn an_instance_that_has_gone_back_to_its_lease_needs_the_proof_of_gateways_for_a_ttl() {
    let mut index = carried();
    let by_gateway = |index: &Index| {
        let records = index.records_of(&key("greeter"));
        records[0].may_beat_by_gateway(std::time::Duration::from_secs(30))
    };
    index.observe("shop", beat("vm-1", 2, 2), at(50_000));
    assert!(by_gateway(&index));
    index.observe("shop", beat("vm-1", 3, 3), at(79_999));
    assert!(by_gateway(&index));
    index.observe("shop", beat("vm-1", 4, 4), at(80_000));
    assert!(!by_gateway(&index));
}

#[test]
fn an_instance_that_beats_by_its_lease_waits_for_what_a_loss_of_a_gateway_gives_it() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    read(&mut index, 31_000);
    let mut world = finds(Finding::Waits { until: at(51_000) });
    world.evidence.probed = Some(at(31_000));
    assert_eq!(world.one(&index, at(31_000)).state.as_str(), "Ready");
}

#[test]
fn only_the_suspects_that_gateways_do_not_hold_are_read() {
    let (index, world) = (carried(), finds(Finding::Held(Held::NoCarrier)));
    let in_doubt = |finding| {
        let suspects = vec![Suspect { lease: LEASE.into(), deadline: Some(at(71_000)) }];
        let (evidence, ttl) = (&world.evidence, &world.ttl);
        let finding = |_: &Record, _| Some(finding);
        evidence.in_doubt(suspects, &world.registration, ttl, &index, finding, at(71_000)).len()
    };
    assert_eq!(in_doubt(Finding::Held(Held::NoCarrier)), 0);
    assert_eq!(in_doubt(Finding::Waits { until: at(71_001) }), 0);
    assert_eq!(in_doubt(Finding::NeedsProof { deadline: at(71_000) }), 1);
}

#[test]
fn a_carried_beat_since_the_snapshot_overtakes_the_decision_to_prune() {
    let mut index = carried();
    let record = index.records_of(&key("greeter")).remove(0);
    let outcome = Outcome::Expired(Removal::ForSilence);
    let decision = LeaseDecision { outcome, ..published_at(world_pace(), &record) };
    carry(&mut index, 71_500);
    let result = index.commit(&key("greeter"), [&decision], at(71_501));
    assert_eq!(result, CommitResult::Overtaken);
    assert!(index.records_of(&key("greeter"))[0].expired_at.is_none());
}

fn world_pace() -> Pace {
    World::new().registration.pace()
}
