//! What the controller writes back: counts, conditions and the troubled instances.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::registration::InstancePort;

/// At most this many addresses of hand-written objects can be taken over.
pub const ADOPTED_INSTANCES_MAX: usize = 1000;
/// At most this many cordons are remembered of a registration.
pub const CORDONED_INSTANCES_MAX: usize = 200;
/// At most this many addresses are remembered of a cordoned instance.
pub const CORDONED_ADDRESSES_MAX: usize = 16;
/// At most this many instances are listed in a status, the troubled ones first.
pub const LISTED_INSTANCES_MAX: usize = 100;

/// What the controller last published, and why. Written when something a reader would see has
/// changed, never for a beat alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRegistrationStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: published as decided. Available: at least one instance is ready. PruningHeld,
    /// NameConflict, Reconciling and Stalled (as in kstatus) are present only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of instances that are published as ready.
    #[serde(default)]
    pub ready: i32,
    /// Number of instances that were pruned because their ttl passed without a beat.
    #[serde(default)]
    pub expired: i32,
    /// Number of instances whose ttl has passed, but which stay published because the evidence that
    /// they are dead is missing, or because they are protected.
    #[serde(default)]
    pub held: i32,
    /// Number of instances known in any state.
    #[serde(default)]
    pub total: i32,
    /// A longer ttl that the registration had before, by which an instance is still measured because
    /// its beats do not follow the present pace yet. Present only while there is one. This is the
    /// controller's memory of it: do not edit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub former_ttl: Option<String>,
    /// When an instance last changed its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
    /// The instances, the troubled first; at most 100 are listed, while the counts speak of all. The
    /// list has one writer, who writes it whole.
    // An atomic list: as a map, with an owner noted for each field of each instance, it takes the API
    // server twice as long to write, and is as large again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub instances: Vec<InstanceStatus>,
    /// Addresses taken over from hand-written objects, by annotation beatkeeper.dev/adopt, or from what
    /// the cluster's own controllers left when the Service's selector was removed, that have not beaten
    /// yet. They stay published until they beat for the first time, are removed from the annotation, or
    /// their Pod ends. This is the controller's memory of them: do not edit it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1000),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub adopted: Vec<AdoptedInstance>,
    /// Instances that an operator took out, by annotation beatkeeper.dev/cordoned on their Leases. A cordon holds by
    /// name and by address until that annotation is removed, also when the Lease is deleted or made anew. This is the
    /// controller's memory of them: do not edit it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub cordoned: Vec<CordonedInstance>,
}

/// An instance that an operator took out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CordonedInstance {
    /// Name of the instance.
    pub name: String,
    /// Why, as the annotation says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its addresses, where it is outside the cluster: no other instance is published there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
    /// Its Pod, where it runs in one: no other instance in a Pod of that name is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The uid of the Lease that carried the annotation last. The cordon is lifted when the annotation is removed from
    /// this Lease.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lease_uid: String,
    /// When the cordon was first seen, by the controller's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// An address that was taken over from a hand-written object and has not beaten yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdoptedInstance {
    /// Name of the instance in status.instances: `adopted/` and its address.
    pub name: String,
    /// The address.
    pub address: String,
    /// The object it was taken over from, such as Endpoints greeter.
    pub from: String,
    /// When it was taken over, by the controller's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The ports it was published with, by the names that the registration gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub ports: Vec<InstancePort>,
    /// Whether it was published as not ready, and so still is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_ready: bool,
    /// The Node it was said to be on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The zone it was said to be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its host name in a headless Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The Pod that it is, as name/uid, where the cluster's own controller had published it for a
    /// selector of the Service. It leaves when that Pod ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Heartbeats that were there for this address when it was taken over, and were old then: a
    /// Lease's uid and renewTime. Any other one is its first beat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_beats: Vec<String>,
}

/// One instance as the controller sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Name of the instance: of its Pod, as declared in the spec, or as it named itself.
    pub name: String,
    /// Waiting, Ready, NotReady, Draining, Cordoned, Expired, Held or Rejected.
    pub state: String,
    /// The addresses of the instance, as far as they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// When the instance entered this state, by the controller's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When the controller last saw a beat arrive, by its own wall clock. Brought up to date when
    /// the status is written for another reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_beat: Option<Time>,
    /// Why it is in this state: one word, made to be searched for.
    pub reason: String,
    /// Why it is in this state, and what to do where something can be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The states an instance can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceState {
    /// Known, but it has not beaten yet. Not published.
    Waiting,
    /// Beating and able to serve. Published as ready.
    Ready,
    /// Beating, but not able to serve: it says so, or its kubelet does. Published as not ready.
    NotReady,
    /// Leaving: published as serving and terminating in slices, not in Endpoints.
    Draining,
    /// Taken out by an operator. Not published.
    Cordoned,
    /// Its ttl passed without a beat. Not published.
    Expired,
    /// Its ttl passed, but the evidence that it is dead is missing. Published as it was.
    Held,
    /// Never published; the reason says what is wrong.
    Rejected,
}

impl InstanceState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Ready,
        Self::NotReady,
        Self::Draining,
        Self::Cordoned,
        Self::Expired,
        Self::Held,
        Self::Rejected,
    ];

    /// Whether an instance in this state is in the Service's slices.
    pub fn is_published(self) -> bool {
        match self {
            Self::Ready | Self::NotReady | Self::Draining | Self::Held => true,
            Self::Waiting | Self::Cordoned | Self::Expired | Self::Rejected => false,
        }
    }

    /// The state as written in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Draining => "Draining",
            Self::Cordoned => "Cordoned",
            Self::Expired => "Expired",
            Self::Held => "Held",
            Self::Rejected => "Rejected",
        }
    }
}

/// The types of condition a ServiceRegistration can have.
pub mod condition {
    /// True when what is published is what was decided.
    pub const READY: &str = "Ready";
    /// True when at least one instance is published as ready.
    pub const AVAILABLE: &str = "Available";
    /// Present while instances stay published for want of evidence.
    pub const PRUNING_HELD: &str = "PruningHeld";
    /// Present while several processes claim one instance name.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// Present while a decision could not be carried out yet (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Present while a person has to do something (kstatus).
    pub const STALLED: &str = "Stalled";
}
