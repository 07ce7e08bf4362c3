//! Why an instance has no placement.

use std::net::IpAddr;

use beatkeeper_api::{InstanceState, heartbeat::ADDRESSES_ANNOTATION};

use crate::vocabulary::{
    address::AddressError,
    endpoint::{Family, Protocol},
    reason::Reason,
};

/// Why an instance cannot be published anywhere. The message says who can correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unplaced {
    /// Its Pod does not exist.
    #[error("there is no Pod {pod} in namespace {namespace}")]
    NoPod { pod: String, namespace: String },
    /// Its Lease names an earlier Pod of the same name.
    #[error(
        "its Lease belongs to an earlier Pod {pod} (uid {uid}); delete the Lease, so that the present Pod can create its own"
    )]
    PodReplaced { pod: String, uid: String },
    /// Its Pod may not join.
    #[error(transparent)]
    NotSelected(#[from] NotSelected),
    /// One of its addresses may not be published (P5).
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its Pod has no address yet.
    #[error("Pod {pod} has no address yet")]
    NoAddressYet { pod: String },
    /// It is an outside instance without an address.
    #[error(
        "it names no address: declare it in spec.instances, or set annotation {ADDRESSES_ANNOTATION} on its Lease; if it runs in a Pod, its Lease has lost its owner reference: delete the Lease"
    )]
    NoAddress,
    /// None of its addresses is of a family of the Service.
    #[error(
        "its addresses ({}) are of no family that the Service has ({})",
        list(.addresses.iter().map(IpAddr::to_string)),
        list(.families.iter().map(|family| family.as_str().to_owned()))
    )]
    OtherFamily { addresses: Vec<IpAddr>, families: Vec<Family> },
    /// None of the ports of the spec has a number for it.
    #[error(transparent)]
    Port(#[from] PortUnresolved),
}

/// Why a Pod may not join a registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSelected {
    #[error(
        "spec.podSelector of {registration} cannot be read, so Pod {pod} may not join; correct it"
    )]
    SelectorUnreadable { registration: String, pod: String },
    #[error("spec.podSelector of {registration} is absent, so no Pod may join; Pod {pod} wants to")]
    NoSelector { registration: String, pod: String },
    #[error("the labels of Pod {pod} do not match spec.podSelector of {registration}")]
    OtherLabels { registration: String, pod: String },
}

/// Why a port of the spec has no number for an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortUnresolved {
    /// No container of the Pod has a port with this name.
    #[error("Pod {pod} has no {} port named {target}", .protocol.as_str())]
    NotInPod { pod: String, protocol: Protocol, target: String },
    /// The instance declares a number that no port can have.
    #[error("port {port:?} of instance {instance} is {number}; it must be from 1 to 65535")]
    NotANumber { port: String, instance: String, number: i32 },
    /// Only a Pod has names for ports.
    #[error(
        "port {port:?} has targetPort {target:?}, a name that only Pods can resolve; declare the instance with a number for that port"
    )]
    NeedsPod { port: String, target: String },
    /// The spec has none of the ports with which the instance was adopted.
    #[error("it was taken over with the ports {0:?}, of which spec.ports has none any more")]
    NoneAdopted(Vec<String>),
}

impl Unplaced {
    /// The state of an instance without a placement.
    pub(crate) fn state(&self) -> InstanceState {
        match self {
            Self::NoAddressYet { .. } => InstanceState::Waiting,
            _ => InstanceState::Rejected,
        }
    }

    /// The reason in its verdict.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoPod { .. } => Reason::PodNotFound,
            Self::PodReplaced { .. } => Reason::PodReplaced,
            Self::NotSelected(_) => Reason::PodNotSelected,
            Self::Address(_) => Reason::AddressRefused,
            Self::NoAddressYet { .. } => Reason::NoAddressYet,
            Self::NoAddress => Reason::AddressMissing,
            Self::OtherFamily { .. } => Reason::AddressFamilyMismatch,
            Self::Port(_) => Reason::PortUnresolved,
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
