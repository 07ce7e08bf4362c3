//! What is kept of each kind of object. What is not named here is not read: no Secret, no ConfigMap, no values of
//! environment variables, no arguments of other programs, no managed fields, and of annotations only Beatkeeper's own, for
//! kubectl and others store whole objects in them.

use std::marker::PhantomData;

use beatkeeper_core::objects::decode::{
    Decode,
    Keep::{self, All, Each, Entries, Fields, Time},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A kind of object in the bundle.
pub trait Kind {
    /// Its name, for messages.
    const NAME: &'static str;
    /// Its folder.
    const PLURAL: &'static str;
    /// The fields that are kept, without kind and version, which lists do not have.
    const KEEP: Keep;
}

/// An object, with what is kept of it.
pub struct Kept<K> {
    /// What is kept.
    pub value: Value,
    kind: PhantomData<K>,
}

impl<K> Kept<K> {
    /// The namespace; empty for an object that has none.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, label: &str) -> Option<&str> {
        self.value["metadata"]["labels"][label].as_str()
    }
}

impl<'de, K> Deserialize<'de> for Kept<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { value: Value::deserialize(deserializer)?, kind: PhantomData })
    }
}

impl<K: Kind> Decode for Kept<K> {
    const KIND: &'static str = K::NAME;
    const KEEP: Keep = K::KEEP;
}

/// Annotations that say something of Beatkeeper. Its notes and reasons are for people to read anyway.
fn ours(name: &str) -> bool {
    name.starts_with("beatkeeper.dev/")
        || name == "endpoints.kubernetes.io/last-change-trigger-time"
}

const METADATA: Keep = Fields(&[
    ("name", All),
    ("namespace", All),
    ("uid", All),
    ("resourceVersion", All),
    ("generation", All),
    ("creationTimestamp", Time),
    ("deletionTimestamp", Time),
    ("finalizers", All),
    ("ownerReferences", All),
    ("labels", All),
    ("annotations", Entries(ours)),
]);

const PROBE: Keep = Fields(&[
    ("initialDelaySeconds", All),
    ("periodSeconds", All),
    ("timeoutSeconds", All),
    ("failureThreshold", All),
]);

/// A container of any Pod.
const CONTAINER: Keep = Fields(&[
    ("name", All),
    ("image", All),
    ("ports", All),
    ("resources", All),
    ("restartPolicy", All),
    ("livenessProbe", PROBE),
    ("readinessProbe", PROBE),
]);

/// A container of the operator. Its flags hold no secret.
const OPERATOR_CONTAINER: Keep = Fields(&[
    ("name", All),
    ("image", All),
    ("args", All),
    ("env", Each(&Fields(&[("name", All)]))),
    ("ports", All),
    ("resources", All),
]);

/// How a container is. The message of one that has ended may be the last lines of its log.
const STATE: Keep = Fields(&[
    ("running", All),
    ("waiting", Fields(&[("reason", All)])),
    (
        "terminated",
        Fields(&[
            ("exitCode", All),
            ("signal", All),
            ("reason", All),
            ("startedAt", All),
            ("finishedAt", All),
        ]),
    ),
]);

const CONTAINER_STATUS: Keep = Fields(&[
    ("name", All),
    ("ready", All),
    ("started", All),
    ("restartCount", All),
    ("image", All),
    ("imageID", All),
    ("state", STATE),
    ("lastState", STATE),
]);

const POD_STATUS: Keep = Fields(&[
    ("phase", All),
    ("reason", All),
    ("podIP", All),
    ("podIPs", All),
    ("hostIP", All),
    ("startTime", All),
    ("conditions", All),
    ("containerStatuses", Each(&CONTAINER_STATUS)),
    ("initContainerStatuses", Each(&CONTAINER_STATUS)),
]);

