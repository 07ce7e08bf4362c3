//! The validate step: each problem is named, and the valid parts still work.

use std::time::Duration;

use super::*;
use crate::{objects::registration::TargetPort, vocabulary::endpoint::Protocol};

fn validate(spec: Value) -> Registration {
    Registration::validate(&object(spec))
}

fn problems(mut spec: Value) -> Vec<String> {
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{ "name": "http", "port": 80 }]);
    }
    messages(&validate(spec).problems)
}

#[test]
fn a_good_spec_has_no_problem_and_every_default() {
    let registration = validate(json!({ "ports": [{ "name": "http", "port": 80 }] }));
    assert_eq!(registration.problems, []);
    assert_eq!(registration.key, key("greeter"));
    assert_eq!(registration.service_name, "greeter");
    assert_eq!(registration.ttl, Duration::from_secs(90));
    assert_eq!(registration.interval, Duration::from_secs(30));
    assert_eq!(registration.generation, Some(3));
    assert!(registration.selector.is_none(), "no Pod may join unasked");
    assert!(!registration.selector_unreadable);
    let port = &registration.ports[0];
    assert_eq!(
        (port.port, &port.target, port.protocol),
        (80, &TargetPort::Number(80), Protocol::Tcp)
    );
}

#[test]
fn a_ttl_or_interval_that_cannot_hold_is_named_and_replaced() {
    let bad = validate(json!({ "ttl": "soon", "interval": "10s", "ports": [{ "port": 80 }] }));
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(
        (bad.ttl, bad.interval),
        (day, Duration::from_secs(10)),
        "no instance is pruned sooner"
    );
    assert_eq!(
        messages(&bad.problems),
        [
            "spec.ttl: \"soon\" is not a duration: write whole numbers with the units h, m, s or ms, \
          as in 1h30m, 30s or 1500ms"
        ]
    );
    for (ttl, interval, becomes, problem) in [
        ("500ms", "100ms", (1000, 100), "spec.ttl is 500ms; it must be from 1s to 24h"),
        ("25h", "30s", (86_400_000, 30_000), "spec.ttl is 25h; it must be from 1s to 24h"),
        (
            "30s",
            "30s",
            (30_000, 10_000),
            "spec.interval is 30s; it must be above zero and shorter than ttl 30s",
        ),
        (
            "30s",
            "0s",
            (30_000, 10_000),
            "spec.interval is 0s; it must be above zero and shorter than ttl 30s",
        ),
    ] {
        let found =
            validate(json!({ "ttl": ttl, "interval": interval, "ports": [{ "port": 80 }] }));
        assert_eq!(messages(&found.problems), [problem]);
        let (ttl, interval) = becomes;
        assert_eq!(found.ttl, Duration::from_millis(ttl));
        assert_eq!(found.interval, Duration::from_millis(interval));
    }
    assert_eq!(
        problems(json!({ "ttl": "soon", "interval": "25h", "ports": [{ "port": 80 }] }))[1],
        "spec.interval is 25h; it must be above zero and shorter than ttl 24h"
    );
}

#[test]
fn a_bad_port_is_left_out_and_the_others_stay() {
    let registration = validate(json!({ "ports": [
        { "name": "a", "port": 80 },
        { "name": "a", "port": 81 },
        { "name": "b", "port": 0 },
        { "name": "c", "port": 80, "targetPort": 65_536 },
        { "name": "d", "port": 80, "protocol": "ICMP" },
        { "name": "e", "port": 53, "protocol": "UDP", "targetPort": "dns" },
        { "name": "f".repeat(64), "port": 82 },
    ] }));
    let names: Vec<_> = registration.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["a", "e"]);
    assert_eq!(registration.ports[0].port, 80, "the first of a name stays");
    assert_eq!(registration.ports[1].target, TargetPort::Name("dns".to_owned()));
    assert_eq!(
        messages(&registration.problems),
        [
            "spec.ports[1].name \"a\" is there twice",
            "spec.ports[2].port is 0; it must be from 1 to 65535",
            "spec.ports[3].targetPort is 65536; it must be from 1 to 65535",
            "spec.ports[4].protocol is \"ICMP\"; it must be TCP, UDP or SCTP",
            "spec.ports[6].name has 64 characters; it must be at most 63",
        ]
    );
    assert_eq!(problems(json!({ "ports": [] })), ["spec.ports is empty; name at least one port"]);
}

#[test]
fn an_unreadable_selector_admits_no_pod_and_is_named() {
    let registration = validate(json!({
        "ports": [{ "port": 80 }],
        "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Is" }] },
    }));
    assert!(registration.selector.is_none() && registration.selector_unreadable);
    let problems = messages(&registration.problems);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("spec.podSelector: "), "{problems:?}");
}

#[test]
fn of_two_declarations_of_one_name_the_first_stays() {
    let long = "x".repeat(190);
    let registration = validate(json!({ "ports": [{ "port": 80 }], "instances": [
        { "name": "vm-1", "addresses": ["192.0.2.1"] },
        { "name": "vm-1", "addresses": ["192.0.2.2"] },
        { "name": "", "addresses": ["192.0.2.3"] },
        { "name": long, "addresses": ["192.0.2.4"] },
    ] }));
    assert_eq!(
        messages(&registration.problems),
        [
            "spec.instances[1].name \"vm-1\" is there twice",
            "spec.instances[2].name must have 1 to 189 characters",
            "spec.instances[3].name must have 1 to 189 characters",
        ]
    );
    assert_eq!(registration.declared.len(), 1);
    assert_eq!(registration.declared["vm-1"].addresses, ["192.0.2.1"]);
}
