//! Each check fails alone, or says that it cannot know.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_core::vocabulary::key::Key;
use serde_json::{Value, json};

use super::{
    facts::{Election, Facts, Operator, Unread},
    id::Check,
    verdict::{Outcome, Verdict},
};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn policy(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "matchConstraints": { "resourceRules": [{ "apiGroups": ["beatkeeper.dev"] }] } },
    })
}

fn binding(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": ["Deny"] } })
}

/// An installation with which all is well.
fn fine() -> Facts {
    let mut crd = beatkeeper_api::crd();
    crd.status = read(json!({ "conditions": [{ "type": "Established", "status": "True" }] }));
    let names = ["x-heartbeats", "x-cordons", "x-advice"];
    Facts {
        crd: Ok(Some(crd)),
        operator: Ok(Some(Operator::example())),
        election: Ok(Some(Election { holder: "one".to_owned(), renews: true })),
        proof: Ok(Some(Duration::from_secs(3))),
        lacking: Ok(Vec::new()),
        policies: Ok(names.iter().map(|name| read(policy(name))).collect()),
        bindings: Ok(names.iter().map(|name| read(binding(name))).collect()),
        flows: Ok(vec![read(json!({
            "metadata": { "name": "x-heartbeats" },
            "spec": { "matchingPrecedence": 1, "priorityLevelConfiguration": { "name": "x-heartbeats" } },
        }))]),
        levels: Ok(vec!["x-heartbeats".to_owned()]),
        registrations: Ok(vec![read(json!({
            "metadata": { "namespace": "shop", "name": "greeter" },
            "spec": { "ttl": "3s", "interval": "1s", "ports": [{ "port": 80 }] },
        }))]),
        leases: Ok(BTreeMap::from([(Key::new("shop", "greeter"), 1000)])),
        stored: Ok(Some(100 << 20)),
    }
}

fn verdicts(change: impl FnOnce(&mut Facts)) -> Vec<Verdict> {
    let mut facts = fine();
    change(&mut facts);
    super::installation(&facts)
}

fn failed(change: impl FnOnce(&mut Facts)) -> Vec<Check> {
    let verdicts = verdicts(change);
    verdicts.into_iter().filter(Verdict::is_failed).map(|it| it.check).collect()
}

fn warned(change: impl FnOnce(&mut Facts)) -> Vec<Check> {
    let is_warning = |it: &Verdict| matches!(it.outcome, Outcome::Warning { .. });
    verdicts(change).into_iter().filter(is_warning).map(|it| it.check).collect()
}

fn operator(change: impl FnOnce(&mut Operator)) -> impl FnOnce(&mut Facts) {
    move |facts| change(facts.operator.as_mut().unwrap().as_mut().unwrap())
}

#[test]
fn with_a_good_installation_nothing_is_told() {
    let told = verdicts(|_| {});
    let is_fine = |it: &Verdict| matches!(it.outcome, Outcome::Fine(_));
    assert!(told.iter().all(is_fine), "{told:#?}");
    assert_eq!(told.len(), 14);
}

#[test]
fn each_thing_that_is_wrong_fails_its_own_check() {
    assert_eq!(failed(|it| it.crd = Ok(None)), [Check::Crd]);
    assert_eq!(failed(|it| it.operator = Ok(None)), [Check::Operator]);
    assert_eq!(failed(operator(|it| it.available = 1)), [Check::Replicas]);
    assert_eq!(failed(operator(|it| it.wanted = 0)), [Check::Replicas]);
    assert_eq!(failed(operator(|it| it.image = "x:0.0.9".to_owned())), [Check::Versions]);
    assert_eq!(failed(|it| it.election = Ok(None)), [Check::Leader]);
    assert_eq!(failed(|it| it.proof = Ok(Some(Duration::from_secs(61)))), [Check::Path]);
    assert_eq!(failed(|it| it.lacking = Ok(vec!["x".to_owned()])), [Check::OperatorRights]);
    assert_eq!(failed(|it| it.bindings = Ok(Vec::new())), [Check::AdmissionPolicy]);
    assert_eq!(failed(|it| it.levels = Ok(Vec::new())), [Check::FlowControl]);
    let address = json!([{ "name": "vm", "addresses": ["192.0.2.1"] }]);
    let declare = |it: &mut Facts| {
        it.registrations.as_mut().unwrap()[0].spec.instances = read(address);
    };
    assert_eq!(failed(declare), [Check::OutsideRanges]);
    let no_ports = |it: &mut Facts| it.registrations.as_mut().unwrap()[0].spec.ports.clear();
    assert_eq!(failed(no_ports), [Check::Registrations]);
}

#[test]
fn what_may_be_switched_off_or_depends_on_more_is_a_warning() {
    assert_eq!(warned(|it| it.policies = Ok(Vec::new())), [Check::AdmissionPolicy]);
    let none = |it: &mut Facts| (it.flows, it.levels) = (Ok(Vec::new()), Ok(Vec::new()));
    assert_eq!(warned(none), [Check::FlowControl]);
    assert_eq!(warned(|it| it.stored = Ok(Some(1600 << 20))), [Check::Store]);
    let more = |it: &mut Facts| {
        it.leases = Ok(BTreeMap::from([(Key::new("shop", "greeter"), 1001)]));
    };
    assert_eq!(warned(more), [Check::Beats]);
}

#[test]
fn a_digest_or_a_tag_that_is_no_version_is_no_difference() {
    for image in ["x@sha256:00", "x:latest", "x"] {
        assert_eq!(failed(operator(|it| it.image = image.to_owned())), [], "{image}");
    }
}

#[test]
fn what_may_not_be_read_fails_nothing() {
    let why = || Unread("no".to_owned());
    let told = super::installation(&Facts {
        crd: Err(why()),
        operator: Err(why()),
        election: Err(why()),
        proof: Err(why()),
        lacking: Err(why()),
        policies: Err(why()),
        bindings: Err(why()),
        flows: Err(why()),
        levels: Err(why()),
        registrations: Err(why()),
        leases: Err(why()),
        stored: Err(why()),
    });
    assert!(told.iter().all(|it| it.outcome == Outcome::Unknown("no".to_owned())), "{told:#?}");
}
