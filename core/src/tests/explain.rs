//! What a replica tells of one instance (`/explain`).

use std::time::Duration;

use beatkeeper_api::explain::{
    ExplainFoundBy, ExplainGap, ExplainPresence, ExplainProvenance, ExplainReplica, Explanation,
};
use serde_json::json;

use super::{World, at, beat, commit, found, index, inherited, key};
use crate::{
    explain::{Known, Path, explain},
    liveness::{
        index::Index, outage_guard::OutageGuard, probe_tracker::ProbeTracker, unproven::Unproven,
    },
    report::summary::DecisionSummary,
    vocabulary::{monotonic_time::MonotonicTime, pace::Pace, version::Version},
};

/// A replica with everything that it knows.
struct Replica {
    world: World,
    index: Index,
    path: ProbeTracker,
    guard: OutageGuard,
    report: Option<(DecisionSummary, MonotonicTime)>,
}

impl Replica {
    fn new(world: World, index: Index) -> Self {
        let path = ProbeTracker::new(at(0));
        Self { world, index, path, guard: OutageGuard::default(), report: None }
    }

    /// The probe comes back at once, every second.
    fn proves(&mut self, seconds: std::ops::RangeInclusive<u64>) {
        for second in seconds {
            let token = self.path.send(at(second * 1000), 1_000_000 * second as i64);
            self.path.came_back(token, Version(second), at(second * 1000));
        }
    }

    /// Decides by what the probe proves, and reports it.
    fn decides(&mut self, now: u64) {
        let now = at(now);
        let evidence = crate::decide::evidence::Evidence::known(
            &self.world.registration,
            &self.path,
            &self.guard,
        );
        self.world.evidence = evidence;
        let verdicts = self.world.decide(&self.index, now);
        let _ = commit(&mut self.index, &verdicts, now);
        self.report = Some((DecisionSummary::of(verdicts, &self.world.published), now));
    }

    fn explains(&self, instance: &str, now: u64) -> Explanation {
        let replica = ExplainReplica {
            name: "beatkeeper-0".to_owned(),
            leads: true,
            term: Some(1),
            term_began: Some(0.0),
        };
        let lease = format!("greeter.{instance}");
        let record = self.index.record(&key("greeter"), &lease);
        let interval = self.index.last_interval(&key("greeter"), &lease);
        explain(
            replica,
            instance,
            &Known {
                carried: None,
                registration: &self.world.registration,
                ttl: &self.world.ttl,
                record: record.map(|record| (record, interval)),
                path: &Path::known(&self.world.registration, &self.path, &self.guard),
                report: self.report.as_ref().map(|(report, made)| (report, *made)),
                next_look: Some(at(31_000)),
                now: at(now),
            },
        )
    }
}

/// A replica that has seen vm-1 beat at seconds 1 and 11.
fn seen_twice() -> Replica {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1_000));
    index.observe("shop", beat("vm-1", 2, 2), at(11_000));
    let mut replica = Replica::new(World::new().published("192.0.2.1"), index);
    replica.proves(0..=12);
    replica.decides(12_000);
    replica
}

#[test]
fn of_an_instance_that_beats_its_last_beats_its_deadline_and_the_decision_are_told() {
    let told = seen_twice().explains("vm-1", 12_500);
    let lease = told.lease.expect("a Lease");
    assert_eq!((lease.last_change, lease.last_interval), (1.5, Some(10.0)));
    assert_eq!((lease.ttl, lease.deadline, lease.silence), (30.0, 28.5, 1.5));
    assert_eq!(lease.provenance, ExplainProvenance::Changed);
    assert_eq!(lease.presence, ExplainPresence::Watched);
    assert!(lease.published && !lease.next_beat_wakes && !lease.read_after_deadline);
    assert_eq!((lease.live_read, lease.expired, lease.gaps.len()), (None, None, 0));
    assert_eq!((told.proof.last, told.proof.reaches_deadline), (Some(0.5), None));
    let decision = told.decision.expect("a decision");
    assert_eq!((decision.at, &*decision.state, &*decision.reason), (0.5, "Ready", "Beating"));
    assert_eq!((told.min_ready.ready, told.next_look, told.outage), (Some(1), Some(18.5), None));
}

