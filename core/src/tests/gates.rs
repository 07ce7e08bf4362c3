//! The readiness gate: what the operator reports to a Pod that has this gate.

use super::*;
use crate::{
    objects::pod::Gate,
    report::readiness_gates::{Claimant, Gates, Word},
};

fn asking(published: Option<bool>, reason: &str) -> PodView {
    let mut pod = pod(json!({
        "metadata": { "name": "web-1", "uid": "web-1-uid" },
        "spec": { "readinessGates": [{ "conditionType": "beatkeeper.dev/published" }],
                  "containers": [] },
        "status": { "phase": "Running", "podIP": "10.0.0.1",
                    "conditions": [{ "type": "ContainersReady", "status": "True" }] },
    }));
    assert!(pod.ready, "its own gate does not count");
    pod.gate = Some(Gate { published, reason: reason.to_owned() });
    pod
}

fn word(published: bool, reason: &'static str) -> Word {
    let registration = (!published).then(|| "greeter".to_owned());
    Word { published, reason: reason.into(), registration }
}

fn said(published: bool, reason: &'static str) -> Vec<(Key, String, Word)> {
    vec![(key("web-1"), "web-1-uid".to_owned(), word(published, reason))]
}

fn claimants(names: &[&str], beats: bool) -> Vec<Claimant> {
    names.iter().map(|name| Claimant { registration: (*name).to_owned(), beats }).collect()
}

#[test]
fn a_pod_is_told_what_all_of_its_registrations_say_and_only_when_that_is_news() {
    let mut gates = Gates::default();
    let wanted = |gates: &Gates, pod: &PodView, names: &[&str]| {
        let word = gates.wanted(&key("web-1"), pod, &claimants(names, true))?;
        Some((word.published, word.reason.into_owned()))
    };
    let new = asking(None, "");
    assert_eq!(wanted(&gates, &new, &[]), None, "no registration speaks for it");
    assert_eq!(wanted(&gates, &new, &["greeter"]), None, "not decided yet");
    gates.report(&key("greeter"), said(false, "Stalled"), at(0));
    assert_eq!(wanted(&gates, &new, &["greeter"]), Some((false, "Stalled".to_owned())));
    assert_eq!(wanted(&gates, &asking(Some(false), "Stalled"), &["greeter"]), None);
    gates.report(&key("greeter"), said(true, "Published"), at(0));
    assert_eq!(wanted(&gates, &new, &["greeter"]), Some((true, "Published".to_owned())));
    assert_eq!(wanted(&gates, &new, &["greeter", "metrics"]), None, "the other is not known");
    gates.report(&key("metrics"), said(false, "Cordoned"), at(0));
    let both = wanted(&gates, &new, &["greeter", "metrics"]);
    assert_eq!(both, Some((false, "Cordoned".to_owned())));
    let mut remade = asking(None, "");
    remade.uid = "another".to_owned();
    assert_eq!(wanted(&gates, &remade, &["greeter"]), None, "that was said of an earlier Pod");
    let selected = gates.wanted(&key("web-2"), &new, &claimants(&["greeter"], false));
    assert_eq!(selected.expect("told").reason, "NeverBeat");
}

#[test]
fn what_was_told_stays_while_nothing_is_known() {
    let mut gates = Gates::default();
    gates.report(&key("greeter"), said(true, "Published"), at(0));
    gates.clear();
    let told = asking(Some(true), "Published");
    assert_eq!(gates.wanted(&key("web-1"), &told, &claimants(&["greeter"], true)), None);
}

#[test]
fn namespaces_take_turns_and_a_pod_rests_after_it_was_told() {
    let mut gates = Gates::default();
    for n in 0..100 {
        gates.look_at(&Key::new("crowd", format!("web-{n}")), at(0));
    }
    gates.look_at(&Key::new("shop", "web-1"), at(0));
    let first: Vec<String> = (0..3).map(|_| gates.next(at(0)).expect("due").namespace).collect();
    assert_eq!(first, ["crowd", "shop", "crowd"]);
    while gates.next(at(0)).is_ok() {}
    let pod = Key::new("shop", "web-1");
    gates.told(&pod, at(0));
    gates.look_at(&pod, at(100));
    assert_eq!(gates.next(at(100)), Err(Some(at(1000))));
    assert_eq!(gates.next(at(1000)), Ok(pod.clone()));
    gates.rest("shop", std::time::Duration::from_secs(60), at(1000));
    gates.look_at(&pod, at(2000));
    assert_eq!(gates.next(at(60_999)), Err(Some(at(61_000))));
}

#[test]
fn an_instance_that_has_left_is_told_and_a_registration_that_is_gone_is_not_asked() {
    let mut gates = Gates::default();
    gates.report(&key("greeter"), said(true, "Published"), at(0));
    assert_eq!(gates.next(at(0)), Ok(key("web-1")));
    gates.report(&key("greeter"), said(true, "Published"), at(0));
    assert_eq!(gates.next(at(0)), Err(None), "the same again is no news");
    gates.report(&key("greeter"), Vec::new(), at(0));
    assert_eq!(gates.next(at(0)), Ok(key("web-1")));
    let told = asking(Some(true), "Published");
    let wanted = gates.wanted(&key("web-1"), &told, &claimants(&["greeter"], false));
    assert_eq!(wanted.expect("told").reason, "Deregistered");
    gates.forget(&key("greeter"), at(0));
    assert_eq!(gates.next(at(0)), Ok(key("web-1")));
    assert_eq!(gates.wanted(&key("web-1"), &told, &[]), None);
}

#[test]
fn a_registration_that_is_made_later_shuts_no_gate_that_is_open() {
    let mut gates = Gates::default();
    gates.report(&key("greeter"), said(true, "Published"), at(0));
    let mut all = claimants(&["greeter"], true);
    all.extend(claimants(&["later"], false));
    assert_eq!(gates.wanted(&key("web-1"), &asking(Some(true), "Published"), &all), None);
    let wanted = gates.wanted(&key("web-1"), &asking(None, ""), &all);
    assert_eq!(wanted.expect("told").reason, "NeverBeat");
}

#[test]
fn nothing_is_kept_of_pods_that_are_gone() {
    let mut gates = Gates::default();
    for n in 0..100 {
        let pod = key(&format!("web-{n}"));
        let words = vec![(pod.clone(), format!("uid-{n}"), word(true, "Published"))];
        gates.report(&key("greeter"), words, at(0));
        gates.forget_pod(&pod);
        while gates.next(at(0)).is_ok() {}
    }
    assert_eq!(format!("{gates:?}").matches("web-").count(), 0, "{gates:?}");
}

#[test]
fn a_replica_that_looks_at_no_pod_keeps_none_that_is_gone() {
    let mut gates = Gates::default();
    for n in 0..100 {
        let pod = key(&format!("web-{n}"));
        gates.look_at(&pod, at(0));
        gates.told(&pod, at(0));
        gates.forget_pod(&pod);
    }
    assert!(gates.is_empty(), "{gates:?}");
}
