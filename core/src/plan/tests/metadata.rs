//! Tests of labels, owners, annotations and names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::*;

fn http() -> PortSet {
    ports(&[("http", 8080)])
}

fn labels(metadata: &ObjectMeta) -> Vec<(String, String)> {
    metadata.labels.clone().unwrap_or_default().into_iter().collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn created_objects_name_their_owner() {
    let server = World::new().published(&fleet(0..1, &http()));
    let slice = server.the_slice().metadata;
    let endpoints = server.endpoints.unwrap().metadata;
    assert_eq!(
        labels(&slice),
        [
            pair("endpointslice.kubernetes.io/managed-by", "beatkeeper.dev"),
            pair("kubernetes.io/service-name", "greeter"),
        ]
    );
    assert_eq!(
        labels(&endpoints),
        [
            pair("endpoints.kubernetes.io/managed-by", "beatkeeper.dev"),
            pair("endpointslice.kubernetes.io/skip-mirror", "true"),
        ]
    );
    assert_eq!(endpoints.name.as_deref(), Some("greeter"));
    for metadata in [slice, endpoints] {
        assert_eq!(metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(marks::owned_by(&metadata), Some("shop:greeter/uid-of-greeter"));
        // The garbage collector would act on an owner reference within milliseconds.
        assert_eq!(metadata.owner_references, None);
    }
}

/// Publishes endpoints, applies an edit to the metadata of both objects, and returns the repaired metadata.
fn repaired(edit: impl Fn(&mut ObjectMeta)) -> [ObjectMeta; 2] {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let untouched = server.clone();
    let mut slice = server.the_slice();
    edit(&mut slice.metadata);
    server.store_slice(slice);
    let mut endpoints = server.endpoints.clone().unwrap();
    edit(&mut endpoints.metadata);
    server.store_endpoints(endpoints);
    let plan = world.publish(&mut server, &all);
    if !plan.is_empty() {
        assert_eq!(
            lines(&plan),
            [["update slice greeter-00000: metadata", "update endpoints greeter: metadata"]]
        );
    }
    assert_eq!(server.the_slice().endpoints, untouched.the_slice().endpoints);
    [server.the_slice().metadata, server.endpoints.unwrap().metadata]
}

#[test]
fn lost_labels_are_repaired() {
    let whole = repaired(|_| ());
    let again = repaired(|metadata| metadata.labels = None);
    assert_eq!(again.map(|it| it.labels), whole.map(|it| it.labels));
}

#[test]
fn changed_labels_are_repaired_and_added_ones_kept() {
    let again = repaired(|metadata| {
        let labels = metadata.labels.as_mut().unwrap();
        for value in labels.values_mut() {
            "wrong".clone_into(value);
        }
        labels.insert("team".to_owned(), "shop".to_owned());
    });
    for metadata in again {
        let labels = metadata.labels.unwrap();
        assert_eq!(labels.get("team").map(String::as_str), Some("shop"));
        assert!(!labels.values().any(|value| value == "wrong"));
    }
}

#[test]
fn added_labels_and_annotations_are_no_reason_to_write() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut slice = server.the_slice();
    slice.metadata.labels.as_mut().unwrap().insert("team".to_owned(), "shop".to_owned());
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.insert("note".to_owned(), "hands off".to_owned());
    server.store_slice(slice);
    assert!(world.plan(&server, &all).is_empty());
    world.publish(&mut server, &all[1..]);
    let metadata = server.the_slice().metadata;
    assert!(metadata.labels.unwrap().contains_key("team"));
    assert!(metadata.annotations.unwrap().contains_key("note"));
}

#[test]
fn a_lost_mark_of_the_owner_is_repaired_and_that_of_an_earlier_registration_replaced() {
    // The last value has the format of earlier versions.
    let earlier = ["shop:greeter/uid-of-the-earlier", "?", "greeter/uid-of-greeter"].map(Some);
    for value in [None].into_iter().chain(earlier) {
        let again = repaired(|metadata| {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.remove(marks::OWNED_BY_ANNOTATION);
            if let Some(value) = value {
                annotations.insert(marks::OWNED_BY_ANNOTATION.to_owned(), value.to_owned());
            }
        });
        for metadata in again {
            assert_eq!(marks::owned_by(&metadata), Some("shop:greeter/uid-of-greeter"));
        }
    }
}

#[test]
fn the_owner_reference_of_an_earlier_version_goes() {
    let again = repaired(|metadata| {
        metadata.annotations = None;
        metadata.owner_references = Some(vec![OwnerReference {
            api_version: "beatkeeper.dev/v1alpha1".to_owned(),
            kind: "ServiceRegistration".to_owned(),
            name: "greeter".to_owned(),
            uid: "uid-of-greeter".to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]);
    });
    for metadata in again {
        assert_eq!(metadata.owner_references, None);
        assert_eq!(marks::owned_by(&metadata), Some("shop:greeter/uid-of-greeter"));
    }
}

#[test]
fn an_owner_that_is_no_controller_is_kept() {
    let other = || OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: "greeter".to_owned(),
        uid: "uid-of-the-service".to_owned(),
        ..OwnerReference::default()
    };
    let again = repaired(|metadata| {
        metadata.annotations = None;
        metadata.owner_references = Some(vec![other()]);
    });
    for metadata in again {
        let references = metadata.owner_references.unwrap();
        assert_eq!(references, [other()]);
    }
}

#[test]
fn the_headless_label_follows_the_service() {
    let mut world = World::new();
    let all = fleet(0..1, &http());
    let mut server = world.published(&all);
    for headless in [true, false] {
        world.service.headless = headless;
        let plan = world.publish(&mut server, &all);
        assert_eq!(plan.writes().count(), 2);
        let objects = [server.the_slice().metadata, server.endpoints.clone().unwrap().metadata];
        for metadata in objects {
            let label = metadata.labels.unwrap().get("service.kubernetes.io/headless").cloned();
            assert_eq!(label, headless.then(String::new));
        }
    }
}

#[test]
fn the_trigger_time_is_written_along_but_is_no_reason_to_write() {
    let mut world = World::new();
    let mut all = fleet(0..2, &http());
    world.trigger_time = Some("2026-11-22T10:00:00.25Z".parse().unwrap());
    let mut server = world.published(&all);
    let seen = |server: &Server| {
        [server.the_slice().metadata, server.endpoints.clone().unwrap().metadata].map(|metadata| {
            let annotations = metadata.annotations.unwrap_or_default();
            annotations.get("endpoints.kubernetes.io/last-change-trigger-time").cloned()
        })
    };
    assert_eq!(seen(&server), [(); 2].map(|()| Some("2026-11-22T10:00:00.25Z".to_owned())));

    world.trigger_time = Some("2026-11-22T11:00:00Z".parse().unwrap());
    assert!(world.plan(&server, &all).is_empty());
    not_ready(&mut all[0]);
    world.publish(&mut server, &all);
    assert_eq!(seen(&server), [(); 2].map(|()| Some("2026-11-22T11:00:00Z".to_owned())));

    // It is better to write no moment than a wrong one.
    world.trigger_time = None;
    assert!(world.plan(&server, &all).is_empty());
    world.publish(&mut server, &all[..1]);
    assert_eq!(seen(&server), [None, None]);
}

#[test]
fn a_service_with_a_name_of_63_characters_gets_slices() {
    let mut world = World::new();
    world.service.name = format!("greeter-{}", "x".repeat(55));
    let server = world.published(&fleet(0..101, &http()));
    assert_eq!(server.slices.len(), 2);
    for (name, slice) in &server.slices {
        assert_eq!(name.len(), 63);
        let labels = slice.metadata.labels.clone().unwrap();
        assert_eq!(labels[marks::SERVICE_NAME_LABEL], world.service.name);
    }
}

#[test]
fn updates_and_deletions_say_what_they_were_planned_from() {
    let world = World { max: 2, ..World::new() };
    let all = fleet(0..4, &http());
    let server = world.published(&all);
    let plan = world.plan(&server, &all[..1]);
    let mut seen = 0;
    for write in plan.writes() {
        match write {
            Write::UpdateSlice(slice, _) => {
                let stored = &server.slices["greeter-00000"].metadata;
                assert_eq!(slice.metadata.resource_version, stored.resource_version);
                assert_eq!(slice.metadata.uid, stored.uid);
                seen += 1;
            }
            Write::DeleteSlice { name, uid, resource_version } => {
                let stored = &server.slices[name].metadata;
                assert_eq!(Some(uid), stored.uid.as_ref());
                assert_eq!(Some(resource_version), stored.resource_version.as_ref());
                seen += 1;
            }
            Write::UpdateEndpoints(endpoints, _) => {
                let stored = &server.endpoints.as_ref().unwrap().metadata;
                assert_eq!(endpoints.metadata.resource_version, stored.resource_version);
                seen += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(seen, 3);
}
