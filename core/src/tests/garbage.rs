//! Any content of Leases, Pods and specs leads to a verdict for each instance, and never to a panic. Nothing
//! grows without bound.

use std::collections::HashSet;

use beatkeeper_api::heartbeat as contract;
use proptest::{collection::vec, option::of, prelude::*};

use super::*;

/// Texts that are nearly valid, and arbitrary texts.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("vm-1".to_owned()),
        Just("web-1".to_owned()),
        Just("web-1-uid".to_owned()),
        Just("greeter".to_owned()),
        Just("Draining".to_owned()),
        Just("192.0.2.1, 2001:db8::1,,127.0.0.1,x".to_owned()),
        Just("true".to_owned()),
        Just("x,".repeat(3000)),
        any::<String>(),
    ]
}

fn lease_name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("greeter.vm-1".to_owned()),
        Just("greeter.web-1".to_owned()),
        Just("greeter.".to_owned()),
        Just("greeter".to_owned()),
        Just(format!("greeter.{}", "x".repeat(245))),
        "[a-z.-]{1,253}",
    ]
}

prop_compose! {
    fn any_lease()(
        name in lease_name(),
        texts in vec(text(), 8),
        (labelled, owned, annotated, deleting) in any::<(bool, bool, bool, bool)>(),
        renewed in of(prop_oneof![
            Just("2026-11-22T10:00:00.000000Z"),
            Just("0001-01-01T00:00:00.000000Z"),
            Just("9999-12-31T23:59:59.999999Z"),
            Just("10000-01-01T04:59:59.000000Z"),
        ]),
        seconds in of(any::<i32>()),
        version in text(),
    ) -> Value {
        let [holder, label, health, note, addresses, cordoned, owner, uid] =
            <[String; 8]>::try_from(texts).expect("eight");
        let mut lease = json!({
            "metadata": { "name": name, "resourceVersion": version },
            "spec": { "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": seconds },
        });
        let metadata = &mut lease["metadata"];
        if labelled {
            metadata["labels"] = json!({ contract::REGISTRATION_LABEL: label });
        }
        if owned {
            metadata["ownerReferences"] =
                json!([{ "apiVersion": "v1", "kind": "Pod", "name": owner, "uid": uid }]);
        }
        if annotated {
            metadata["annotations"] = json!({
                contract::HEALTH_ANNOTATION: health,
                contract::NOTE_ANNOTATION: note,
                contract::ADDRESSES_ANNOTATION: addresses,
            });
        }
        if annotated && deleting {
            metadata["annotations"][contract::CORDONED_ANNOTATION] = json!(cordoned);
        }
        if deleting && owned {
            metadata["deletionTimestamp"] = json!("2026-11-22T10:00:00Z");
        }
        lease
    }
}

prop_compose! {
    fn any_pod()(
        texts in vec(text(), 8),
        port in any::<i32>(),
        deleting in any::<bool>(),
        filled in any::<bool>(),
    ) -> Value {
        let [uid, ip, node, host, sub, phase, port_name, protocol] =
            <[String; 8]>::try_from(texts).expect("eight");
        if !filled {
            return json!({ "metadata": { "name": "web-1" } });
        }
        json!({
            "metadata": {
                "name": "web-1", "uid": uid, "labels": { "app": "greeter" },
                "deletionTimestamp": deleting.then_some("2026-11-22T10:00:00Z"),
            },
            "spec": {
                "nodeName": node, "hostname": host, "subdomain": sub,
                "containers": [{ "name": "main", "ports": [
                    { "name": port_name, "containerPort": port, "protocol": protocol },
                    { "containerPort": port },
                ] }],
                "readinessGates": [{ "conditionType": phase }],
            },
            "status": {
                "phase": phase, "podIP": ip, "podIPs": [{ "ip": ip }, { "ip": "10.0.0.7" }],
                "conditions": [{ "type": "ContainersReady", "status": "True" }],
            },
        })
    }
}

prop_compose! {
    fn any_spec()(
        texts in vec(text(), 7),
        numbers in vec(any::<i32>(), 3),
        durations in vec(prop_oneof![
            text(),
            "[0-9]{1,6}(h|m|s|ms|d)",
            "([0-9]{1,5}(h|m|s|ms)){1,5}",
        ], 2),
        selects in any::<bool>(),
    ) -> Value {
        let mut spec = json!({
            "ttl": durations[0], "interval": durations[1],
            "serviceName": texts[0],
            "ports": [
                { "name": texts[1], "port": numbers[0], "targetPort": texts[2], "protocol": texts[3] },
                { "name": texts[1], "port": 80, "targetPort": numbers[1] },
            ],
            "instances": [
                { "name": texts[4], "addresses": [texts[5]],
                  "ports": [{ "name": texts[1], "port": numbers[2] }] },
                { "name": "vm-1", "addresses": [] },
            ],
        });
        if selects {
            spec["podSelector"] = json!({ "matchExpressions": [
                { "key": texts[5], "operator": texts[6], "values": [texts[4]] },
            ] });
        }
        spec
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_lease_with_any_pod_gets_one_verdict_of_bounded_size(
        json in any_lease(),
        pod in any_pod(),
        spec in any_spec(),
        ours in any::<bool>(),
        later in 0..100_000u64,
    ) {
        let mut world = if ours { World::new() } else { World::with(spec) };
        world = world.pod("web-1", pod);
        let mut beat = Heartbeat::read(&lease(json));
        beat.registration = Some("greeter".to_owned());
        let deleting = beat.content.deleting;
        let name = key(&beat.lease);
        let mut index = index();
        index.observe("shop", beat.clone(), at(0));
        for read in [false, true] {
            if read {
                index.confirm(&name, found(&beat), at(later), at(later));
            }
            let verdicts = world.decide(&index, at(later));
            let judged = verdicts.iter().filter(|verdict| verdict.lease.is_some()).count();
            prop_assert!(judged == 1 || deleting || verdicts.iter().all(|v| v.lease.is_none()));
            let names: HashSet<&str> = verdicts.iter().map(|v| &*v.instance).collect();
            prop_assert_eq!(names.len(), verdicts.len(), "names are keys");
            for verdict in verdicts.iter().filter(|verdict| verdict.lease.is_some()) {
                prop_assert!(verdict.message.chars().count() <= 1024, "{}", verdict.message);
                prop_assert!(verdict.instance.len() <= 300);
                let addresses = verdict.placement.as_ref().map_or(0, |p| p.addresses.len());
                prop_assert!(addresses <= 8);
            }
            prop_assert_eq!(commit(&mut index, &verdicts, at(later)), CommitResult::Accepted);
        }
    }

    #[test]
    fn any_spec_becomes_a_registration_that_can_be_worked_with(spec in any_spec()) {
        let registration = Registration::validate(&object(spec));
        prop_assert!(registration.interval < registration.ttl);
        prop_assert!(!registration.interval.is_zero());
        prop_assert!(registration.ttl.as_secs() >= 1 && registration.ttl.as_secs() <= 86_400);
        prop_assert!(registration.ports.iter().all(|port| port.port > 0));
        prop_assert!(registration.declared.len() <= 2);
        prop_assert!(registration.problems.len() <= 10, "{:?}", registration.problems);
    }

    #[test]
    fn any_pod_has_a_view_with_ports_that_exist(json in any_pod()) {
        let view = pod(json);
        prop_assert!(view.ports.iter().all(|(_, _, port)| *port > 0));
        prop_assert!(view.ips.len() <= 2);
    }
}
