//! The decision about an instance and its reason. Events, conditions, status and metrics are all rendered from these
//! values, so that each decision can be read (P7).

use std::{net::IpAddr, sync::Arc};

use beatkeeper_api::InstanceState;

use super::{
    address::AddressSet,
    endpoint::{PodRef, PortSet},
    index::LeaseDecision,
    instance::InstanceName,
    monotonic_time::MonotonicTime,
};

/// Why an instance is in its state, as one word that users can search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Waiting: it is declared or has a Lease, but has never beaten.
    NeverBeat,
    /// Waiting: it has a Lease, but has not beaten since this controller started; or it is not published, and its last
    /// beat is late.
    AwaitingBeat,
    /// Waiting: its Pod has no address yet.
    NoAddressYet,
    /// Waiting: it is alive but not in the slices, because the registration may not publish.
    NotPublished,
    /// The slices do not contain what was decided, because a write failed or was refused.
    PublishFailed,
    /// Ready: its beats arrive in time.
    Beating,
    /// Ready: its last beat is more than half of its slack late.
    BeatOverdue,
    /// Ready or NotReady: it was adopted from a hand-written object and has not beaten yet.
    Adopted,
    /// NotReady: its Lease reports failing health.
    HealthFailing,
    /// NotReady: its Lease has a health value that the contract does not define.
    HealthUnknown,
    /// NotReady: its kubelet reports that the Pod is not ready.
    PodNotReady,
    /// Draining: its Lease reports that it is draining.
    HealthDraining,
    /// Draining: its Pod is being deleted.
    PodTerminating,
    /// Cordoned: a person has removed it from what is published.
    Cordoned,
    /// Expired: its ttl passed without a beat, and a live read confirmed this.
    TTLPassed,
    /// Held, or Waiting if it was not published: its ttl passed, but its Lease cannot be read.
    LeaseUnreadable,
    /// Held: its ttl passed, but no probe of the operator has come back since. The beats of the instance may be lost
    /// on the same path.
    PathUnproven,
    /// Held: its ttl passed, but almost no beats arrive in its namespace or cluster.
    PathBroken,
    /// Held: its ttl passed, but fewer ready instances than protection.minReady would be left.
    Protected,
    /// Rejected: the name of the Lease does not begin with the name of its registration.
    NameMismatch,
    /// Rejected: the Lease names no holder.
    HolderMissing,
    /// Rejected: the holder of the Lease is not the instance that the Lease's name says.
    HolderMismatch,
    /// Rejected: the registration admits no Pods, or not this Pod.
    PodNotSelected,
    /// Rejected: no Pod has this name.
    PodNotFound,
    /// Rejected: the Lease belongs to an earlier Pod with this name.
    PodReplaced,
    /// Rejected: it names no address.
    AddressMissing,
    /// Rejected: its address may not be published.
    AddressRefused,
    /// Rejected: it has no address of a family that the Service has.
    AddressFamilyMismatch,
    /// Rejected: none of its ports can be resolved to a number.
    PortUnresolved,
}

impl Reason {
    /// The reason as written in status, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverBeat => "NeverBeat",
            Self::AwaitingBeat => "AwaitingBeat",
            Self::NoAddressYet => "NoAddressYet",
            Self::NotPublished => "NotPublished",
            Self::PublishFailed => "PublishFailed",
            Self::Beating => "Beating",
            Self::BeatOverdue => "BeatOverdue",
            Self::Adopted => "Adopted",
            Self::HealthFailing => "HealthFailing",
            Self::HealthUnknown => "HealthUnknown",
            Self::PodNotReady => "PodNotReady",
            Self::HealthDraining => "HealthDraining",
            Self::PodTerminating => "PodTerminating",
            Self::Cordoned => "Cordoned",
            Self::TTLPassed => "TTLPassed",
            Self::LeaseUnreadable => "LeaseUnreadable",
            Self::PathUnproven => "PathUnproven",
            Self::PathBroken => "PathBroken",
            Self::Protected => "Protected",
            Self::NameMismatch => "NameMismatch",
            Self::HolderMissing => "HolderMissing",
            Self::HolderMismatch => "HolderMismatch",
            Self::PodNotSelected => "PodNotSelected",
            Self::PodNotFound => "PodNotFound",
            Self::PodReplaced => "PodReplaced",
            Self::AddressMissing => "AddressMissing",
            Self::AddressRefused => "AddressRefused",
            Self::AddressFamilyMismatch => "AddressFamilyMismatch",
            Self::PortUnresolved => "PortUnresolved",
        }
    }
}

