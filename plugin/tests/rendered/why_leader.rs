//! The argument of `why`, with what the leader has said.

use beatkeeper_api::explain::{
    ExplainDecision, ExplainFoundBy, ExplainGap, ExplainLease, ExplainOutage, ExplainPresence,
    ExplainProof, ExplainProvenance, ExplainReplica, Explanation,
};
use kubectl_beatkeeper::model::{store::Store, why::leader::Leader};

use crate::{
    objects::lease,
    why::{argued_with, one},
};

fn replica() -> ExplainReplica {
    let name = "beatkeeper-0-1a2b3c4d".to_owned();
    ExplainReplica { name, leads: true, term: Some(2), term_began: Some(3600.0) }
}

fn decided(state: &str, reason: &str, message: &str) -> Option<ExplainDecision> {
    let [state, reason, message] = [state, reason, message].map(str::to_owned);
    Some(ExplainDecision { at: 3.0, state, reason, message })
}

/// vm-1 of shop/greeter, which beat four seconds ago.
fn alive() -> Explanation {
    Explanation {
        lease: Some(ExplainLease {
            name: "greeter.vm-1".to_owned(),
            presence: ExplainPresence::Watched,
            gateway: None,
            last_change: 4.0,
            provenance: ExplainProvenance::Changed,
            silence: 4.0,
            last_interval: Some(10.0),
            pace_kept: 600.0,
            ttl: 30.0,
            deadline: 26.0,
            gaps: Vec::new(),
            live_read: None,
            read_after_deadline: false,
            expired: None,
            next_beat_wakes: false,
            published: true,
        }),
        proof: ExplainProof { last: Some(0.8), reaches_deadline: None, message: None },
        decision: decided("Ready", "Beating", ""),
        next_look: Some(16.0),
        ..Explanation::of("shop", "greeter", "vm-1", replica(), 0)
    }
}

/// The same, sixty seconds after its last beat.
fn silent(state: &str, reason: &str) -> Explanation {
    let mut told = alive();
    let lease = told.lease.as_mut().unwrap();
    (lease.last_change, lease.silence, lease.deadline) = (60.0, 60.0, -30.0);
    (lease.live_read, lease.read_after_deadline, lease.next_beat_wakes) = (Some(29.9), true, true);
    told.proof.reaches_deadline = Some(true);
    told.decision = decided(state, reason, "");
    told
}

fn argued(store: &Store, told: Explanation) -> (String, bool) {
    argued_with(store, "vm-1", &[], Leader::Explained(Box::new(told)))
}

fn held(reason: &str) -> Store {
    one("Held", reason, "", lease("vm-1", "192.0.2.11", 60), &[("192.0.2.11", true)])
}