macro_rules! kinds {
    ($($(#[$text:meta])* $kind:ident, $plural:literal, [$(($field:literal, $keep:expr)),* $(,)?];)*) => {
        $($(#[$text])*
        #[derive(Debug)]
        pub struct $kind;

        impl Kind for $kind {
            const NAME: &'static str = stringify!($kind);
            const PLURAL: &'static str = $plural;
            const KEEP: Keep = Fields(&[("metadata", METADATA), $(($field, $keep)),*]);
        })*
    };
}

kinds! {
    /// A registration.
    ServiceRegistration, "serviceregistrations", [("spec", All), ("status", All)];
    /// A Lease: a heartbeat, a probe, or that of an election.
    Lease, "leases", [("spec", All)];
    /// A Service.
    Service, "services", [("spec", All)];
    /// A slice.
    EndpointSlice, "endpointslices", [("addressType", All), ("endpoints", All), ("ports", All)];
    /// The older form of slices.
    Endpoints, "endpoints", [("subsets", All)];
    /// A Pod with an instance, or of the operator.
    Pod, "pods", [
        ("spec", Fields(&[
            ("nodeName", All),
            ("serviceAccountName", All),
            ("hostNetwork", All),
            ("readinessGates", All),
            ("restartPolicy", All),
            ("terminationGracePeriodSeconds", All),
            ("containers", Each(&CONTAINER)),
            ("initContainers", Each(&CONTAINER)),
        ])),
        ("status", POD_STATUS),
    ];
    /// An event of a registration.
    Event, "events", [
        ("involvedObject", Fields(&[("kind", All), ("namespace", All), ("name", All), ("uid", All)])),
        ("related", Fields(&[("kind", All), ("namespace", All), ("name", All)])),
        ("reason", All),
        ("action", All),
        ("message", All),
        ("type", All),
        ("count", All),
        ("series", All),
        ("eventTime", All),
        ("firstTimestamp", All),
        ("lastTimestamp", All),
        ("reportingComponent", All),
        ("reportingInstance", All),
    ];
    /// The operator's Deployment.
    Deployment, "deployments", [
        ("spec", Fields(&[
            ("replicas", All),
            ("selector", All),
            ("strategy", All),
            ("template", Fields(&[
                ("metadata", Fields(&[("labels", All)])),
                ("spec", Fields(&[
                    ("serviceAccountName", All),
                    ("priorityClassName", All),
                    ("terminationGracePeriodSeconds", All),
                    ("nodeSelector", All),
                    ("tolerations", All),
                    ("containers", Each(&OPERATOR_CONTAINER)),
                ])),
            ])),
        ])),
        ("status", All),
    ];
    /// The definition of registrations.
    CustomResourceDefinition, "customresourcedefinitions", [("spec", All), ("status", All)];
}

#[cfg(test)]
mod tests {
    use beatkeeper_core::objects::decode;
    use serde_json::json;

    use super::*;

    fn kept<K: Kind>(object: &Value) -> Value {
        decode::read::<Kept<K>>(object.to_string().as_bytes()).unwrap().value
    }

    #[test]
    fn nothing_of_a_pod_is_kept_that_may_hold_a_secret() {
        let container = json!({
            "name": "app", "image": "app:1", "args": ["--password=hush"], "command": ["hush"],
            "env": [{ "name": "TOKEN", "value": "hush" }], "envFrom": [{ "secretRef": { "name": "hush" } }],
            "livenessProbe": { "periodSeconds": 3, "exec": { "command": ["hush"] } },
            "lifecycle": { "preStop": { "exec": { "command": ["hush"] } } },
        });
        let pod = json!({
            "metadata": {
                "name": "a", "namespace": "shop", "labels": { "app": "a" },
                "annotations": { "beatkeeper.dev/note": "kept", "vault.example/token": "hush" },
                "managedFields": [{ "manager": "hush" }],
            },
            "spec": {
                "nodeName": "n", "containers": [container], "initContainers": [container],
                "volumes": [{ "name": "v", "secret": { "secretName": "hush" } }],
                "imagePullSecrets": [{ "name": "hush" }],
            },
            "status": {
                "phase": "Running", "message": "hush",
                "containerStatuses": [{
                    "name": "app",
                    "state": { "terminated": { "exitCode": 1, "message": "hush" } },
                    "lastState": { "waiting": { "reason": "Error", "message": "hush" } },
                }],
            },
        });
        let kept = kept::<Pod>(&pod);
        assert!(!kept.to_string().contains("hush"), "{kept}");
        assert_eq!(kept["metadata"]["annotations"], json!({ "beatkeeper.dev/note": "kept" }));
        assert_eq!(kept["spec"]["containers"][0]["livenessProbe"], json!({ "periodSeconds": 3 }));
        assert_eq!(kept["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    }

    #[test]
    fn of_the_operators_environment_the_names_are_kept() {
        let env = json!([{ "name": "RUST_LOG", "value": "hush" }]);
        let container = json!({ "name": "controller", "args": ["controller"], "env": env });
        let spec = json!({ "template": { "spec": { "containers": [container] } } });
        let object = json!({ "metadata": { "name": "beatkeeper" }, "spec": spec });
        let kept = kept::<Deployment>(&object);
        let container = &kept["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"], json!([{ "name": "RUST_LOG" }]));
        assert_eq!(container["args"], json!(["controller"]));
    }
}
