//! What `cordon` and `drain` say that follows.

use kubectl_beatkeeper::model::{assemble, removal::Removal};
use serde_json::{Value, json};

use crate::objects::{lease, listed, now, registration, slice, store};

/// What follows from the removal of vm-1, and whether a person is asked.
fn told(instances: &[(&str, &str, &str)], change: impl Fn(&mut Value)) -> (String, bool) {
    let list = instances.iter().map(|(name, state, reason)| listed(name, state, reason, ""));
    let mut object = registration("greeter", Value::Array(list.collect()));
    change(&mut object);
    let leases: Vec<Value> =
        instances.iter().map(|(name, ..)| lease(name, "192.0.2.1", 1)).collect();
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", &[])];
    let store = store(object, &leases, &slices, &[]);
    let object = store.registrations.values().next().unwrap();
    let view = assemble::registration(&store, object, now());
    let removal = Removal::of(&view, view.instance("vm-1").unwrap());
    (removal.told().join("\n"), removal.leaves_too_few())
}

const THREE: [(&str, &str, &str); 3] =
    [("vm-1", "Ready", "Beating"), ("vm-2", "Ready", "Beating"), ("vm-3", "Held", "OutageGuard")];

#[test]
fn held_instances_do_not_count_as_left() {
    assert_eq!(
        told(&THREE, |_| ()),
        (
            "It is Ready (Beating) and gets new connections.\n\
             1 of 2 ready instances is left: vm-2.\n\
             Held, and perhaps dead: vm-3."
                .to_owned(),
            false
        )
    );
}

#[test]
fn fewer_than_min_ready_needs_consent() {
    let (text, asks) = told(&THREE, |it| it["spec"]["protection"] = json!({ "minReady": 2 }));
    assert!(text.ends_with("That is below spec.protection.minReady, 2."), "{text}");
    assert!(asks);
}

#[test]
fn the_last_one_needs_consent_also_without_min_ready() {
    let (text, asks) = told(&THREE[..1], |_| ());
    assert!(
        text.ends_with("No ready instance is left: Service greeter gives no answer."),
        "{text}"
    );
    assert!(asks);
}

#[test]
fn an_instance_that_serves_nobody_needs_no_consent() {
    let (text, asks) = told(&[("vm-1", "Expired", "TTLPassed")], |_| ());
    assert!(
        text.starts_with("It is Expired (TTLPassed) and gets no new connections as it is."),
        "{text}"
    );
    assert!(!asks);
}

#[test]
fn a_dry_run_publishes_nothing_and_needs_no_consent() {
    let (text, asks) = told(&THREE[..1], |it| {
        it["metadata"]["annotations"] = json!({ "beatkeeper.dev/dry-run": "true" });
    });
    assert!(
        text.contains("The registration is in a dry run: nothing that is published changes."),
        "{text}"
    );
    assert!(!asks);
}
