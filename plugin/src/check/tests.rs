//! Each check fails alone, or says that it cannot know.

mod gateways;

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_core::vocabulary::key::Key;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::{
    facts::{Election, Explained, Facts, Gateways, Operator, Unread},
    id::Check,
    installation::VERSION_LABEL,
    rights,
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
    let mut operator = Operator::example();
    operator.args.push("--explain-bind-address=127.0.0.1:8082".to_owned());
    Facts {
        crd: Ok(Some(crd)),
        operator: Ok(Some(operator)),
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
        quota: None,
        explained: Ok(Explained::Answers(Key::new("beatkeeper", "beatkeeper-explain"))),
        gateways: Gateways::none(),
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
    assert_eq!(told.len(), 15);
}

#[test]
fn each_thing_that_is_wrong_fails_its_own_check() {
    assert_eq!(failed(|it| it.crd = Ok(None)), [Check::Crd]);
    assert_eq!(failed(|it| it.operator = Ok(None)), [Check::Operator]);
    assert_eq!(failed(operator(|it| it.available = 1)), [Check::Replicas]);
    assert_eq!(failed(operator(|it| it.wanted = 0)), [Check::Replicas]);
    assert_eq!(failed(operator(|it| it.image = "x:0.0.9".to_owned())), [Check::Versions]);
    assert_eq!(failed(|it| it.election = Ok(None)), [Check::Leader]);
    let unheld = |it: &mut Facts| {
        it.election = Ok(Some(Election { holder: String::new(), renews: false }));
    };
    assert_eq!(failed(unheld), [Check::Leader]);
    let unrenewed = |it: &mut Facts| {
        it.election = Ok(Some(Election { holder: "one".to_owned(), renews: false }));
    };
    assert_eq!(failed(unrenewed), [Check::Leader]);
    let told = verdicts(unheld);
    let leader = told.iter().find(|it| it.check == Check::Leader).unwrap();
    assert!(format!("{leader:?}").contains("no replica holds Lease"), "{leader:?}");
    assert_eq!(failed(|it| it.proof = Ok(Some(Duration::from_secs(60)))), []);
    assert_eq!(failed(|it| it.proof = Ok(Some(Duration::from_secs(61)))), [Check::Path]);
    assert_eq!(failed(|it| it.proof = Ok(None)), [Check::Path]);
    let unannounced = Explained::Unannounced(Key::new("beatkeeper", "beatkeeper"));
    for explained in [unannounced, Explained::Silent("it does not answer in time".to_owned())] {
        assert_eq!(failed(|it| it.explained = Ok(explained)), [Check::Explain]);
    }
    assert_eq!(failed(|it| it.quota = Some(210 << 20)), [Check::Store]);
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
fn a_crd_that_is_there_and_of_no_use_fails_its_check() {
    let crd = |change: fn(&mut CustomResourceDefinition)| {
        move |it: &mut Facts| change(it.crd.as_mut().unwrap().as_mut().unwrap())
    };
    assert_eq!(failed(crd(|it| it.status = None)), [Check::Crd]);
    let unestablished = json!({ "conditions": [{ "type": "Established", "status": "False" }] });
    assert_eq!(
        failed(|it| it.crd.as_mut().unwrap().as_mut().unwrap().status = read(unestablished)),
        [Check::Crd]
    );
    assert_eq!(failed(crd(|it| it.spec.versions[0].served = false)), [Check::Crd]);
    assert_eq!(failed(crd(|it| it.spec.versions[0].storage = false)), [Check::Crd]);
    let described = |it: &mut CustomResourceDefinition| {
        let schema = it.spec.versions[0].schema.as_mut().unwrap();
        schema.open_api_v3_schema.as_mut().unwrap().description = Some("another".to_owned());
    };
    assert_eq!(failed(crd(described)), [Check::CrdCurrent]);
    let conflict = verdicts(crd(|it| {
        it.status = read(json!({ "conditions": [
            { "type": "NamesAccepted", "status": "False", "message": "sreg is taken" },
        ] }));
    }));
    let Outcome::Failed { what, .. } = &conflict[0].outcome else { panic!("{:?}", conflict[0]) };
    assert_eq!(what, "sreg is taken");
}

#[test]
fn each_part_of_another_version_is_told() {
    let label = |it: &mut Facts| {
        let crd = it.crd.as_mut().unwrap().as_mut().unwrap();
        crd.metadata.labels = read(json!({ VERSION_LABEL: "0.0.9" }));
    };
    assert_eq!(failed(label), [Check::Versions]);
    assert_eq!(failed(operator(|it| it.version = Some("0.0.9".to_owned()))), [Check::Versions]);
}

#[test]
fn an_only_replica_without_an_election_is_no_failure() {
    let told = verdicts(|it| {
        operator(|it| it.args.retain(|arg| arg != "--leader-elect"))(it);
        (it.election, it.proof) = (Ok(None), Ok(None));
    });
    let of = |check: Check| &told.iter().find(|it| it.check == check).unwrap().outcome;
    assert!(!told.iter().any(Verdict::is_failed), "{told:#?}");
    assert!(matches!(of(Check::Leader), Outcome::Fine(_)), "{told:#?}");
    assert!(matches!(of(Check::Path), Outcome::Unknown(_)), "nothing proves it: {told:#?}");
}

#[test]
fn each_policy_has_to_be_there_and_to_deny_and_those_of_others_do_not_count() {
    for n in 0..3 {
        let one_less = move |it: &mut Facts| drop(it.policies.as_mut().unwrap().remove(n));
        assert_eq!(failed(one_less), [Check::AdmissionPolicy], "policy {n}");
        let unbound = move |it: &mut Facts| drop(it.bindings.as_mut().unwrap().remove(n));
        assert_eq!(failed(unbound), [Check::AdmissionPolicy], "binding {n}");
        let warns = move |it: &mut Facts| {
            let spec = it.bindings.as_mut().unwrap()[n].spec.as_mut().unwrap();
            spec.validation_actions = Some(vec!["Warn".to_owned()]);
        };
        // The third one gives advice.
        let expected = if n < 2 { &[Check::AdmissionPolicy][..] } else { &[] };
        assert_eq!(failed(warns), expected, "action {n}");
    }
    let foreign = |it: &mut Facts| {
        for policy in it.policies.as_mut().unwrap() {
            let matches = policy.spec.as_mut().unwrap().match_constraints.as_mut().unwrap();
            matches.resource_rules = read(json!([{ "apiGroups": ["example.com"] }]));
        }
    };
    assert_eq!(warned(foreign), [Check::AdmissionPolicy], "there is none of ours");
}

#[test]
fn a_priority_level_without_its_flow_schema_fails_its_check() {
    assert_eq!(failed(|it| it.flows = Ok(Vec::new())), [Check::FlowControl]);
    let another = |it: &mut Facts| it.levels = Ok(vec!["y-heartbeats".to_owned()]);
    assert_eq!(failed(another), [Check::FlowControl]);
}

#[test]
fn a_stalled_registration_fails_its_check_and_another_condition_does_not() {
    let told = |type_: &str, status: &str| {
        let conditions = json!({ "conditions": [{
            "type": type_, "status": status, "reason": "Any", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] });
        failed(|it| it.registrations.as_mut().unwrap()[0].status = read(conditions))
    };
    assert_eq!(told("Stalled", "True"), [Check::Registrations]);
    assert_eq!(told("Stalled", "False"), []);
    assert_eq!(told("Ready", "True"), []);
}

#[test]
fn an_address_in_an_allowed_range_is_fine_unless_it_is_in_a_network_of_the_cluster() {
    let declared = |addresses: &[&str]| {
        let instances = json!([{ "name": "vm", "addresses": addresses }]);
        failed(|it| {
            it.registrations.as_mut().unwrap()[0].spec.instances = read(instances);
            let flags = ["--outside-range=shop=192.0.2.0/24", "--cluster-network=192.0.2.128/25"];
            operator(|it| it.args.extend(flags.map(str::to_owned)))(it);
        })
    };
    assert_eq!(declared(&["192.0.2.1"]), []);
    assert_eq!(declared(&["192.0.2.129"]), [Check::OutsideRanges]);
    assert_eq!(declared(&["198.51.100.1"]), [Check::OutsideRanges]);
    assert_eq!(declared(&["192.0.2.1", "198.51.100.1"]), [Check::OutsideRanges], "one of two");
}

#[test]
fn a_store_whose_size_is_not_told_is_unknown() {
    let told = verdicts(|it| it.stored = Ok(None));
    let store = told.iter().find(|it| it.check == Check::Store).unwrap();
    assert!(matches!(store.outcome, Outcome::Unknown(_)), "{store:?}");
}

#[test]
fn a_store_without_room_fails_only_by_a_quota_that_the_user_has_named() {
    let stored = |mebibytes: u64, quota: Option<u64>| {
        let told = verdicts(|it| (it.stored, it.quota) = (Ok(Some(mebibytes << 20)), quota));
        told.into_iter().find(|it| it.check == Check::Store).unwrap().outcome
    };
    let gibibyte = Some(1 << 30);
    assert!(matches!(stored(767, gibibyte), Outcome::Fine(_)));
    assert!(matches!(stored(769, gibibyte), Outcome::Warning { .. }));
    assert!(matches!(stored(922, gibibyte), Outcome::Failed { .. }));
    assert!(matches!(stored(9000, None), Outcome::Warning { .. }));
    assert!(matches!(stored(1600, Some(8 << 30)), Outcome::Fine(_)));
    // A thousand beats a second for five minutes are more than what is stored.
    let told = format!("{:?}", stored(100, gibibyte));
    assert!(told.contains("all beats of five minutes need 200 MiB"), "{told}");
    let told = format!("{:?}", stored(100, Some(1 << 10)));
    assert!(told.contains("it has 100 MiB, and may have 1.0 KiB"), "{told}");
}

#[test]
fn explanations_are_checked_only_if_the_operator_was_told_to_give_them_and_a_replica_leads() {
    let of = |change: fn(&mut Facts)| {
        let told = verdicts(|it| {
            it.explained = Ok(Explained::Silent("no".to_owned()));
            change(it);
        });
        told.into_iter().find(|it| it.check == Check::Explain).map(|it| it.outcome)
    };
    assert_eq!(of(|it| it.operator = Ok(Some(Operator::example()))), None);
    assert_eq!(of(|it| it.operator = Ok(None)), Some(Outcome::Skipped(Check::Operator)));
    assert_eq!(of(|it| it.election = Ok(None)), Some(Outcome::Skipped(Check::Leader)));
    let lacking = |it: &mut Facts| it.explained = Err(Unread("you may not get pods".to_owned()));
    assert_eq!(of(lacking), Some(Outcome::Unknown("you may not get pods".to_owned())));
}

#[test]
fn the_rights_for_reviews_are_asked_of_an_operator_that_guards_something() {
    let asks = |flag: Option<&str>| {
        let mut operator = Operator::example();
        operator.args.extend(flag.map(str::to_owned));
        rights::needed_by(&operator).iter().any(|right| right.resource == "tokenreviews")
    };
    assert!(!asks(None));
    assert!(asks(Some("--metrics-secure")));
    assert!(asks(Some("--explain-bind-address=127.0.0.1:8082")));
}

#[test]
fn gateways_are_found_by_a_right_in_the_namespace_of_the_operator_that_one_for_all_namespaces_includes()
 {
    let lists = |flags: &[&str]| {
        let mut operator = Operator::example();
        operator.args.extend(flags.iter().map(|it| (*it).to_owned()));
        let needed = rights::needed_by(&operator);
        let own = Some("beatkeeper".to_owned());
        needed
            .iter()
            .filter(|it| it.verb == "list" && it.name.is_none() && it.namespace == own)
            .count()
    };
    assert_eq!(lists(&["--gateway-cert-dir=/certs"]), 0);
    assert_eq!(lists(&["--gateway-cert-dir=/certs", "--namespace=shop"]), 1);
    assert_eq!(lists(&["--namespace=shop"]), 0);
}

#[test]
fn a_workload_that_lacks_any_right_fails_its_check() {
    let told = |lacking: &[&str]| {
        let lacking = Ok(lacking.iter().map(|it| (*it).to_owned()).collect());
        rights::of_workload("ann", "shop", &lacking).is_failed()
    };
    assert!(told(&["get leases"]));
    assert!(!told(&[]));
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
        quota: None,
        explained: Err(why()),
        gateways: Gateways::unread(&why()),
    });
    assert!(told.iter().all(|it| it.outcome == Outcome::Unknown("no".to_owned())), "{told:#?}");
}
