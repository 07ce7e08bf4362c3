use beatkeeper_api::heartbeat;
use kube::{ResourceExt, core::ObjectList};

use super::*;
use crate::{
    lease::{foreign_fields::ForeignFields, renewed},
    publication::Publication,
    schedule::Pace,
};

/// Adds to the metadata of an object values that a client of the API server can write and that our types
/// cannot hold.
fn strange(mut object: Value) -> String {
    let nested = "{\"f:a\":".repeat(500) + "{}" + &"}".repeat(500);
    object["metadata"]["creationTimestamp"] = json!("9999-12-31T23:59:59Z");
    object["metadata"]["deletionTimestamp"] = json!("+10000-01-01T00:00:00Z");
    object["metadata"]["generation"] = json!(1.5);
    object["metadata"]["finalizers"] = json!({ "of": ["a", "future", "version"] });
    let ours = "kubectl-annotate";
    object["metadata"]["managedFields"] = json!([
        { "manager": "m", "time": "9999-12-31T23:59:59Z", "fieldsV1": "NESTED" },
        { "manager": "n", "time": "+10000-01-01T00:00:00Z", "fieldsV1": { "f:spec": { "f:renewTime": "NESTED" } } },
        {
            "manager": ours, "operation": 7, "time": 7,
            "fieldsV1": { "f:metadata": { "f:annotations": { "f:beatkeeper.dev/note": {}, "f:x": "NESTED" } } },
        },
    ]);
    object["future"] = json!("NESTED");
    object.to_string().replace("\"NESTED\"", &nested)
}

fn read<K: Readable>(object: Value) -> K {
    let text = strange(object);
    let Read(read) = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
    read
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": "shop", "uid": "u", "resourceVersion": "7" })
}

#[test]
fn of_a_lease_all_that_a_heart_looks_at_is_read_whatever_else_is_in_it() {
    let mut object = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata("greeter.vm-1"),
        "spec": {
            "holderIdentity": "vm-1", "leaseDurationSeconds": 30, "leaseTransitions": 4,
            "renewTime": "2026-11-28T10:00:00.000001Z", "acquireTime": "9999-12-31T23:59:59.000000Z",
            "preferredHolder": { "of": "a future version" },
        },
    });
    object["metadata"]["labels"] = json!({ "beatkeeper.dev/registration": "greeter", "a": "b" });
    object["metadata"]["annotations"] = json!({ "beatkeeper.dev/note": "disk 91 %", "a": "b" });
    object["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p", "controller": "?" }]);
    let lease: Lease = read(object.clone());
    assert_eq!(heartbeat::registration_of(&lease), Some("greeter"));
    assert_eq!(lease.annotations()["beatkeeper.dev/note"], "disk 91 %");
    assert_eq!(lease.owner_references()[0].uid, "p");
    assert_eq!(
        (lease.uid().as_deref(), lease.resource_version().as_deref()),
        (Some("u"), Some("7"))
    );
    assert_eq!(ForeignFields::on(&lease), ForeignFields { health: false, note: true });
    let spec = lease.spec.as_ref().expect("a spec");
    assert_eq!(spec.holder_identity.as_deref(), Some("vm-1"));
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(4), Some(30)));
    assert_eq!(renewed(&lease), Some("2026-11-28T10:00:00.000001Z".parse().expect("a time")));

    object["spec"]["renewTime"] = json!("9999-12-31T23:59:59.000000Z");
    let latest = renewed(&read::<Lease>(object)).expect("a time");
    assert!(latest > "9999-01-01T00:00:00Z".parse().expect("a time"), "{latest}");
}

#[test]
fn of_a_pod_its_uid_is_read_whatever_else_is_in_it() {
    let pod: Pod = read(json!({
        "metadata": metadata("web"),
        "spec": { "containers": [{ "resources": 7 }], "terminationGracePeriodSeconds": "?" },
        "status": { "startTime": "9999-12-31T23:59:59Z", "conditions": [{ "lastProbeTime": "+10000" }] },
    }));
    assert_eq!(pod.uid().as_deref(), Some("u"));
}

