//! Why nothing is adopted.

use beatkeeper_api::{registration::ADOPT_ANNOTATION, status::ADOPTED_INSTANCES_MAX};

use crate::vocabulary::address::AddressError;

/// The object because of which nothing is adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} cannot be taken over, so nothing is: {problem}")]
pub struct AdoptionRefusal {
    pub(super) object: String,
    #[source]
    pub(super) problem: AdoptionProblem,
}

/// Why an object cannot be adopted. The message names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AdoptionProblem {
    /// It is the lock of a leader election, by this annotation.
    #[error("annotation {0} says that it is the lock of a leader election")]
    Lock(&'static str),
    /// It mirrors an object that does not exist.
    #[error("it mirrors an Endpoints object that is gone; delete it")]
    OrphanedMirror,
    /// It is being deleted.
    #[error("it is being deleted; wait until it is gone")]
    BeingDeleted,
    /// Another object controls it.
    #[error(
        "metadata.ownerReferences says that {owner} controls it; switch off what makes it, and delete it or that reference"
    )]
    Controlled { owner: String },
    /// A program manages it, by this label.
    #[error(
        "label {label} says that {manager} manages it; if that is a program, switch it off and delete the object; if people do, set the label to {people}"
    )]
    Managed { label: String, manager: String, people: &'static str },
    /// It contains names or other addresses that no slice of the operator has.
    #[error(
        "its addressType is {0}, and only IP addresses are published; give the instances' addresses, and delete it"
    )]
    AddressType(String),
    /// A text is no address.
    #[error("{0:?} is no address")]
    NotAnAddress(String),
    /// It has no ports, and the registration has.
    #[error("{field} is empty, while spec.ports has {wanted}; give its ports these names")]
    NoPorts { field: String, wanted: String },
    /// The registration or the Service does not have one of its ports.
    #[error(
        "{field} has {name:?} ({protocol}), which is none of spec.ports that the Service has too ({wanted}); ports are matched by name and protocol: make them agree"
    )]
    OtherPort { field: String, name: String, protocol: String, wanted: String },
    /// A port has no number that a port can have.
    #[error("{field}: port {name:?} has no number from 1 to 65535")]
    NoPortNumber { field: String, name: String },
    /// A Pod in it cannot be read.
    #[error("Pod {pod} at {address} cannot be read: mend or delete it")]
    UnreadablePod { pod: String, address: String },
    /// A Pod in it may not join the registration.
    #[error(
        "Pod {0} in it does not match spec.podSelector of the registration; make it select what the Service selected"
    )]
    PodNotSelected(String),
    /// The user has not consented to the adoption of an address in it.
    #[error(
        "{address} is not in the list of annotation {ADOPT_ANNOTATION}; add it there, or remove it from {object}"
    )]
    NoConsent { address: String, object: String },
    /// An address in it may not be published (P5).
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The Service does not have the family of an address in it.
    #[error(
        "{address} is of family {family}, which Service {service} does not have; remove it from {object}, or give the Service that family"
    )]
    OtherFamily { address: String, family: &'static str, service: String, object: String },
    /// More instances would be adopted than a status can hold.
    #[error(
        "{0} addresses would have to be remembered until they beat, and at most {ADOPTED_INSTANCES_MAX} can be; have some of them beat first"
    )]
    TooMany(usize),
}

impl AdoptionProblem {
    /// The refusal because of this object.
    pub(super) fn with(self, object: &str) -> AdoptionRefusal {
        AdoptionRefusal { object: object.to_owned(), problem: self }
    }
}
