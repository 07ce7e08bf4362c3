//! Each check of gateways fails alone, or says that it cannot know. Without gateways nothing is told.

use beatkeeper_api::Carrier;

use super::{
    BTreeMap, Check, Duration, Facts, Gateways, Key, Operator, Outcome, Unread, Verdict, binding,
    failed, json, operator, read, rights, verdicts, warned,
};
use crate::check::facts::{Certificate, Deployed, Gateway};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn gateway(name: &str) -> Gateway {
    Gateway {
        name: name.to_owned(),
        pod: format!("uid of {name}"),
        renewed: Some(SECOND * 2),
        age: DAY,
        certificate: Some(Certificate { life: DAY * 1095, left: DAY * 400 }),
    }
}

fn ask(facts: &mut Facts) {
    facts.registrations.as_mut().unwrap()[0].spec.carrier = Carrier::Gateway;
}

fn use_them(facts: &mut Facts) {
    operator(|it| it.args.push("--gateway-cert-dir=/etc/beatkeeper/gateway".to_owned()))(facts);
}

/// An installation with two gateways, with which all is well until it is changed.
fn with(change: impl FnOnce(&mut Facts)) -> impl FnOnce(&mut Facts) {
    move |facts| {
        ask(facts);
        use_them(facts);
        let (image, version) = {
            let operator = facts.operator.as_ref().unwrap().as_ref().unwrap();
            (operator.image.clone(), operator.version.clone())
        };
        let key = Key::new("beatkeeper", "x-gateway");
        let names = ["edge-0", "edge-1"];
        facts.gateways = Gateways {
            deployments: Ok(vec![Deployed { key, wanted: 2, available: 2, image, version }]),
            living: Ok(names.map(gateway).to_vec()),
            listed: Ok(names.map(|name| gateway(name).pod).to_vec()),
        };
        let account = "request.userInfo.username == 'system:serviceaccount:beatkeeper:x-gateway'";
        facts.policies.as_mut().unwrap().push(read(json!({
            "metadata": { "name": "x-gateway" },
            "spec": { "matchConditions": [{ "name": "a-gateway", "expression": account }] },
        })));
        facts.bindings.as_mut().unwrap().push(read(binding("x-gateway")));
        change(facts);
    }
}

fn deployed(change: impl FnOnce(&mut Deployed)) -> impl FnOnce(&mut Facts) {
    with(move |it| change(&mut it.gateways.deployments.as_mut().unwrap()[0]))
}

/// Changes one of the two gateways.
fn one(change: impl FnOnce(&mut Gateway)) -> impl FnOnce(&mut Facts) {
    with(move |it| change(&mut it.gateways.living.as_mut().unwrap()[1]))
}

/// What the checks of gateways say.
fn told(change: impl FnOnce(&mut Facts)) -> Vec<(Check, Outcome)> {
    let told = verdicts(change).into_iter().map(|it| (it.check, it.outcome));
    told.skip_while(|(check, _)| *check != Check::Gateways).collect()
}

/// What one of them says.
fn outcome(check: Check, change: impl FnOnce(&mut Facts)) -> Outcome {
    told(change).into_iter().find(|(its, _)| *its == check).unwrap().1
}

