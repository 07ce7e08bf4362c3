//! Instances that beat through a gateway: their Leases stay as their first beats have left them.

use kubectl_beatkeeper::{
    model::{load::Load, store::Store},
    render::{
        document::InstanceReport,
        tree::{Look, Rows},
    },
};
use serde_json::json;

use crate::{
    objects::{lease, listed, now, picture, registration, slice, store},
    why::argued_with,
};

/// vm-1 and vm-2, which have renewed their Leases an hour ago; vm-2 is dead.
fn shop(carrier: &str) -> Store {
    let instances = json!([listed("vm-2", "Expired", "TTLPassed", "no beat for its ttl of 30s")]);
    let mut registration = registration("greeter", instances);
    registration["spec"]["carrier"] = carrier.into();
    let leases = [lease("vm-1", "192.0.2.11", 3600), lease("vm-2", "192.0.2.12", 3600)];
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true)])];
    store(registration, &leases, &slices, &["192.0.2.11"])
}

fn drawn(store: &Store) -> String {
    let picture = picture(store);
    let lines = Rows::of(&picture, Look::default()).lines(&picture, now());
    lines.iter().map(|line| line.plain() + "\n").collect()
}

#[test]
fn one_that_is_published_is_neither_late_nor_left_over() {
    let text = drawn(&shop("Gateway"));
    assert!(text.contains("● Ready     vm-1      through a gateway    192.0.2.11"), "{text}");
    assert!(text.contains("✗ Expired   vm-2      -                    192.0.2.12"), "{text}");
    assert!(!text.contains("no operator has pruned it"), "{text}");
    let by_lease = drawn(&shop("Lease"));
    assert!(by_lease.contains("vm-1 is still published"), "{by_lease}");
    assert!(by_lease.contains("BeatOverdue"), "{by_lease}");
}

#[test]
fn one_that_is_published_counts_as_beating() {
    let load = |carrier| {
        let picture = picture(&shop(carrier));
        Load::of(&picture.registrations[0], now())
    };
    let (carried, by_lease) = (load("Gateway"), load("Lease"));
    assert_eq!((carried.overdue, by_lease.overdue), (0, 1));
    assert!((carried.beats - 0.1).abs() < 1e-9, "{}", carried.beats);
    assert!(by_lease.beats.abs() < 1e-9, "{}", by_lease.beats);
}

#[test]
fn documents_say_that_the_lease_does_not_tell_its_beats() {
    let picture = picture(&shop("Gateway"));
    let instance = picture.registrations[0].instance("vm-1").unwrap();
    let told = serde_json::to_value(InstanceReport::of(instance, now())).unwrap();
    assert_eq!(
        (&told["carried"], told.get("lastBeat"), told.get("silentSeconds")),
        (&json!(true), None, None)
    );
}

#[test]
fn why_says_that_only_the_leader_sees_its_beats() {
    use kubectl_beatkeeper::model::why::leader::Leader;
    let (text, well) = argued_with(&shop("Gateway"), "vm-1", &[], Leader::NotWanted);
    assert!(well, "{text}");
    assert!(
        text.contains("its beats go through a gateway, and only the leader sees them"),
        "{text}"
    );
    assert!(!text.contains("its ttl of 30s passed"), "{text}");
}