#[test]
fn of_a_slice_all_that_is_shown_is_read_whatever_else_is_in_it() {
    let mut object = json!({
        "addressType": "IPv4", "metadata": metadata("greeter-x"),
        "endpoints": [{
            "addresses": ["192.0.2.1"], "conditions": { "ready": true, "future": 7 },
            "nodeName": "n", "zone": "z", "hints": { "forZones": 7 },
            "targetRef": { "kind": "Pod", "name": "web", "fieldPath": 7 },
        }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP", "appProtocol": 7 }],
    });
    let slice: EndpointSlice = read(object.clone());
    let endpoint = &slice.endpoints[0];
    assert_eq!(endpoint.addresses, ["192.0.2.1"]);
    assert_eq!(endpoint.conditions.as_ref().and_then(|all| all.ready), Some(true));
    assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n"), Some("z")));
    let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
    assert_eq!(pod, Some("web"));
    assert_eq!(slice.ports.expect("ports")[0].port, Some(8080));

    object["metadata"]["name"] = json!("greeter-y");
    let other = strange(object);
    let text =
        format!("{{\"kind\":\"EndpointSliceList\",\"metadata\":{{}},\"items\":[{other},{other}]}}");
    let list: ObjectList<Read<EndpointSlice>> = serde_json::from_str(&text).expect("a list");
    assert_eq!(list.items.len(), 2);
    let text = format!("{{\"type\":\"MODIFIED\",\"object\":{other}}}");
    let event = serde_json::from_str(&text).expect("an event");
    let kube::core::WatchEvent::Modified(Read(slice)) = event else { panic!("{event:?}") };
    assert_eq!(EndpointSlice::name_any(&slice), "greeter-y");
}

#[test]
fn of_a_registration_pace_service_and_status_are_read_whatever_else_is_in_it() {
    let mut object = json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": metadata("greeter"),
        "spec": { "ttl": "3s", "interval": "1s", "serviceName": "other", "ports": [{ "port": -1 }] },
        "status": {
            "total": 2, "ready": 99_999_999_999_i64, "lastChangeTime": "9999-12-31T23:59:59Z", "adopted": 7,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Published", "message": "",
                "lastTransitionTime": "9999-12-31T23:59:59Z", "observedGeneration": 1.5,
            }],
            "instances": [
                { "name": 7 },
                {
                    "name": "vm-1", "state": "Ready", "reason": "Beating", "addresses": ["192.0.2.1"],
                    "since": "9999-12-31T23:59:59Z", "lastBeat": "+10000-01-01T00:00:00Z",
                },
            ],
        },
    });
    let registration: ServiceRegistration = read(object.clone());
    let pace = Pace::of(&registration, None).expect("a pace");
    assert_eq!(pace.ttl().as_secs(), 3);
    assert_eq!(registration.spec.service_name.as_deref(), Some("other"));
    let publication = Publication::of(&registration, "vm-1").expect("a standing");
    assert!(publication.is_published(), "{publication}");
    assert_eq!(registration.status.expect("a status").conditions.len(), 1);

    object["spec"]["ttl"] = json!(30);
    object["status"] = json!(null);
    let registration: ServiceRegistration = read(object);
    let error = Pace::of(&registration, None).expect_err("no duration").to_string();
    assert!(error.starts_with("spec.ttl: \"30\" is not a duration"), "{error}");
    assert_eq!(registration.status, None);
}

#[test]
fn what_is_something_else_is_no_object_and_is_not_shown() {
    for answer in [
        json!({ "kind": "Status", "status": "Success", "metadata": {}, "message": "hunter2" }),
        json!({ "apiVersion": "v1", "kind": "hunter2", "metadata": { "name": "greeter.vm-1" } }),
        json!({ "metadata": { "name": "greeter.vm-1", "labels": "hunter2" } }),
        json!(["hunter2"]),
        json!("hunter2"),
        json!(null),
    ] {
        let error = serde_json::from_value::<Read<Lease>>(answer).expect_err("no Lease");
        assert_eq!(error.to_string(), "it is no object of the kind that was asked for");
    }
}
