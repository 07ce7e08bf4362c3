//! Any edits during any stall.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::scene::{Edit, STALLS, Scene};

fn any_edit() -> impl Strategy<Value = Edit> {
    let ports = [
        json!([{ "name": "http", "port": 80, "targetPort": 9090 }]),
        json!([{ "name": "http", "port": 80, "targetPort": 8443 }]),
        json!([{ "name": "http", "port": 80, "targetPort": "missing" }]),
        json!([{ "name": "http", "port": 80, "targetPort": "web" }]),
        json!([{ "name": "web", "port": 80, "targetPort": 8080 }]),
        json!([{ "name": "http", "port": 80, "protocol": "UDP" }]),
        json!([{ "name": "http", "port": 80, "targetPort": 8080 },
               { "name": "admin", "port": 81, "targetPort": 9090 }]),
        json!([{ "name": "http", "port": "80" }]),
        json!([]),
        json!("http"),
    ];
    let selectors = [
        json!(null),
        json!({ "matchLabels": { "app": "other" } }),
        json!({ "matchLabels": { "app": 1 } }),
        json!({ "matchExpressions": [{ "key": "app", "operator": "Is" }] }),
    ];
    let instances = [
        json!([]),
        json!("none"),
        json!([{ "name": "edge-1", "addresses": ["192.0.2.102"] }]),
        json!([{ "name": "edge-1", "addresses": "192.0.2.101" }, { "name": "edge-2" }]),
        json!([{ "name": "edge-1", "addresses": ["192.0.2.101"],
                 "ports": [{ "name": "http", "port": 1 }] },
               { "name": "edge-2", "addresses": ["192.0.2.101"],
                 "ports": [{ "name": "http", "port": 2 }] }]),
        json!([{ "name": "edge-1", "addresses": ["nonsense"] }]),
        json!([{ "name": "vm-1", "addresses": ["192.0.2.103"] }]),
    ];
    let families = [json!(["IPv6"]), json!(["IPv4"]), json!(["IPv6", "IPv4"])];
    let service_ports = [
        json!([{ "name": "other", "port": 80 }]),
        json!([]),
        json!([{ "name": "http", "port": 9 }]),
    ];
    let pick = |values: Vec<Value>| proptest::sample::select(values);
    prop_oneof![
        3 => pick(ports.into()).prop_map(|value| Edit::Spec("ports", value)),
        2 => pick(selectors.into()).prop_map(|value| Edit::Spec("podSelector", value)),
        2 => pick(instances.into()).prop_map(|value| Edit::Spec("instances", value)),
        1 => pick(families.into()).prop_map(|value| Edit::Service("ipFamilies", value)),
        1 => pick(service_ports.into()).prop_map(|value| Edit::Service("ports", value)),
        1 => Just(Edit::Service("clusterIP", "None".into())),
        1 => Just(Edit::Spec("interval", json!(["1s"]))),
        1 => Just(Edit::Spec("serviceName", json!(7))),
        1 => Just(Edit::Spec("protection", json!({ "minReady": "all" }))),
        2 => proptest::sample::select(vec!["vm-1", "vm-3", "pod-1"]).prop_map(Edit::Leave),
        1 => Just(Edit::Cordon("vm-2")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn under_any_stall_and_any_edits_no_living_address_leaves_and_the_dead_do(
        stall in proptest::sample::select(STALLS.to_vec()),
        edits in vec(any_edit(), 1..6),
    ) {
        let mut scene = Scene::published();
        let before = scene.slices();
        scene.stall(stall);
        prop_assert!(scene.reconcile().is_some(), "{stall:?}");
        prop_assert_eq!(scene.slices(), before.clone());
        for edit in edits {
            scene.edit(edit);
            if scene.reconcile().is_none() {
                // The edit has removed the reason of the stall.
                return Ok(());
            }
            let living = scene.living(before.clone());
            prop_assert_eq!(scene.slices(), living.clone(), "exactly the living");
            let version = scene.version;
            scene.reconcile();
            prop_assert_eq!(scene.version, version + 1, "nothing more is written");
        }
    }
}
