//! The fields that are kept of each kind.

use beatkeeper_api::{
    ServiceRegistration, gateway::GATEWAYS_ANNOTATION, heartbeat::REGISTRATION_LABEL,
};
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::Value;

use crate::objects::{
    decode::{
        Decode,
        Keep::{self, All, Each, Entries, Fields, Time},
        identity::OWNER,
    },
    heartbeat::HeartbeatLease,
    salvage,
};

/// Whether an annotation is one of ours.
fn ours(name: &str) -> bool {
    name.starts_with("beatkeeper.dev/")
}

/// An update replaces the whole object, so everything in its metadata that others have written has to be kept. The
/// managed fields are not needed, because the API server maintains them itself.
const WRITTEN_METADATA: Keep = Fields(&[
    ("name", All),
    ("generateName", All),
    ("namespace", All),
    ("uid", All),
    ("resourceVersion", All),
    ("generation", All),
    ("labels", All),
    ("annotations", All),
    ("ownerReferences", Each(&OWNER)),
    ("finalizers", All),
    ("deletionTimestamp", Time),
]);

impl Decode for Pod {
    const KIND: &'static str = "Pod";
    const KEEP: Keep = {
        const CONTAINER: Keep = Fields(&[
            ("name", All),
            ("restartPolicy", All),
            ("ports", Each(&Fields(&[("name", All), ("protocol", All), ("containerPort", All)]))),
        ]);
        Fields(&[
            (
                "metadata",
                Fields(&[
                    ("name", All),
                    ("namespace", All),
                    ("uid", All),
                    ("resourceVersion", All),
                    ("labels", All),
                    ("annotations", Entries(ours)),
                    ("ownerReferences", Each(&OWNER)),
                    ("deletionTimestamp", Time),
                ]),
            ),
            (
                "spec",
                Fields(&[
                    ("nodeName", All),
                    ("hostname", All),
                    ("subdomain", All),
                    ("hostNetwork", All),
                    ("readinessGates", Each(&Fields(&[("conditionType", All)]))),
                    ("containers", Each(&CONTAINER)),
                    ("initContainers", Each(&CONTAINER)),
                ]),
            ),
            (
                "status",
                Fields(&[
                    ("phase", All),
                    ("podIP", All),
                    ("podIPs", Each(&Fields(&[("ip", All)]))),
                    ("hostIP", All),
                    ("hostIPs", Each(&Fields(&[("ip", All)]))),
                    (
                        "conditions",
                        Each(&Fields(&[
                            ("type", All),
                            ("status", All),
                            ("reason", All),
                            ("message", All),
                        ])),
                    ),
                ]),
            ),
        ])
    };
}

impl Decode for Service {
    const KIND: &'static str = "Service";
    const KEEP: Keep = Fields(&[
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("uid", All),
                ("resourceVersion", All),
                ("labels", Entries(|name| name == "app.kubernetes.io/managed-by")),
                ("annotations", Entries(ours)),
                ("ownerReferences", Each(&OWNER)),
                ("deletionTimestamp", Time),
            ]),
        ),
        (
            "spec",
            Fields(&[
                ("type", All),
                ("clusterIP", All),
                ("clusterIPs", All),
                ("externalIPs", All),
                ("externalName", All),
                ("ipFamilies", All),
                ("ipFamilyPolicy", All),
                ("ports", All),
                ("publishNotReadyAddresses", All),
                ("selector", All),
            ]),
        ),
    ]);
}

impl Decode for EndpointSlice {
    const KIND: &'static str = "EndpointSlice";
    const KEEP: Keep = Fields(&[
        ("metadata", WRITTEN_METADATA),
        ("addressType", All),
        ("endpoints", All),
        ("ports", All),
    ]);
}

impl Decode for Endpoints {
    const KIND: &'static str = "Endpoints";
    const KEEP: Keep = Fields(&[("metadata", WRITTEN_METADATA), ("subsets", All)]);
}

impl Decode for PartialObjectMeta<Node> {
    const KIND: &'static str = "Node";
    const KEEP: Keep = Fields(&[(
        "metadata",
        Fields(&[
            ("name", All),
            ("uid", All),
            ("resourceVersion", All),
            ("labels", Entries(|name| name.starts_with("topology.kubernetes.io/"))),
        ]),
    )]);
}

impl Decode for HeartbeatLease {
    const KIND: &'static str = "Lease";
    const KEEP: Keep = Fields(&[
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("uid", All),
                ("resourceVersion", All),
                ("labels", Entries(|name| name == REGISTRATION_LABEL)),
                ("annotations", Entries(ours)),
                ("ownerReferences", Each(&OWNER)),
                // A creation time that cannot be read is treated as if it were missing.
                ("creationTimestamp", All),
                ("deletionTimestamp", Time),
            ]),
        ),
        (
            "spec",
            Fields(&[("holderIdentity", All), ("renewTime", All), ("leaseDurationSeconds", All)]),
        ),
    ]);

    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        Self::of_kept(kept)
    }
}

/// A Lease that is not a heartbeat: the Lease of the leader election.
impl Decode for DynamicObject {
    const KIND: &'static str = "Lease";
    const KEEP: Keep = Fields(&[
        ("apiVersion", All),
        ("kind", All),
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("resourceVersion", All),
                ("annotations", Entries(|name| name == GATEWAYS_ANNOTATION)),
            ]),
        ),
        ("spec", All),
    ]);
}

impl Decode for ServiceRegistration {
    const KIND: &'static str = "ServiceRegistration";
    const KEEP: Keep = Fields(&[
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("uid", All),
                ("resourceVersion", All),
                ("generation", All),
                ("annotations", Entries(ours)),
                ("ownerReferences", Each(&OWNER)),
                ("finalizers", All),
                ("creationTimestamp", Time),
                ("deletionTimestamp", Time),
            ]),
        ),
        ("spec", All),
        ("status", All),
    ]);

    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        salvage::registration(kept)
    }
}
