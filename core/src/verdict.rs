//! What is decided about an instance, and why: events, conditions, status and metrics are all
//! rendered from these values.

use std::{net::IpAddr, sync::Arc};

use beatkeeper_api::InstanceState;

use super::{
    address::AddressSet,
    endpoint::{PodRef, PortSet},
    index::Settled,
    instance::InstanceName,
    moment::Moment,
};

/// Why an instance is in its state: one word that people can search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Waiting: it is declared, or has a Lease, but never beat.
    NeverBeat,
    /// Waiting: it has a Lease, but has not beaten since this controller started, or not for its ttl
    /// while it was out.
    AwaitingBeat,
    /// Waiting: its Pod has no address yet.
    NoAddressYet,
    /// Waiting: it lives, but is not in the slices, since the registration may not publish.
    NotPublished,
    /// What was decided is not what is in the slices, since a write failed or was refused.
    PublishFailed,
    /// Ready: its beats arrive in time.
    Beating,
    /// Ready: its last beat is more than half of its slack late.
    BeatOverdue,
    /// Ready, or NotReady: it was taken over from a hand-written object and has not beaten yet.
    Adopted,
    /// NotReady: it says so itself.
    HealthFailing,
    /// NotReady: what it says of its health is not in the contract.
    HealthUnknown,
    /// NotReady: its kubelet says so.
    PodNotReady,
    /// Draining: it says so itself.
    HealthDraining,
    /// Draining: its Pod is being deleted.
    PodTerminating,
    /// Cordoned: an operator took it out.
    Cordoned,
    /// Expired: its ttl passed without a beat, and a live read confirmed it.
    TTLPassed,
    /// Held, or Waiting where it was not published: its ttl passed, but its Lease cannot be read.
    LeaseUnreadable,
    /// Held: its ttl passed, but no probe of the operator's has come back since, so its beats might
    /// not either.
    PathUnproven,
    /// Held: its ttl passed, but next to no beats arrive where it is.
    PathBroken,
    /// Held: its ttl passed, but fewer than protection.minReady would be left.
    Protected,
    /// Rejected: the Lease's name does not begin with its registration.
    NameMismatch,
    /// Rejected: the Lease names no holder.
    HolderMissing,
    /// Rejected: the Lease's holder is not the instance its name tells.
    HolderMismatch,
    /// Rejected: the registration admits no Pods, or not this one.
    PodNotSelected,
    /// Rejected: there is no Pod of that name.
    PodNotFound,
    /// Rejected: the Lease belongs to an earlier Pod of that name.
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

/// Where an instance can be reached, and what its surroundings say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its addresses, of the Service's families only.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: PortSet,
    /// The Node it runs on.
    pub node_name: Option<String>,
    /// The zone it runs in.
    pub zone: Option<String>,
    /// Its host name in the headless Service.
    pub hostname: Option<String>,
    /// The Pod, for an instance that runs in one.
    pub pod: Option<PodRef>,
    /// Whether its kubelet says that it can serve; always so outside the cluster.
    pub kubelet_ready: bool,
}

impl Placement {
    /// Whether one of its addresses is among these.
    pub fn is_at(&self, addresses: &AddressSet) -> bool {
        self.addresses.iter().any(|address| addresses.contains(address))
    }
}

/// The decision about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the instance, unique in its registration; `lease/` and the Lease's name when that
    /// does not tell.
    pub instance: InstanceName,
    /// Its state.
    pub state: InstanceState,
    /// Why.
    pub reason: Reason,
    /// Why in words, and what to do where something can be done.
    pub message: String,
    /// Where it can be reached, as far as that is known.
    pub placement: Option<Placement>,
    /// When it was last seen to beat, by the monotonic clock; none if it never was.
    pub last_beat: Option<Moment>,
    /// Its Lease, when it has one.
    pub lease: Option<Judged>,
    /// Which processes claim its name, where there are several.
    pub rival: Option<String>,
    /// When time alone may change this verdict.
    pub look_again: Option<Moment>,
}

/// The Lease behind a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What the index is told of the decision.
    pub settled: Settled,
    /// What evidence is missing before the verdict can stand. Of thousands few are in doubt.
    pub suspect: Option<Box<Suspect>>,
    /// When its ttl passes, while its beat is late.
    pub deadline: Option<Moment>,
}

/// A Lease that must be read live before anything is pruned for it (L2, L4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Name of the Lease.
    pub lease: Arc<str>,
    /// The read must be sent after this moment. None where it is not the silence that is in doubt,
    /// but whether the Lease is there.
    pub deadline: Option<Moment>,
}

impl Suspect {
    /// All whose Leases must be read before these verdicts can stand.
    pub fn of(verdicts: &[Verdict]) -> Vec<Self> {
        let suspect = |verdict: &Verdict| verdict.lease.as_ref()?.suspect.as_deref().cloned();
        verdicts.iter().filter_map(suspect).collect()
    }

    /// Whoever is past his deadline, or will be if nothing is heard of him until then.
    pub fn foreseen(verdicts: &[Verdict]) -> Vec<Self> {
        let foreseen = |verdict: &Verdict| {
            let Judged { settled, suspect, deadline } = verdict.lease.as_ref()?;
            let deadline = suspect.as_ref().map_or(*deadline, |suspect| suspect.deadline)?;
            Some(Self { lease: settled.lease.clone(), deadline: Some(deadline) })
        };
        verdicts.iter().filter_map(foreseen).collect()
    }
}

impl Verdict {
    /// What the index is told of it, where there is a Lease.
    pub fn settled(&self) -> Option<&Settled> {
        self.lease.as_ref().map(|lease| &lease.settled)
    }

    /// Whether one of its addresses is among these.
    pub fn is_at(&self, addresses: &AddressSet) -> bool {
        self.placement.as_ref().is_some_and(|placement| placement.is_at(addresses))
    }

    /// Whether this state is one a person should look at.
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

    /// When the instance is pruned for silence if it does not beat until then, while its beat is late.
    pub fn deadline(&self) -> Option<Moment> {
        self.lease.as_ref().and_then(|lease| lease.deadline)
    }

    /// Whether the instance is in the Service's slices.
    pub fn is_published(&self) -> bool {
        self.state.is_published()
    }
}
