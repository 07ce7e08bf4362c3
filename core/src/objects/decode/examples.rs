//! Example objects as the API server sends them, with all fields that it adds.

use serde_json::{Value, json};

fn metadata(name: &str, labels: Value) -> Value {
    json!({
        "name": name, "generateName": "some-", "namespace": "shop", "uid": format!("{name}-uid"),
        "resourceVersion": "41", "generation": 3, "creationTimestamp": "2026-11-22T10:00:00Z",
        "labels": labels, "finalizers": ["example.com/hold"],
        "annotations": { "example.com/note": "any", "beatkeeper.dev/note": "ours" },
        "ownerReferences": [{
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration", "name": "greeter",
            "uid": "sreg-uid", "controller": true, "blockOwnerDeletion": true,
        }],
        "managedFields": [{
            "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "2026-11-22T10:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:labels": { ".": {} } } },
        }],
    })
}

pub(crate) fn pod() -> Value {
    let container = json!({
        "name": "app", "image": "app:1", "restartPolicy": "Always",
        "env": [{ "name": "PASSWORD", "value": "hunter2" }],
        "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }, { "containerPort": 9000 }],
        "resources": { "limits": { "cpu": "1" } },
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata("web-1", json!({ "app": "greeter" })),
        "spec": {
            "nodeName": "node-1", "hostname": "web-1", "subdomain": "greeter",
            "readinessGates": [{ "conditionType": "example.com/gate" }],
            "containers": [container], "initContainers": [container],
            "volumes": [{ "name": "v", "emptyDir": {} }], "tolerations": [{ "operator": "Exists" }],
        },
        "status": {
            "phase": "Running", "podIP": "10.88.0.7", "podIPs": [{ "ip": "10.88.0.7" }, { "ip": "fd00::7" }],
            "hostIP": "10.0.0.1", "hostIPs": [{ "ip": "10.0.0.1" }], "startTime": "2026-11-22T10:00:00Z",
            "conditions": [
                { "type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-11-22T10:00:00Z" },
                { "type": "example.com/gate", "status": "True", "lastProbeTime": null },
            ],
            "containerStatuses": [{
                "name": "app", "ready": true, "restartCount": 0, "image": "app:1", "imageID": "x",
                "state": { "running": { "startedAt": "2026-11-22T10:00:00Z" } },
            }],
        },
    })
}

pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("greeter", json!({ "a": "b" })),
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd01::7"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack", "selector": { "app": "x" },
            "ports": [{
                "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "appProtocol": "http",
                "nodePort": 30080,
            }],
            "publishNotReadyAddresses": true, "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        },
        "status": { "loadBalancer": {} },
    })
}

pub(crate) fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata("greeter-x", json!({
            "kubernetes.io/service-name": "greeter",
            "endpointslice.kubernetes.io/managed-by": "beatkeeper.dev", "a": "b",
        })),
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.88.0.7"], "conditions": { "ready": true, "serving": true, "terminating": false },
            "hostname": "web-1", "nodeName": "node-1", "zone": "z1", "hints": { "forZones": [{ "name": "z1" }] },
            "targetRef": { "kind": "Pod", "name": "web-1", "namespace": "shop", "uid": "web-1-uid" },
        }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http" }],
    })
}

pub(crate) fn endpoints() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": metadata("greeter", json!({ "endpoints.kubernetes.io/managed-by": "beatkeeper.dev" })),
        "subsets": [{
            "addresses": [{ "ip": "10.88.0.7", "nodeName": "node-1" }], "notReadyAddresses": [{ "ip": "10.88.0.8" }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        }],
    })
}

pub(crate) fn node() -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": metadata("node-1", json!({ "topology.kubernetes.io/zone": "z1", "a": "b" })),
    })
}

pub(crate) fn lease() -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": metadata("greeter.web-1", json!({ "beatkeeper.dev/registration": "greeter", "a": "b" })),
        "spec": {
            "holderIdentity": "web-1", "leaseDurationSeconds": 30, "leaseTransitions": 1,
            "acquireTime": "2026-11-22T10:00:00.000000Z", "renewTime": "2026-11-22T10:00:00.000000Z",
        },
    });
    lease["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": "web-1-uid" }]);
    lease
}

pub(crate) fn registration() -> Value {
    json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": metadata("greeter", json!({ "a": "b" })),
        "spec": {
            "ttl": "30s", "interval": "10s", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            "podSelector": { "matchLabels": { "app": "greeter" } },
            "instances": [{ "name": "vm-1", "addresses": ["192.0.2.11"] }],
            "protection": { "minReady": 1 },
        },
        "status": {
            "observedGeneration": 3, "ready": 1, "expired": 0, "held": 0, "total": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Published", "message": "",
                "lastTransitionTime": "2026-11-22T10:00:00Z",
            }],
            "instances": [{
                "name": "web-1", "state": "Ready", "addresses": ["10.88.0.7"], "reason": "Beating",
                "since": "2026-11-22T10:00:00Z",
            }],
            "adopted": [{ "name": "adopted/192.0.2.9", "address": "192.0.2.9", "from": "Endpoints greeter" }],
        },
    })
}
