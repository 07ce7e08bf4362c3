//! The reasons for the states of instances.

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
