//! The argument of `why`.

use kubectl_beatkeeper::{
    model::{
        assemble,
        event::Transition,
        store::Store,
        why::{self, leader::Leader},
    },
    render,
};
use serde_json::{Value, json};

use crate::objects::{ago, lease, listed, now, registration, slice, store};

fn argued(store: &Store, instance: &str, events: &[Transition]) -> (String, bool) {
    argued_with(store, instance, events, Leader::NotWanted)
}

/// The argument with what the leader has said.
pub fn argued_with(
    store: &Store,
    instance: &str,
    events: &[Transition],
    leader: Leader,
) -> (String, bool) {
    let object = store.registrations.values().next().unwrap();
    let view = assemble::registration(store, object, now());
    let why = why::why(store, &view, instance, events, leader, now()).unwrap();
    let found = view.instance(instance).unwrap();
    let lines = render::why::lines(&view, found, &why, 200, now());
    (lines.iter().map(|line| line.plain() + "\n").collect(), why.well)
}

/// A registration with vm-1 alone.
pub fn one(
    state: &str,
    reason: &str,
    message: &str,
    lease: Value,
    published: &[(&str, bool)],
) -> Store {
    let instances = json!([listed("vm-1", state, reason, message)]);
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", published)];
    store(registration("greeter", instances), &[lease], &slices, &[])
}

#[test]
fn a_dead_instance() {
    let message = "no beat for its ttl of 30s";
    let store = one("Expired", "TTLPassed", message, lease("vm-1", "192.0.2.11", 250), &[]);
    let event = json!({
        "involvedObject": { "kind": "ServiceRegistration", "name": "greeter" },
        "related": { "kind": "Lease", "name": "greeter.vm-1" },
        "reason": "InstanceExpired", "message": "vm-1: no beat for its ttl of 30s", "type": "Warning",
        "eventTime": ago(220),
    });
    let events = [Transition::read(&event, "greeter").unwrap()];
    let (text, well) = argued(&store, "vm-1", &events);
    assert!(!well);
    assert_eq!(
        text,
        "\
✗ vm-1 of shop/greeter is Expired (TTLPassed): not published, since 4m10s

  ✓ registration  it publishes Service greeter (Published)
  ✓ Lease         Lease greeter.vm-1 exists, created 2h ago
  ✓ holder        spec.holderIdentity is vm-1
  ✓ address       it runs outside the cluster at 192.0.2.11; the operator allows that
  ✓ cordon        it is not cordoned
  ✗ last beat     4m10s ago, at 2026-01-01 11:55:50Z; one is due every 10s
  ✗ deadline      its ttl of 30s passed 3m40s ago, at 2026-01-01 11:56:20Z
  · health        it last said that it can serve
  ✗ decision      Expired (TTLPassed) since 2026-01-01 11:55:50Z: no beat for its ttl of 30s
  · published     it is in no slice of the Service

Last transitions, from events:
  ! 2026-01-01 11:56:20Z  InstanceExpired: vm-1: no beat for its ttl of 30s

→ Start it again; its next beat publishes it.
"
    );
}

#[test]
fn an_instance_that_is_well() {
    let lease = lease("vm-1", "192.0.2.11", 4);
    let store = one("Ready", "Beating", "", lease, &[("192.0.2.11", true)]);
    let (text, well) = argued(&store, "vm-1", &[]);
    assert!(well, "{text}");
    assert!(
        text.contains("✓ deadline      its ttl of 30s passes in 26s, at 2026-01-01 12:00:26Z"),
        "{text}"
    );
    assert!(
        text.contains("✓ published     the slices list it as ready: it gets traffic"),
        "{text}"
    );
    assert!(text.ends_with("\n✓ Nothing.\n"), "{text}");
}

/// A store, and what the argument says: a step, and what to do.
type Trouble = (Store, &'static str, &'static str);

fn with(annotation: &str, value: &str) -> Value {
    let mut lease = lease("vm-1", "192.0.2.11", 4);
    lease["metadata"]["annotations"][annotation] = value.into();
    lease
}