/// What is wrong, by one of them.
fn what(check: Check, change: impl FnOnce(&mut Facts)) -> String {
    match outcome(check, change) {
        Outcome::Failed { what, .. } | Outcome::Warning { what, .. } => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_good_gateways_all_is_fine() {
    let told = verdicts(with(|_| {}));
    let is_fine = |it: &Verdict| matches!(it.outcome, Outcome::Fine(_));
    assert!(told.iter().all(is_fine), "{told:#?}");
    assert_eq!(told.len(), 22);
}

#[test]
fn nothing_is_told_where_there_are_no_gateways_and_nothing_asks_for_them() {
    assert_eq!(told(|_| {}), []);
    let no = || Unread("no".to_owned());
    assert_eq!(told(|it| it.gateways = Gateways::unread(&no())), []);
    let nothing = |it: &mut Facts| {
        (it.operator, it.registrations) = (Err(no()), Err(no()));
        it.gateways = Gateways::unread(&no());
    };
    assert_eq!(told(nothing), []);
}

#[test]
fn each_thing_that_is_wrong_with_gateways_fails_its_own_check() {
    assert_eq!(failed(with(|it| it.gateways = Gateways::none())), [Check::Gateways]);
    assert_eq!(failed(deployed(|it| it.available = 1)), [Check::GatewayReplicas]);
    assert_eq!(failed(deployed(|it| it.wanted = 0)), [Check::GatewayReplicas]);
    assert_eq!(failed(one(|it| it.renewed = Some(SECOND * 21))), [Check::GatewayLeases]);
    assert_eq!(failed(one(|it| it.renewed = None)), [Check::GatewayLeases]);
    assert_eq!(failed(with(|it| it.gateways.living = Ok(Vec::new()))), [Check::GatewayLeases]);
    let unlisted = |it: &mut Facts| drop(it.gateways.listed.as_mut().unwrap().pop());
    assert_eq!(failed(with(unlisted)), [Check::GatewayStreams]);
    assert_eq!(failed(deployed(|it| it.image = "x:0.0.9".to_owned())), [Check::GatewayVersions]);
    let label = |it: &mut Deployed| it.version = Some("0.0.9".to_owned());
    assert_eq!(failed(deployed(label)), [Check::GatewayVersions]);
    let expired = Certificate { life: DAY, left: Duration::ZERO };
    assert_eq!(failed(one(|it| it.certificate = Some(expired))), [Check::GatewayCertificates]);
    let unbound = |it: &mut Facts| drop(it.bindings.as_mut().unwrap().pop());
    assert_eq!(failed(with(unbound)), [Check::GatewayPolicy]);
    let warns = |it: &mut Facts| {
        let spec = it.bindings.as_mut().unwrap()[3].spec.as_mut().unwrap();
        spec.validation_actions = Some(vec!["Warn".to_owned()]);
    };
    assert_eq!(failed(with(warns)), [Check::GatewayPolicy]);
}

#[test]
fn gateways_are_missed_by_each_registration_that_asks_and_by_an_operator_that_waits_for_them() {
    assert_eq!(
        what(Check::Gateways, ask),
        "there is none, and carrier: Gateway is set in shop/greeter"
    );
    let waits = "there is none, and the operator has --gateway-cert-dir";
    assert_eq!(what(Check::Gateways, use_them), waits);
    for alone in [ask, use_them] {
        let skipped = told(alone).into_iter().skip(1).map(|(_, outcome)| outcome);
        assert_eq!(skipped.collect::<Vec<_>>(), vec![Outcome::Skipped(Check::Gateways); 6]);
    }
}

#[test]
fn gateways_that_the_operator_does_not_use_are_noticed_by_their_leases_or_their_deployment() {
    let forget = |it: &mut Operator| it.args.retain(|arg| !arg.contains("gateway"));
    let by_leases = with(|it| {
        operator(forget)(it);
        it.gateways.deployments = Ok(Vec::new());
    });
    let by_deployment = with(|it| {
        operator(forget)(it);
        it.gateways.living = Ok(Vec::new());
        it.registrations = Ok(Vec::new());
    });
    assert_eq!(failed(by_leases), [Check::Gateways]);
    let what = what(Check::Gateways, by_deployment);
    assert!(what.starts_with("the operator has no --gateway-cert-dir"), "{what}");
}

#[test]
fn without_a_gateway_that_is_available_its_lease_is_not_missed_as_well() {
    let change = |it: &mut Facts| {
        it.gateways.living = Ok(Vec::new());
        it.gateways.deployments.as_mut().unwrap()[0].available = 0;
    };
    assert_eq!(failed(with(change)), [Check::GatewayReplicas]);
    let leases = outcome(Check::GatewayLeases, with(change));
    assert_eq!(leases, Outcome::Skipped(Check::GatewayReplicas));
}

#[test]
fn gateways_in_no_deployment_are_judged_by_their_leases() {
    let change = |it: &mut Facts| it.gateways.deployments = Ok(Vec::new());
    let checks: Vec<Check> = told(with(change)).into_iter().map(|(check, _)| check).collect();
    let left = [
        Check::Gateways,
        Check::GatewayLeases,
        Check::GatewayStreams,
        Check::GatewayCertificates,
        Check::GatewayPolicy,
    ];
    assert_eq!(checks, left);
    let none = with(|it| {
        change(it);
        it.gateways.living = Ok(Vec::new());
    });
    assert_eq!(failed(none), [Check::Gateways]);
}

#[test]
fn a_gateway_is_silent_after_twenty_seconds_and_named_with_its_silence() {
    assert_eq!(failed(one(|it| it.renewed = Some(SECOND * 20))), []);
    let silent = one(|it| it.renewed = Some(SECOND * 250));
    assert_eq!(what(Check::GatewayLeases, silent), "not edge-1 for 4m10s");
    let never = one(|it| it.renewed = None);
    assert_eq!(what(Check::GatewayLeases, never), "not edge-1 ever");
}

#[test]
fn the_leader_has_to_hear_each_gateway_that_renews_its_lease_and_is_not_new() {
    let of = |change: fn(&mut Gateway)| {
        failed(one(move |it| {
            it.pod = "another uid".to_owned();
            change(it);
        }))
    };
    assert_eq!(of(|_| {}), [Check::GatewayStreams]);
    assert_eq!(of(|it| it.age = SECOND * 15), [Check::GatewayStreams]);
    assert_eq!(of(|it| it.age = SECOND * 14), []);
    assert_eq!(of(|it| it.renewed = None), [Check::GatewayLeases]);
    let unled = outcome(Check::GatewayStreams, with(|it| it.election = Ok(None)));
    assert_eq!(unled, Outcome::Skipped(Check::Leader));
    let silent = with(|it| {
        it.gateways.living.as_mut().unwrap().iter_mut().for_each(|it| it.renewed = None);
    });
    assert_eq!(outcome(Check::GatewayStreams, silent), Outcome::Skipped(Check::GatewayLeases));
}

#[test]
fn a_certificate_is_noted_in_its_last_month_or_in_the_last_sixth_of_a_short_life() {
    let noted = |life: u32, left: u32| {
        let certificate = Certificate { life: DAY * life, left: DAY * left };
        warned(one(|it| it.certificate = Some(certificate)))
    };
    assert_eq!(noted(1095, 30), []);
    assert_eq!(noted(1095, 29), [Check::GatewayCertificates]);
    assert_eq!(noted(90, 15), []);
    assert_eq!(noted(90, 14), [Check::GatewayCertificates]);
    let soon = Certificate { life: DAY * 90, left: DAY * 14 };
    let soon = one(|it| it.certificate = Some(soon));
    assert_eq!(what(Check::GatewayCertificates, soon), "that of edge-1 expires in 14d");
}

#[test]
fn gateways_that_do_not_tell_how_long_their_certificates_last_are_unknown() {
    let change = with(|it| {
        it.gateways.living.as_mut().unwrap().iter_mut().for_each(|it| it.certificate = None);
    });
    let unknown = outcome(Check::GatewayCertificates, change);
    assert_eq!(unknown, Outcome::Unknown("no gateway tells it in its Lease".to_owned()));
    let dead = one(|it| {
        it.renewed = None;
        it.certificate = Some(Certificate { life: DAY, left: Duration::ZERO });
    });
    assert_eq!(failed(dead), [Check::GatewayLeases], "that of a dead gateway does not matter");
}

#[test]
fn an_only_gateway_and_a_missing_policy_are_warnings() {
    assert_eq!(warned(deployed(|it| (it.wanted, it.available) = (1, 1))), [Check::GatewayReplicas]);
    let missing = |it: &mut Facts| drop(it.policies.as_mut().unwrap().pop());
    assert_eq!(warned(with(missing)), [Check::GatewayPolicy]);
    let of_another = |it: &mut Facts| {
        let spec = it.policies.as_mut().unwrap()[3].spec.as_mut().unwrap();
        let condition = &mut spec.match_conditions.as_mut().unwrap()[0];
        condition.expression = condition.expression.replace(":beatkeeper:", ":elsewhere:");
    };
    assert_eq!(warned(with(of_another)), [Check::GatewayPolicy]);
}

#[test]
fn what_may_not_be_read_of_gateways_is_unknown_and_fails_nothing() {
    let no = || Unread("no".to_owned());
    let unknown = || Outcome::Unknown("no".to_owned());
    let asked = told(|it| {
        ask(it);
        it.gateways = Gateways::unread(&no());
    });
    assert_eq!(asked, [(Check::Gateways, unknown())]);
    let no_leases = told(with(|it| it.gateways.living = Err(no())));
    for (check, outcome) in no_leases {
        let needs = [Check::GatewayLeases, Check::GatewayStreams, Check::GatewayCertificates];
        assert_eq!(outcome == unknown(), needs.contains(&check), "{check:?}: {outcome:?}");
    }
    let no_deployments = told(with(|it| it.gateways.deployments = Err(no())));
    for (check, outcome) in no_deployments {
        let needs = [Check::GatewayReplicas, Check::GatewayVersions];
        assert_eq!(outcome == unknown(), needs.contains(&check), "{check:?}: {outcome:?}");
    }
    let no_operator = told(|it| {
        ask(it);
        it.operator = Err(no());
    });
    assert_eq!(no_operator, [(Check::Gateways, unknown())]);
    let uninstalled = told(|it| {
        ask(it);
        it.operator = Ok(None);
    });
    assert_eq!(uninstalled, [(Check::Gateways, Outcome::Skipped(Check::Operator))]);
}

#[test]
fn beats_through_gateways_are_no_load_of_the_api_server() {
    let many = |it: &mut Facts| {
        it.leases = Ok(BTreeMap::from([(Key::new("shop", "greeter"), 100_000)]));
    };
    assert_eq!(warned(many), [Check::Beats, Check::Store]);
    assert_eq!(warned(with(many)), []);
}

#[test]
fn an_operator_with_gateways_asks_what_their_clients_may_and_finds_them_in_its_namespace() {
    let asks = |flags: &[&str], verb: &str, resource: &str| {
        let mut operator = Operator::example();
        operator.args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let own = Some("beatkeeper");
        let rights = rights::needed_by(&operator);
        let unnamed = rights.into_iter().filter(|it| it.name.is_none());
        let mut at = unnamed.filter(|it| it.namespace.is_none() || it.namespace.as_deref() == own);
        at.any(|right| (right.verb, right.resource) == (verb, resource))
    };
    let flags = ["--gateway-cert-dir=/certs", "--namespace=shop"];
    assert!(!asks(&[], "create", "subjectaccessreviews"));
    assert!(asks(&flags[..1], "create", "subjectaccessreviews"));
    assert!(!asks(&flags[..1], "create", "tokenreviews"));
    assert!(!asks(&flags[1..], "watch", "leases"));
    assert!(asks(&flags, "watch", "leases"));
}
