//! What belonged to a registration that is gone, and whose it is then.

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use serde::de::DeserializeOwned;

use super::*;
use crate::core::world::{Kind, World};

fn read<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn sreg(name: &str, uid: &str, service: &str) -> ServiceRegistration {
    read(json!({
        "metadata": { "name": name, "namespace": "shop", "uid": uid },
        "spec": { "serviceName": service, "ports": [{ "port": 80 }] },
    }))
}

fn metadata(name: &str, owner: &str) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "resourceVersion": "7",
        "labels": {
            "kubernetes.io/service-name": "greeter",
            "endpointslice.kubernetes.io/managed-by": "beatkeeper.dev",
            "endpoints.kubernetes.io/managed-by": "beatkeeper.dev",
        },
        "annotations": { "beatkeeper.dev/owned-by": owner },
    })
}

/// A world with a registration and all that it has made.
fn world() -> World {
    let mut world = World::default();
    world.put_registration(&sreg("greeter", "old", "greeter"));
    world.put::<Service>(read(json!({ "metadata": metadata("greeter", "greeter/old/greeter") })));
    world.put::<Endpoints>(read(json!({ "metadata": metadata("greeter", "greeter/old") })));
    world.put::<EndpointSlice>(read(json!({
        "metadata": metadata("greeter-x7k2p", "greeter/old"), "addressType": "IPv4", "endpoints": [],
    })));
    world
}

fn kinds(world: &mut World) -> Vec<(Kind, bool)> {
    world.abandoned(None).into_iter().map(|it| (it.kind, it.orphaned)).collect()
}

#[test]
fn what_belongs_to_a_registration_that_is_gone_is_abandoned_until_another_names_its_service() {
    let mut world = world();
    assert_eq!(kinds(&mut world), []);
    world.remove_registration(&Key::new("shop", "greeter"));
    let all = [Kind::EndpointSlice, Kind::Endpoints, Kind::Service];
    assert_eq!(kinds(&mut world), all.map(|kind| (kind, false)));
    let service = world.service(&Key::new("shop", "greeter")).expect("the Service");
    for (name, uid) in [("greeter", "new"), ("other", "another")] {
        world.put_registration(&sreg(name, uid, "greeter"));
        assert_eq!(kinds(&mut world), [], "{name}");
        assert!(world.owns_service(&service, "shop", uid), "{name} takes the Service over");
        world.remove_registration(&Key::new("shop", name));
    }
    world.put_registration(&sreg("greeter", "new", "elsewhere"));
    assert_eq!(kinds(&mut world).len(), 3, "the one of its name is for another Service");
}

#[test]
fn what_is_seen_of_namespaces_whose_registrations_are_not_known_is_not_abandoned() {
    let mut world = world();
    world.remove_registration(&Key::new("shop", "greeter"));
    assert_eq!(world.abandoned(Some("elsewhere")), []);
    assert_eq!(world.abandoned(Some("shop")).len(), 3);
}

#[test]
fn a_service_is_not_taken_from_a_registration_that_lives() {
    let mut world = world();
    world.put_registration(&sreg("other", "another", "greeter"));
    let service = world.service(&Key::new("shop", "greeter")).expect("the Service");
    assert!(!world.owns_service(&service, "shop", "another"));
    assert!(world.owns_service(&service, "shop", "old"));
}

#[test]
fn a_copy_of_a_service_under_another_name_is_nobodys_and_never_abandoned() {
    let mut world = world();
    world.put::<Service>(read(json!({ "metadata": metadata("copy", "greeter/old/greeter") })));
    let copy = world.service(&Key::new("shop", "copy")).expect("the copy");
    assert!(!world.owns_service(&copy, "shop", "old"));
    world.remove_registration(&Key::new("shop", "greeter"));
    assert_eq!(kinds(&mut world).len(), 3);
}

#[test]
fn what_is_deleted_with_its_objects_orphaned_says_so() {
    let mut world = world();
    let mut going = sreg("greeter", "old", "greeter");
    going.metadata.deletion_timestamp = Some(read(json!("2026-11-22T10:00:00Z")));
    going.metadata.finalizers = Some(vec!["orphan".to_owned()]);
    world.put_registration(&going);
    world.remove_registration(&Key::new("shop", "greeter"));
    assert!(kinds(&mut world).iter().all(|(_, orphaned)| *orphaned));
}

#[test]
fn a_mirrored_slice_with_the_copied_annotation_is_not_ours() {
    let mut world = world();
    let mut mirrored = metadata("greeter-mirror", "greeter/old");
    mirrored["labels"]["endpointslice.kubernetes.io/managed-by"] =
        json!("endpointslicemirroring-controller.k8s.io");
    world.put::<EndpointSlice>(read(json!({
        "metadata": mirrored, "addressType": "IPv4", "endpoints": [],
    })));
    let (ours, foreign) = world.slices(&Key::new("shop", "greeter"), "old");
    assert_eq!(ours.len(), 1);
    assert_eq!(foreign.expect("a foreign one").0, "greeter-mirror");
}

#[test]
fn a_copy_in_another_namespace_is_its_makers_and_hides_nothing_of_the_original() {
    let mut world = world();
    let mut copy = metadata("greeter", "greeter/old/greeter");
    copy["namespace"] = json!("another");
    world.put::<Service>(read(json!({ "metadata": copy })));
    assert_eq!(kinds(&mut world), []);
    world.remove_registration(&Key::new("shop", "greeter"));
    let registrations = world.abandoned(Some("shop"));
    assert_eq!(registrations.len(), 3);
    assert!(registrations.iter().all(|it| it.registration == Key::new("shop", "greeter")));
}
