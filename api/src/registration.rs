//! The ServiceRegistration resource: what people declare.
//!
//! The types are lenient on purpose: numbers and texts that an older CRD may have let through still
//! deserialize, so that one bad object cannot blind the watch of all the others. The API server
//! checks the rules given here (CEL), and the controller's validate step checks them again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::carrier::Carrier;
use crate::ports::{InstancePort, PortSpec};
use crate::rules;
use crate::status::ServiceRegistrationStatus;

/// The API group, which is also the prefix of every label and annotation.
pub const GROUP: &str = "beatkeeper.dev";
/// The served version of the API.
pub const VERSION: &str = "v1alpha1";
/// The ttl of a registration that names none.
pub const DEFAULT_TTL: &str = "90s";
/// The interval of a registration that names none.
pub const DEFAULT_INTERVAL: &str = "30s";
/// Condition that a Pod may name in its spec.readinessGates. It is True when every registration of the Pod has
/// published the Pod; otherwise it is False and has the reason.
pub const PUBLISHED_GATE: &str = "beatkeeper.dev/published";
/// Annotation of a registration. `true`: the operator decides and reports everything, and publishes nothing. `false`:
/// as if the annotation were absent.
pub const DRY_RUN_ANNOTATION: &str = "beatkeeper.dev/dry-run";
/// Annotation of a registration: consent to take over the hand-written Endpoints and EndpointSlices of its Service.
/// `true`: all addresses in them. A list of addresses, separated by commas: exactly these. `false`: as if the
/// annotation were absent.
pub const ADOPT_ANNOTATION: &str = "beatkeeper.dev/adopt";
/// Annotation of a registration: names of instances, separated by commas, or `*` for all. The cordons of these
/// instances are lifted if no Lease has them any more.
pub const UNCORDON_ANNOTATION: &str = "beatkeeper.dev/uncordon";
/// Most ports a registration can have.
pub const PORTS_MAX: u64 = 32;
/// Most instances a registration can declare; self-registered ones are not counted.
pub const DECLARED_INSTANCES_MAX: u64 = 1000;

/// Which Service is published, which instances it may have, and how long each instance may be silent.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "beatkeeper.dev",
    version = "v1alpha1",
    kind = "ServiceRegistration",
    plural = "serviceregistrations",
    shortname = "sreg",
    category = "beatkeeper",
    namespaced,
    status = "ServiceRegistrationStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A ServiceRegistration publishes the instances that send heartbeats (beats) as the endpoints of a Service. An instance is pruned when its ttl passes without a beat.",
    selectable = ".spec.serviceName",
    validation = rules::registration_name(),
    validation = rules::service_name_is_immutable(),
    printcolumn = r#"{"name":"Ready", "type":"integer", "jsonPath":".status.ready", "description":"Instances published as ready"}"#,
    printcolumn = r#"{"name":"Expired", "type":"integer", "jsonPath":".status.expired", "description":"Instances pruned because their ttl passed without a beat"}"#,
    printcolumn = r#"{"name":"Held", "type":"integer", "jsonPath":".status.held", "description":"Instances that stay published although their ttl passed"}"#,
    printcolumn = r#"{"name":"TTL", "type":"string", "jsonPath":".spec.ttl", "description":"How long an instance may send no beat"}"#,
    printcolumn = r#"{"name":"Interval", "type":"string", "jsonPath":".spec.interval", "description":"How often an instance beats"}"#,
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].reason", "description":"Reason of the Ready condition"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Service", "type":"string", "priority":1, "jsonPath":".spec.serviceName", "description":"Name of the Service, if it is not that of the registration"}"#,
    printcolumn = r#"{"name":"Total", "type":"integer", "priority":1, "jsonPath":".status.total", "description":"Known instances in all states"}"#,
    printcolumn = r#"{"name":"Last Change", "type":"date", "priority":1, "jsonPath":".status.lastChangeTime", "description":"When an instance last changed its state"}"#,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::interval_below_ttl())]
pub struct ServiceRegistrationSpec {
    /// Name of the Service, in this namespace, whose endpoints are published. If the Service does not exist, it is
    /// created without a selector. Default: the name of the ServiceRegistration. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::service_name())]
    pub service_name: Option<String>,

    /// Time to live: how long an instance may send no beat before it is pruned. A duration as in the Gateway API
    /// (GEP-2257), such as 30s, 1500ms or 1h30m; from 1s to 24h. Default: 90s. After an edit, a shorter ttl applies
    /// to each instance from its next beat, and a longer ttl applies at once.
    #[serde(default = "default_ttl")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::ttl())]
    pub ttl: String,

    /// How often each instance beats. A duration like ttl, at least 100ms and shorter than ttl. Recommended: at most
    /// a third of ttl, so that two beats may be lost. Default: 30s.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::interval())]
    pub interval: String,

    /// The way that beats take. Lease: each beat renews the Lease of the instance, through the API server. Gateway:
    /// beats go to a gateway, which hands them to the operator without a write to the API server; the first beat of an
    /// instance, its health, draining and leaving stay writes to its Lease. Agents and programs with the SDK beat
    /// through a gateway only if they know its address (--gateway), and renew the Lease otherwise. Beats of both ways
    /// count, whatever this field says. Default: Lease.
    #[serde(default)]
    pub carrier: Carrier,

    /// The ports of the Service: 1 to 32, each with a different name.
    #[serde(default)]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[x_kube(
        validation = rules::ports_are_given(),
        validation = rules::ports_have_names(),
        validation = rules::ports_are_distinct()
    )]
    pub ports: Vec<PortSpec>,

    /// Which Pods of this namespace may be instances. Absent: no Pod may. Empty: every Pod may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::pod_selector")]
    pub pod_selector: Option<LabelSelector>,

    /// Instances outside the cluster, at most 1000. Their addresses must be in the ranges that the operator's
    /// administrator allows for this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1000),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub instances: Vec<InstanceSpec>,

    /// Which instances stay published although they are silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
}

fn default_ttl() -> String {
    DEFAULT_TTL.to_owned()
}

fn default_interval() -> String {
    DEFAULT_INTERVAL.to_owned()
}

/// An instance outside the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSpec {
    /// Name of the instance, at most 189 characters of a DNS subdomain. The name of its Lease is
    /// `<registration>.<name>`.
    #[schemars(length(max = 189))]
    #[x_kube(validation = rules::instance_name())]
    pub name: String,
    /// IP addresses of the instance: one, or one of each family.
    #[schemars(schema_with = "rules::addresses")]
    pub addresses: Vec<String>,
    /// Zone of the instance, published as the zone of its endpoint. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,
    /// The ports on which this instance listens, if they differ from those of the registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub ports: Vec<InstancePort>,
}

/// Which instances stay published although they are silent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Protection {
    /// How many ready instances must be left when silent instances are pruned: 0 to 10000; 0 switches the protection
    /// off. A deleted Lease, a deleted Pod and a cordon take effect even so. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub min_ready: i32,
}

impl ServiceRegistration {
    /// The name of the Service whose endpoints this registration publishes.
    pub fn service_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.service_name.as_deref().unwrap_or(own)
    }
}
