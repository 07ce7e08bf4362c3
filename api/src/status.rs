//! What the operator writes back: counts, conditions and the instances with problems.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::ports::InstancePort;

/// At most this many addresses of hand-written objects can be taken over.
pub const ADOPTED_INSTANCES_MAX: usize = 1000;
/// At most this many cordons are remembered of a registration.
pub const CORDONED_INSTANCES_MAX: usize = 200;
/// At most this many addresses are remembered of a cordoned instance.
pub const CORDONED_ADDRESSES_MAX: usize = 16;
/// At most this many instances are listed in a status, the troubled ones first.
pub const LISTED_INSTANCES_MAX: usize = 100;

/// What the operator last published, and why. It is written when something visible has changed, never for a beat
/// alone. Until an operator has looked at the registration, there is only the condition Ready, which is Unknown with
/// the reason Pending.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRegistrationStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: everything is published as decided, or would be if the registration were not in a dry run. Available: at
    /// least one instance is ready; Unknown in a dry run. PruningHeld, NameConflict, Reconciling and Stalled (as in
    /// kstatus) are present only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of instances that are published as ready.
    #[serde(default)]
    pub ready: i32,
    /// Number of instances that were pruned because their ttl passed without a beat.
    #[serde(default)]
    pub expired: i32,
    /// Number of instances that stay published although their ttl has passed, because evidence of their death is
    /// missing or because they are protected.
    #[serde(default)]
    pub held: i32,
    /// Number of known instances in all states.
    #[serde(default)]
    pub total: i32,
    /// A longer ttl that the registration had before. It still applies to instances that do not beat at the present
    /// interval yet, and is present only while there are such instances. This is the operator's memory: do not edit
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub former_ttl: Option<String>,
    /// When an instance last changed its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
    /// The instances, those with problems first. At most 100 are listed, but the counts include all. One writer
    /// replaces the whole list.
    // An atomic list: as a map, with an owner noted for each field of each instance, it takes the API
    // server twice as long to write, and is as large again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub instances: Vec<InstanceStatus>,
    /// Instances that were taken over and have not beaten yet: from hand-written objects, by the annotation
    /// beatkeeper.dev/adopt, or from what the cluster's own controllers left when the Service's selector was removed.
    /// Each stays published until it beats for the first time, is removed from the annotation, or its Pod ends. This
    /// is the operator's memory: do not edit it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1000),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub adopted: Vec<AdoptedInstance>,
    /// Instances that a person has removed by the annotation beatkeeper.dev/cordoned on their Leases. A cordon
    /// applies to the name and to the addresses of an instance until that annotation is removed, even if the Lease is
    /// deleted or created again. This is the operator's memory: do not edit it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub cordoned: Vec<CordonedInstance>,
}

impl ServiceRegistrationStatus {
    /// The status of a registration that no operator has looked at yet: the default in the CRD. Without it, tools that
    /// wait for objects take an object without conditions for one that is finished.
    pub fn pending() -> Self {
        let ready = Condition {
            type_: condition::READY.to_owned(),
            status: "Unknown".to_owned(),
            reason: condition::PENDING.to_owned(),
            message: "waiting for the operator".to_owned(),
            observed_generation: None,
            // A default is the same for all objects, so it cannot have the time of one.
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        Self { conditions: vec![ready], ..Self::default() }
    }

    /// Whether an operator has written this status. If not, it is the default in the CRD.
    pub fn is_reported(&self) -> bool {
        let is_default =
            |it: &Condition| it.type_ == condition::READY && it.reason == condition::PENDING;
        !self.conditions.iter().any(is_default)
    }
}

/// An instance that a person has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CordonedInstance {
    /// Name of the instance.
    pub name: String,
    /// The reason, which is the text of the annotation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its addresses, if it is outside the cluster. No other instance is published at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
    /// Its Pod, if it runs in one. No other instance in a Pod of this name is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The uid of the Lease that last had the annotation. The cordon is lifted when the annotation is removed from
    /// this Lease.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lease_uid: String,
    /// When the operator first saw the cordon, by its own wall clock.
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
    /// The object from which it was taken over, such as Endpoints greeter.
    pub from: String,
    /// When it was taken over, by the operator's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The ports with which it was published, by the names of the registration's ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub ports: Vec<InstancePort>,
    /// Whether it was published as not ready. It still is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_ready: bool,
    /// The Node that the object named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The zone that the object named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its host name in a headless Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its Pod, as name/uid, if the cluster's own controller had published it for a selector of the Service. It
    /// leaves when this Pod ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Beats that Leases with this address already had when it was taken over: the uid and the renewTime of each
    /// Lease. Any other beat is its first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_beats: Vec<String>,
}

/// One instance as the operator sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Name of the instance: the name of its Pod, the name in the spec, or the name that it chose.
    pub name: String,
    /// Waiting, Ready, NotReady, Draining, Cordoned, Expired, Held or Rejected.
    pub state: String,
    /// The known addresses of the instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// When the instance entered this state, by the operator's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When the operator last saw a beat, by its own wall clock. Updated only when the status is written for another
    /// reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_beat: Option<Time>,
    /// The reason for this state, as one word that can be searched for.
    pub reason: String,
    /// Why it is in this state, and what to do if something can be done.
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
    /// Removed by a person. Not published.
    Cordoned,
    /// Its ttl passed without a beat. Not published.
    Expired,
    /// Its ttl passed, but evidence of its death is missing. Published as it was.
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
    /// True if everything is published as decided. In a dry run: if it would be.
    pub const READY: &str = "Ready";
    /// The reason of Ready until an operator has looked at the registration.
    pub const PENDING: &str = "Pending";
    /// True if at least one instance is published as ready. Unknown in a dry run.
    pub const AVAILABLE: &str = "Available";
    /// Present while instances stay published although their ttl has passed.
    pub const PRUNING_HELD: &str = "PruningHeld";
    /// Present while several processes claim one instance name.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// Present while a decision is not yet written (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Present while a person has to do something (kstatus).
    pub const STALLED: &str = "Stalled";
}