#[test]
fn of_a_dead_instance_the_live_read_and_the_proof_after_the_deadline_are_told() {
    let mut replica = seen_twice();
    replica.proves(13..=40);
    replica.decides(40_500);
    let key = crate::vocabulary::key::Key::new("shop", "greeter.vm-1");
    replica.index.confirm(&key, found(&beat("vm-1", 2, 2)), at(40_600), at(40_605));
    let before = replica.explains("vm-1", 41_000);
    let lease = before.lease.expect("a Lease");
    assert_eq!((lease.deadline, lease.live_read), (0.0, Some(0.4)));
    assert!(!lease.read_after_deadline, "it was sent before");
    assert!(lease.next_beat_wakes, "it is late");
    assert_eq!(before.proof.reaches_deadline, Some(false));
    replica.index.confirm(&key, found(&beat("vm-1", 2, 2)), at(41_100), at(41_105));
    replica.proves(41..=42);
    replica.decides(42_000);
    let dead = replica.explains("vm-1", 43_000);
    let lease = dead.lease.expect("a Lease");
    assert_eq!((lease.deadline, lease.live_read, lease.expired), (-2.0, Some(1.9), Some(1.0)));
    assert!(lease.read_after_deadline && !lease.published);
    assert_eq!(dead.proof.reaches_deadline, Some(true));
    assert_eq!(dead.decision.expect("a decision").reason, "TTLPassed");
}

#[test]
fn a_gap_moves_the_deadline_and_is_told_as_well_as_why_nothing_is_proven() {
    let mut replica = seen_twice();
    // The next proof comes ten seconds later than a pace of one second allows.
    replica
        .path
        .set_pace(Some(Pace { ttl: Duration::from_secs(3), interval: Duration::from_secs(1) }));
    replica.proves(22..=23);
    replica.path.failed(Unproven::TooSlow);
    let told = replica.explains("vm-1", 24_000);
    let lease = told.lease.expect("a Lease");
    let gap = ExplainGap { from: 12.0, to: 2.0, found_by: ExplainFoundBy::Probe };
    assert_eq!(lease.gaps, [gap]);
    assert_eq!(lease.deadline, 27.0, "17 s, and the ten of the gap");
    assert_eq!(told.proof.message.as_deref(), Some("it takes too long"));
}

#[test]
fn what_the_guard_has_found_is_told_and_for_how_long_it_may_hold() {
    let beats: Vec<_> = (0..12).map(|n| beat(&format!("vm-{n}"), 1, n)).collect();
    let mut index = index();
    for one in beats {
        index.observe("shop", one, at(1_000));
    }
    let mut replica = Replica::new(World::new().published("192.0.2.1"), index);
    replica.proves(0..=32);
    replica.decides(2_000);
    let records = replica.index.records_of(&key("greeter"));
    let pace = replica.world.registration.pace();
    let silence = Some(records[0].silence());
    let broken = replica.guard.check(
        &key("greeter"),
        pace,
        silence,
        &replica.index,
        |_| Some(pace),
        at(31_000),
    );
    assert!(broken.is_some(), "no beat of twelve has arrived");
    let told = replica.explains("vm-0", 32_000).outage.expect("an outage");
    assert_eq!(told.namespace.as_deref(), Some("shop"));
    // The window before is the slack, 20 s. The hold ends ten ttls after the deadline.
    assert_eq!((told.since, told.holds_for), (21.0, Some(299.0)));
}

#[test]
fn the_instances_that_min_ready_holds_are_counted() {
    let world = World::with(json!({
        "ttl": "30s", "interval": "10s", "protection": { "minReady": 2 },
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
    }));
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1_000));
    let mut replica = Replica::new(world.published("192.0.2.1"), index);
    replica.proves(0..=32);
    replica.decides(2_000);
    let key = crate::vocabulary::key::Key::new("shop", "greeter.vm-1");
    replica.index.confirm(&key, found(&beat("vm-1", 1, 1)), at(31_500), at(31_501));
    replica.decides(32_000);
    let told = replica.explains("vm-1", 32_000);
    assert_eq!(told.decision.expect("a decision").reason, "Protected");
    let counted = told.min_ready;
    assert_eq!((counted.wanted, counted.ready, counted.held), (2, Some(0), Some(1)));
}

#[test]
fn what_was_there_before_the_process_is_told_as_such_and_what_is_unknown_is_left_out() {
    let mut replica = Replica::new(World::new(), inherited(&[beat("vm-1", 1, 1)]));
    replica.proves(0..=1);
    let told = replica.explains("vm-1", 1_000);
    let lease = told.lease.expect("a Lease");
    assert_eq!(lease.provenance, ExplainProvenance::Inherited);
    assert_eq!(lease.last_interval, None);
    assert_eq!((told.decision, told.min_ready.ready), (None, None), "it has decided nothing");
    let unknown = replica.explains("vm-2", 1_000);
    assert_eq!((unknown.lease, unknown.proof.last), (None, Some(0.0)));
}