/// Where an instance can be reached, and what its Pod and its Node say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its addresses, limited to the IP families of the Service.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: PortSet,
    /// The Node on which it runs.
    pub node_name: Option<String>,
    /// The zone in which it runs.
    pub zone: Option<String>,
    /// Its host name in a headless Service.
    pub hostname: Option<String>,
    /// The Pod, for an instance that runs in one.
    pub pod: Option<PodRef>,
    /// Whether its kubelet reports it as ready; always true outside the cluster.
    pub kubelet_ready: bool,
}

impl Placement {
    /// Whether one of its addresses is in `addresses`.
    pub fn is_at(&self, addresses: &AddressSet) -> bool {
        self.addresses.iter().any(|address| addresses.contains(address))
    }
}

/// The decision about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the instance, unique in its registration. If the Lease does not tell the name, it is `lease/` and the
    /// name of the Lease.
    pub instance: InstanceName,
    /// Its state.
    pub state: InstanceState,
    /// The reason for the state.
    pub reason: Reason,
    /// The reason in words, and what the user can do about it, if anything.
    pub message: String,
    /// Where the instance can be reached, as far as that is known.
    pub placement: Option<Placement>,
    /// When the last beat was seen, by the monotonic clock; `None` if there was none.
    pub last_beat: Option<MonotonicTime>,
    /// Its Lease, if it has one.
    pub lease: Option<JudgedLease>,
    /// The processes that claim its name, if there are several.
    pub rival: Option<String>,
    /// When the passing of time alone may change this verdict.
    pub requeue_at: Option<MonotonicTime>,
}

/// The Lease behind a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedLease {
    /// The decision as the index records it.
    pub decision: LeaseDecision,
    /// The evidence that is missing before the verdict is final. It is boxed because few instances are ever in doubt.
    pub suspect: Option<Box<Suspect>>,
    /// When the ttl passes. Set only while the beat is late.
    pub deadline: Option<MonotonicTime>,
}

/// A Lease that needs a live read before its instance is pruned (L2, L4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Name of the Lease.
    pub lease: Arc<str>,
    /// The live read must be sent after this moment. `None` if the doubt is not about the silence, but about whether
    /// the Lease exists.
    pub deadline: Option<MonotonicTime>,
}

impl Suspect {
    /// The suspects. Their Leases must be read before these verdicts are final.
    pub fn of(verdicts: &[Verdict]) -> Vec<Self> {
        let suspect = |verdict: &Verdict| verdict.lease.as_ref()?.suspect.as_deref().cloned();
        verdicts.iter().filter_map(suspect).collect()
    }

    /// The instances that are past their deadline, or will be if no beat arrives until then.
    pub fn expected_expiries(verdicts: &[Verdict]) -> Vec<Self> {
        let expected_expiries = |verdict: &Verdict| {
            let JudgedLease { decision, suspect, deadline } = verdict.lease.as_ref()?;
            let deadline = suspect.as_ref().map_or(*deadline, |suspect| suspect.deadline)?;
            Some(Self { lease: decision.lease.clone(), deadline: Some(deadline) })
        };
        verdicts.iter().filter_map(expected_expiries).collect()
    }
}

impl Verdict {
    /// The decision as the index records it, if there is a Lease.
    pub fn lease_decision(&self) -> Option<&LeaseDecision> {
        self.lease.as_ref().map(|lease| &lease.decision)
    }

    /// Whether one of its addresses is in `addresses`.
    pub fn is_at(&self, addresses: &AddressSet) -> bool {
        self.placement.as_ref().is_some_and(|placement| placement.is_at(addresses))
    }

    /// Whether a person should look at this state.
    pub fn is_troubled(&self) -> bool {
        if self.rival.is_some() {
            return true;
        }
        match self.state {
            InstanceState::Ready => self.reason == Reason::BeatOverdue,
            InstanceState::Draining => false,
            InstanceState::Waiting
            | InstanceState::NotReady
            | InstanceState::Cordoned
            | InstanceState::Expired
            | InstanceState::Held
            | InstanceState::Rejected => true,
        }
    }

    /// When the instance is pruned unless it beats before. Set only while its beat is late.
    pub fn deadline(&self) -> Option<MonotonicTime> {
        self.lease.as_ref().and_then(|lease| lease.deadline)
    }

    /// Whether the instance is in the Service's slices.
    pub fn is_published(&self) -> bool {
        self.state.is_published()
    }
}
