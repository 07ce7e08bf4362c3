//! What a stalled registration keeps published. Under any stall and any edits, living addresses stay and dead
//! addresses leave.

use std::collections::BTreeSet;

use self::scene::{Edit, Scene, Stall, Tuple, parsed};
use super::*;
use crate::{
    inputs::{preconditions, snapshot},
    vocabulary::address::Named,
};

mod edits;
mod scene;

#[test]
fn a_changed_port_during_a_stall_is_published_when_the_stall_ends() {
    let mut scene = Scene::published();
    scene.stall(Stall::Annotation);
    scene.edit(Edit::Spec("ports", json!([{ "name": "http", "port": 80, "targetPort": 9090 }])));
    assert_eq!(scene.reconcile(), Some("InvalidSpec"));
    let numbers = |scene: &Scene| {
        scene.slices().into_iter().map(|(.., port)| port).collect::<BTreeSet<i32>>()
    };
    assert_eq!(numbers(&scene), BTreeSet::from([8080, 8443]));
    scene.annotations = json!({});
    assert_eq!(scene.reconcile(), None);
    assert_eq!(numbers(&scene), BTreeSet::from([8443, 9090]));
}

#[test]
fn a_stall_adds_no_one() {
    let mut scene = Scene::published();
    let before = scene.slices();
    let mut newcomer = beat("vm-9", 1, 1);
    newcomer.content.addresses = vec![Named::from("192.0.2.9")];
    scene.beating.insert("vm-9", newcomer);
    scene.stall(Stall::Selector);
    scene.reconcile();
    assert_eq!(scene.slices(), before);
}

#[test]
fn during_a_stall_another_pod_at_the_address_of_a_dead_one_does_not_take_its_place() {
    let mut scene = Scene::published();
    scene.stall(Stall::Annotation);
    scene.beating.remove("pod-1");
    let successor = ready_pod("pod-3", &["10.88.0.1"]);
    scene.judge.pods.insert("pod-3".to_owned(), Arc::new(pod(successor)));
    scene.beating.insert("pod-3", pod_beat("pod-3", 1, 1));
    scene.reconcile();
    assert!(scene.slices().iter().all(|(address, ..)| address != "10.88.0.1"));
}

#[test]
fn of_two_instances_at_one_address_the_dead_one_leaves_during_a_stall() {
    for (dead, left) in [("edge-1", 8443), ("edge-2", 8080)] {
        let mut scene = Scene::published();
        scene.stall(Stall::Slice);
        scene.beating.remove(dead);
        scene.reconcile();
        let at_edge = |(address, _, port): Tuple| (address == "192.0.2.101").then_some(port);
        let ports: Vec<i32> = scene.slices().into_iter().filter_map(at_edge).collect();
        assert_eq!(ports, [left], "{dead} is dead");
    }
}

#[test]
fn what_must_not_be_published_any_more_leaves_during_a_stall() {
    let mut scene = Scene::published();
    scene.stall(Stall::Annotation);
    scene.judge.owned = Some("192.0.2.1".parse().expect("an address"));
    scene.reconcile();
    assert!(scene.slices().iter().all(|(address, ..)| address != "192.0.2.1"));
}

/// After a start the operator learns the addresses of declared instances from the status.
#[test]
fn an_operator_that_starts_during_a_stall_knows_from_the_status_where_instances_were() {
    let mut scene = Scene::published();
    let before = scene.slices();
    scene.stall(Stall::Annotation);
    scene
        .edit(Edit::Spec("instances", json!([{ "name": "edge-1", "addresses": ["192.0.2.102"] }])));
    scene.earlier = Arc::new(Earlier::from_status(&parsed(json!({ "instances": [
        { "name": "edge-1", "state": "Ready", "reason": "Beating", "addresses": ["192.0.2.101"] },
        { "name": "edge-2", "state": "Ready", "reason": "Beating", "addresses": ["192.0.2.101"] },
    ] }))));
    scene.reconcile();
    assert_eq!(scene.slices(), before);
}

/// If the port names of the Service differed from those of the slices, no endpoint would serve the Service.
#[test]
fn a_service_that_cannot_be_given_new_ports_keeps_what_is_published() {
    let mut scene = Scene::published();
    scene.reconcile();
    let stalled = |scene: &Scene, ports: Value| {
        let object = json!({ "ports": ports });
        let registration = Registration::validate(&super::object(object));
        let snapshot = snapshot::take(&scene.judge.registration, &scene.cluster);
        preconditions::old_ports(&registration, snapshot.service.as_deref(), "forbidden").is_some()
    };
    assert!(stalled(&scene, json!([{ "name": "web", "port": 80 }])));
    assert!(!stalled(&scene, json!([{ "name": "http", "port": 80, "targetPort": 9090 }])));
}
