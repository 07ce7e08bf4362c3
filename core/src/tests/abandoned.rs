//! Objects of a registration that is gone, and their new owner.

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use serde::de::DeserializeOwned;

use super::*;
use crate::cluster_cache::{ClusterCache, Ownership, belongings::Kind};

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

/// A cluster with a registration and all objects that it has made.
fn cluster() -> ClusterCache {
    let mut cluster = ClusterCache::default();
    cluster.put_registration(&sreg("greeter", "old", "greeter"));
    cluster.put::<Service>(read(
        json!({ "metadata": metadata("greeter", "shop:greeter/old/greeter") }),
    ));
    cluster.put::<Endpoints>(read(json!({ "metadata": metadata("greeter", "shop:greeter/old") })));
    cluster.put::<EndpointSlice>(read(json!({
        "metadata": metadata("greeter-x7k2p", "shop:greeter/old"), "addressType": "IPv4", "endpoints": [],
    })));
    cluster
}

fn kinds(cluster: &ClusterCache) -> Vec<(Kind, bool)> {
    cluster.abandoned(None).into_iter().map(|it| (it.kind, it.orphaned)).collect()
}

#[test]
fn what_belongs_to_a_registration_that_is_gone_is_abandoned_until_another_names_its_service() {
    let mut cluster = cluster();
    assert_eq!(kinds(&cluster), []);
    cluster.remove_registration(&Key::new("shop", "greeter"));
    let all = [Kind::EndpointSlice, Kind::Endpoints, Kind::Service];
    assert_eq!(kinds(&cluster), all.map(|kind| (kind, false)));
    let service = cluster.service(&Key::new("shop", "greeter")).expect("the Service");
    for (name, uid) in [("greeter", "new"), ("other", "another")] {
        cluster.put_registration(&sreg(name, uid, "greeter"));
        assert_eq!(kinds(&cluster), [], "{name}");
        assert!(cluster.owns_service(&service, "shop", uid), "{name} takes the Service over");
        cluster.remove_registration(&Key::new("shop", name));
    }
    cluster.put_registration(&sreg("greeter", "new", "elsewhere"));
    assert_eq!(kinds(&cluster).len(), 3, "the one of its name is for another Service");
}

#[test]
fn what_is_seen_of_namespaces_whose_registrations_are_not_known_is_not_abandoned() {
    let mut cluster = cluster();
    cluster.remove_registration(&Key::new("shop", "greeter"));
    assert_eq!(cluster.abandoned(Some("elsewhere")), []);
    assert_eq!(cluster.abandoned(Some("shop")).len(), 3);
}

#[test]
fn a_service_is_not_taken_from_a_registration_that_lives() {
    let mut cluster = cluster();
    cluster.put_registration(&sreg("other", "another", "greeter"));
    let service = cluster.service(&Key::new("shop", "greeter")).expect("the Service");
    assert!(!cluster.owns_service(&service, "shop", "another"));
    assert!(cluster.owns_service(&service, "shop", "old"));
}

#[test]
fn a_copied_service_under_another_name_has_no_registration_and_is_never_abandoned() {
    let mut cluster = cluster();
    cluster
        .put::<Service>(read(json!({ "metadata": metadata("copy", "shop:greeter/old/greeter") })));
    let copy = cluster.service(&Key::new("shop", "copy")).expect("the copy");
    assert!(!cluster.owns_service(&copy, "shop", "old"));
    cluster.remove_registration(&Key::new("shop", "greeter"));
    assert_eq!(kinds(&cluster).len(), 3);
}

#[test]
fn what_is_deleted_with_its_objects_orphaned_says_so() {
    let mut cluster = cluster();
    let mut going = sreg("greeter", "old", "greeter");
    going.metadata.deletion_timestamp = Some(read(json!("2026-11-22T10:00:00Z")));
    going.metadata.finalizers = Some(vec!["orphan".to_owned()]);
    cluster.put_registration(&going);
    cluster.remove_registration(&Key::new("shop", "greeter"));
    assert!(kinds(&cluster).iter().all(|(_, orphaned)| *orphaned));
}

#[test]
fn a_mirrored_slice_with_the_copied_annotation_is_not_ours() {
    let mut cluster = cluster();
    let mut mirrored = metadata("greeter-mirror", "shop:greeter/old");
    mirrored["labels"]["endpointslice.kubernetes.io/managed-by"] =
        json!("endpointslicemirroring-controller.k8s.io");
    cluster.put::<EndpointSlice>(read(json!({
        "metadata": mirrored, "addressType": "IPv4", "endpoints": [],
    })));
    let (ours, foreign) = cluster.slices(&Key::new("shop", "greeter"), "old");
    assert_eq!(ours.len(), 1);
    assert_eq!(foreign.expect("a foreign one").0, "greeter-mirror");
}