#[test]
fn the_gateway_that_brought_the_last_beat_is_named() {
    let store =
        one("Ready", "Beating", "", lease("vm-1", "192.0.2.11", 4), &[("192.0.2.11", true)]);
    let mut told = alive();
    told.lease.as_mut().unwrap().gateway = Some("beatkeeper-gateway-5d4c8-x2x7k".to_owned());
    let (text, well) = argued(&store, told);
    assert!(well, "{text}");
    let expected =
        "brought by gateway beatkeeper-gateway-5d4c8-x2x7k 4.0s ago; one is due every 10s";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn an_instance_that_is_well_is_argued_from_what_the_leader_has_seen() {
    let store =
        one("Ready", "Beating", "", lease("vm-1", "192.0.2.11", 4), &[("192.0.2.11", true)]);
    let (text, well) = argued(&store, alive());
    assert!(well, "{text}");
    assert_eq!(
        text,
        "\
● vm-1 of shop/greeter is Ready (Beating): published as ready, since 4m10s

  ✓ registration  it publishes Service greeter (Published)
  ✓ leader        beatkeeper-0-1a2b3c4d has answered: it has led for 1h (term 2)
  ✓ Lease         Lease greeter.vm-1 exists, created 2h ago
  ✓ holder        spec.holderIdentity is vm-1
  ✓ address       it runs outside the cluster at 192.0.2.11; the operator allows that
  ✓ cordon        it is not cordoned
  ✓ last beat     seen 4.0s ago; the instance says at 2026-01-01 11:59:56Z; one is due every 10s, and the last one came 10s after the one before
  ✓ deadline      its ttl of 30s passes in 26s of proven time
  ✓ proof         beats can be written and are seen: the last probe that came back was sent 0.8s ago
  ✓ guard         the outage guard has found no broken path
  ✓ health        it says that it can serve
  ✓ decision      Ready (Beating) since 2026-01-01 11:55:50Z, decided anew 3.0s ago: Its beats arrive in time
  ✓ published     the slices list it as ready: it gets traffic
  · next          the leader looks at the registration again in 16s at the latest; a beat in time changes nothing

✓ Nothing.
"
    );
}

#[test]
fn what_holds_an_instance_is_told_with_its_numbers_and_the_status_may_lag() {
    let store = held("PathBroken");
    let mut told = silent("Held", "PathBroken");
    told.outage = Some(ExplainOutage {
        namespace: Some("shop".to_owned()),
        since: 90.0,
        holds_for: Some(270.0),
    });
    let (text, well) = argued(&store, told);
    assert!(!well);
    for step in [
        "✗ deadline      its ttl of 30s passed 30s ago in proven time",
        "· live read     sent 29s ago, after the deadline: the Lease had not changed",
        "✗ guard         the outage guard finds that for 1m30s almost no beats arrive in namespace shop: it holds the instance for 4m30s more at most",
    ] {
        assert!(text.contains(step), "{step}\n{text}");
    }
    assert!(!text.contains("· hold"), "{text}");

    let mut told = silent("Held", "Protected");
    (told.min_ready.wanted, told.min_ready.ready, told.min_ready.held) = (2, Some(1), Some(1));
    let (text, _) = argued(&held("Protected"), told.clone());
    let step = "✗ minReady      spec.protection.minReady is 2, and of all instances 1 beat and are ready: so the instance is held";
    assert!(text.contains(step), "{text}");
    // The leader is ahead of the status, and what to do follows from what it has decided.
    told.decision = decided("Expired", "TTLPassed", "no beat for its ttl of 30s");
    let (text, _) = argued(&held("Protected"), told);
    assert!(
        text.contains(
            "Expired (TTLPassed), decided anew 3.0s ago: no beat for its ttl of 30s; the status does not say it yet, but Held (Protected)"
        ),
        "{text}"
    );
    assert!(text.contains("→ Start it again; its next beat publishes it."), "{text}");
}

#[test]
fn gaps_a_former_ttl_and_an_earlier_process_move_the_deadline_and_are_named() {
    let store =
        one("Ready", "Beating", "", lease("vm-1", "192.0.2.11", 40), &[("192.0.2.11", true)]);
    let mut told = alive();
    let lease = told.lease.as_mut().unwrap();
    (lease.last_change, lease.silence, lease.ttl, lease.deadline) = (35.0, 40.0, 60.0, 32.0);
    lease.gaps = vec![ExplainGap { from: 30.0, to: 18.0, found_by: ExplainFoundBy::Probe }];
    lease.provenance = ExplainProvenance::Granted;
    let (text, _) = argued(&store, told);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "none seen since the leader's process found it 35s ago",
        "its ttl of 1m passes in 32s of proven time",
        "this is the former ttl, as it has not been seen to follow 30s",
        "an earlier process has proven 5.0s of its silence",
        "a gap moved it by 12s",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn without_a_proof_or_a_live_read_it_is_told_why_a_silent_instance_stays() {
    let mut told = silent("Held", "PathUnproven");
    told.proof.reaches_deadline = Some(false);
    told.proof.message = Some("the API server answers 403".to_owned());
    let lease = told.lease.as_mut().unwrap();
    (lease.live_read, lease.read_after_deadline) = (None, false);
    let (text, _) = argued(&held("PathUnproven"), told);
    for part in [
        "· live read     none since the deadline; before one it is not pruned",
        "✗ proof         the leader's probe does not come back, so nothing is pruned: the API server answers 403",
        "→ See why the operator cannot renew its own probe: its log.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_leader_that_was_not_asked_is_named_with_the_reason_and_changes_nothing_else() {
    let store =
        one("Ready", "Beating", "", lease("vm-1", "192.0.2.11", 4), &[("192.0.2.11", true)]);
    let (without, _) = argued_with(&store, "vm-1", &[], Leader::NotWanted);
    let (text, well) =
        argued_with(&store, "vm-1", &[], Leader::Unasked("no replica leads".to_owned()));
    assert!(well, "{text}");
    let line =
        "  · leader        not asked: no replica leads. This is argued from API objects alone\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(text.replace(line, ""), without);
}
