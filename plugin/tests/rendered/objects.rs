//! Objects as the API server has them.

use beatkeeper_core::{objects::decode, vocabulary::key::Key};
use jiff::{SignedDuration, Timestamp};
use kubectl_beatkeeper::model::{assemble, lease::SeenLease, registration::Picture, store::Store};
use serde_json::{Value, json};

/// The present time of the tests.
pub fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// A moment before now, as Kubernetes writes it.
pub fn ago(seconds: i64) -> String {
    let at = now() - SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string()
}

/// A registration with a status that lists these instances.
pub fn registration(name: &str, instances: Value) -> Value {
    json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": name, "namespace": "shop", "uid": "r", "generation": 1 },
        "spec": {
            "ttl": "30s", "interval": "10s",
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            "podSelector": {},
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Published", "message": "",
                "lastTransitionTime": "2026-01-01T11:00:00Z",
            }],
            "instances": instances,
        },
    })
}

/// An entry of a status.
pub fn listed(name: &str, state: &str, reason: &str, message: &str) -> Value {
    json!({
        "name": name, "state": state, "reason": reason, "message": message,
        "since": "2026-01-01T11:55:50Z",
    })
}

/// A Lease of `greeter` that was renewed some seconds ago.
pub fn lease(instance: &str, address: &str, seconds: i64) -> Value {
    json!({
        "metadata": {
            "name": format!("greeter.{instance}"), "namespace": "shop", "uid": instance,
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "labels": { "beatkeeper.dev/registration": "greeter" },
            "annotations": { "beatkeeper.dev/addresses": address },
        },
        "spec": { "holderIdentity": instance, "renewTime": ago(seconds) },
    })
}

/// A slice of Beatkeeper with these addresses, each ready or not.
pub fn slice(name: &str, manager: &str, endpoints: &[(&str, bool)]) -> Value {
    let endpoint = |(address, ready): &(&str, bool)| {
        json!({
            "addresses": [address], "zone": "zone-a",
            "conditions": { "ready": ready, "serving": ready, "terminating": false },
        })
    };
    json!({
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {
                "kubernetes.io/service-name": "greeter",
                "endpointslice.kubernetes.io/managed-by": manager,
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// A store with a Service `greeter`, and Endpoints with these addresses.
pub fn store(registration: Value, leases: &[Value], slices: &[Value], ready: &[&str]) -> Store {
    let mut store = Store::default();
    let object = serde_json::from_value(registration).unwrap();
    let object: beatkeeper_api::ServiceRegistration = object;
    store.registrations.insert(Key::of(&object.metadata), object);
    for lease in leases {
        store.put_lease(decode::read::<SeenLease>(lease.to_string().as_bytes()).unwrap());
    }
    for slice in slices {
        store.put_slice(serde_json::from_value(slice.clone()).unwrap());
    }
    let key = Key::new("shop", "greeter");
    let service = json!({
        "metadata": { "name": "greeter", "namespace": "shop" },
        "spec": { "clusterIP": "10.96.0.12", "clusterIPs": ["10.96.0.12"],
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    });
    store.services.insert(key.clone(), serde_json::from_value(service).unwrap());
    let addresses: Vec<Value> = ready.iter().map(|ip| json!({ "ip": ip })).collect();
    let endpoints = json!({
        "metadata": { "name": "greeter", "namespace": "shop",
            "labels": { "endpoints.kubernetes.io/managed-by": "beatkeeper.dev" } },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": "http", "port": 8080 }] }],
    });
    store.endpoints.insert(key, serde_json::from_value(endpoints).unwrap());
    store
}

/// The picture of a store.
pub fn picture(store: &Store) -> Picture {
    assemble::picture(store, now())
}