/// Adds copies of all objects of the registration in another namespace. Their annotation has this value, not
/// "shop:greeter/old".
fn copy(cluster: &mut ClusterCache, owner: &str) {
    let metadata = |name: &str, owner: &str| {
        let mut metadata = metadata(name, owner);
        metadata["namespace"] = json!("another");
        metadata
    };
    cluster.put::<Service>(read(
        json!({ "metadata": metadata("greeter", &format!("{owner}/greeter")) }),
    ));
    cluster.put::<Endpoints>(read(json!({ "metadata": metadata("greeter", owner) })));
    cluster.put::<EndpointSlice>(read(json!({
        "metadata": metadata("greeter-x7k2p", owner), "addressType": "IPv4", "endpoints": [],
    })));
}

#[test]
fn a_copy_in_another_namespace_is_never_abandoned_and_hides_nothing_of_the_original() {
    // The present form of the annotation, and the form of earlier versions.
    for owner in ["shop:greeter/old", "greeter/old"] {
        let mut cluster = cluster();
        copy(&mut cluster, owner);
        assert_eq!(kinds(&cluster), [], "{owner}");
        cluster.remove_registration(&Key::new("shop", "greeter"));
        let all = cluster.abandoned(None);
        assert_eq!(all.len(), 3, "{owner}");
        assert!(all.iter().all(|it| it.registration == Key::new("shop", "greeter")), "{owner}");
    }
}

#[test]
fn a_copy_in_another_namespace_is_its_makers_for_a_registration_there() {
    let mut cluster = cluster();
    copy(&mut cluster, "shop:greeter/old");
    let mut there = sreg("greeter", "new", "greeter");
    there.metadata.namespace = Some("another".to_owned());
    cluster.put_registration(&there);
    let key = Key::new("another", "greeter");
    let (ours, foreign) = cluster.slices(&key, "new");
    assert!(ours.is_empty(), "{ours:?}");
    let (name, maker) = foreign.expect("the copy");
    assert_eq!(name, "greeter-x7k2p");
    assert!(maker.contains("copied it from namespace shop"), "{maker}");
    let endpoints = cluster.endpoints(&key).expect("the copy");
    assert_eq!(cluster.ownership(&endpoints.metadata, "new"), Ownership::Foreign);
    let service = cluster.service(&key).expect("the copy");
    assert!(!cluster.owns_service(&service, "another", "new"));
    // The copy does not belong to the original registration either, which publishes nothing in that namespace.
    assert_eq!(cluster.slices(&Key::new("shop", "greeter"), "old").0.len(), 1);
}

#[test]
fn what_an_earlier_version_has_made_is_a_registrations_and_abandoned_only_if_it_was_seen_there() {
    let mut cluster = ClusterCache::default();
    copy(&mut cluster, "greeter/old");
    let made = cluster.undecided(None).len();
    assert_eq!((kinds(&cluster).len(), made), (0, 3), "its registration has not been seen");
    let mut there = sreg("greeter", "new", "greeter");
    there.metadata.namespace = Some("another".to_owned());
    cluster.put_registration(&there);
    let key = Key::new("another", "greeter");
    assert_eq!(cluster.slices(&key, "new").0.len(), 1, "it is taken over");
    assert_eq!(cluster.undecided(None), []);
    cluster.remove_registration(&key);
    there.metadata.uid = Some("old".to_owned());
    cluster.put_registration(&there);
    cluster.remove_registration(&key);
    assert_eq!((kinds(&cluster).len(), cluster.undecided(None).len()), (3, 0));
}

#[test]
fn what_has_registrations_is_not_looked_at_again_and_again() {
    let mut cluster = cluster();
    for n in 0..1000 {
        let (name, uid) = (format!("other-{n}"), format!("uid-{n}"));
        cluster.put_registration(&sreg(&name, &uid, &name));
        cluster.put::<Endpoints>(read(
            json!({ "metadata": metadata(&name, &format!("shop:{name}/{uid}")) }),
        ));
    }
    assert_eq!((kinds(&cluster).len(), cluster.looked_at()), (0, 0));
    cluster.remove_registration(&Key::new("shop", "greeter"));
    assert_eq!((kinds(&cluster).len(), cluster.looked_at()), (3, 1));
}