/// What people, Leases and addresses may be in the way with.
fn troubles_of_claims() -> Vec<Trouble> {
    let sound = lease("vm-1", "192.0.2.11", 4);
    let mut foreign = sound.clone();
    foreign["spec"]["holderIdentity"] = "vm-9".into();
    let out: &[(&str, bool)] = &[];
    let not_ready: &[(&str, bool)] = &[("192.0.2.11", false)];
    vec![
        (
            one("Cordoned", "Cordoned", "", with("beatkeeper.dev/cordoned", "bad disk"), out),
            "✗ cordon        a person has cordoned it: bad disk",
            "→ If it may come back: kubectl -n shop annotate lease greeter.vm-1 beatkeeper.dev/cordoned-",
        ),
        (
            one(
                "NotReady",
                "HealthFailing",
                "",
                with("beatkeeper.dev/health", "Failing"),
                not_ready,
            ),
            "✗ health        it says that it cannot serve",
            "→ Look at its note, and at the instance.",
        ),
        (
            one("Rejected", "HolderMismatch", "", foreign, out),
            "✗ holder        spec.holderIdentity is \"vm-9\", and the name of the Lease says vm-1",
            "→ Make them agree.",
        ),
        (
            one(
                "Rejected",
                "AddressRefused",
                "192.0.2.11 lies outside the ranges",
                sound.clone(),
                out,
            ),
            "cannot be published there: 192.0.2.11 lies outside the ranges",
            "→ Ask the operator's administrator to allow it, or name another.",
        ),
    ]
}

/// What follows from silence, and what is not published as decided.
fn troubles_of_life() -> Vec<Trouble> {
    let silent = lease("vm-1", "192.0.2.11", 60);
    let ready: &[(&str, bool)] = &[("192.0.2.11", true)];
    vec![
        (
            one("Held", "PathBroken", "", silent.clone(), ready),
            "✗ hold          the outage guard holds it, for ten ttls at most",
            "→ Look for what keeps instances from writing their Leases.",
        ),
        (
            one("Held", "Protected", "", silent.clone(), ready),
            "✗ hold          spec.protection.minReady holds it",
            "→ Start more instances.",
        ),
        (
            one("Ready", "Beating", "", silent, ready),
            "it counts only time in which it has proof that",
            "→ See that the operator runs, and its log.",
        ),
        (
            one("Ready", "Beating", "", with("beatkeeper.dev/rival", "vm-a/1;x"), ready),
            "✗ name          several processes claim it",
            "→ Give each process an instance name of its own.",
        ),
        (
            one("Ready", "Beating", "", lease("vm-1", "192.0.2.11", 4), &[]),
            "✗ published     it is in no slice of the Service, and that is not what was decided",
            "→ For a second after a change this is normal; if it lasts, see the operator's log.",
        ),
    ]
}

#[test]
fn each_trouble_has_its_step_and_its_remedy() {
    for (store, step, remedy) in troubles_of_claims().into_iter().chain(troubles_of_life()) {
        let (text, well) = argued(&store, "vm-1", &[]);
        assert!(text.contains(step), "{step}:\n{text}");
        assert!(text.contains(remedy), "{remedy}:\n{text}");
        assert!(!well, "{text}");
    }
}

#[test]
fn a_dry_run_and_a_stall_explain_why_a_living_instance_is_not_published() {
    // True where nothing would prevent publishing.
    for status in ["True", "False"] {
        let mut dry = registration("greeter", json!([listed("vm-1", "Ready", "Beating", "")]));
        dry["status"]["conditions"][0]["status"] = status.into();
        dry["status"]["conditions"][0]["reason"] = "DryRun".into();
        let dry = store(dry, &[lease("vm-1", "192.0.2.11", 4)], &[], &[]);
        let (text, _) = argued(&dry, "vm-1", &[]);
        assert!(
            text.contains("✗ registration  it is in a dry run: it decides, and publishes nothing"),
            "{text}"
        );
        assert!(text.contains("→ Remove the annotation to publish."), "{text}");
    }
}
