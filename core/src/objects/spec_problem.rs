//! What can be wrong with a spec.

use std::time::Duration;

use beatkeeper_api::{
    duration::{self, ParseDurationError},
    heartbeat::INSTANCE_NAME_MAX,
    registration::DRY_RUN_ANNOTATION,
};

use crate::{objects::consent::ConsentError, vocabulary::failure::Failure};

/// The longest name of a port, a DNS label, in characters.
pub(super) const PORT_NAME_MAX: usize = 63;

/// An error in a spec or an annotation. The message says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecProblem {
    /// Fields have another type than they must have. The text names them.
    #[error("{0}")]
    Unreadable(String),
    /// The ttl or the interval is not a duration.
    #[error("spec.{field}: {source}")]
    NotADuration {
        /// The name of the field.
        field: &'static str,
        /// The error.
        source: ParseDurationError,
    },
    /// The ttl, as it is written, is out of range.
    #[error("spec.ttl is {0}; it must be from 1s to 24h")]
    TtlOutOfRange(String),
    /// The interval does not fit the ttl.
    #[error(
        "spec.interval is {interval}; it must be above zero and shorter than ttl {}",
        duration::format(*.ttl)
    )]
    IntervalOutOfRange {
        /// The interval as it is written.
        interval: String,
        /// The ttl that applies.
        ttl: Duration,
    },
    /// The registration has no port.
    #[error("spec.ports is empty; name at least one port")]
    NoPorts,
    /// A port cannot be used.
    #[error("spec.ports[{index}].{source}")]
    Port {
        /// The index of the port, from 0.
        index: usize,
        /// The error.
        source: PortProblem,
    },
    /// The selector cannot be read.
    #[error("spec.podSelector: {0}")]
    PodSelector(#[source] Failure),
    /// The name of a declared instance has no valid length.
    #[error("spec.instances[{index}].name must have 1 to {INSTANCE_NAME_MAX} characters")]
    InstanceNameLength {
        /// The index of the instance, from 0.
        index: usize,
    },
    /// Two declared instances have one name.
    #[error("spec.instances[{index}].name {name:?} is there twice")]
    InstanceTwice {
        /// The index of the second one, from 0.
        index: usize,
        /// The name.
        name: String,
    },
    /// The annotation for a dry run has this value.
    #[error(
        "annotation {DRY_RUN_ANNOTATION} is {0:?}; write \"true\" for a dry run, or remove it to publish"
    )]
    DryRun(String),
    /// The annotation for the adoption cannot be read.
    #[error(transparent)]
    Consent(#[from] ConsentError),
}

/// An error in a port of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortProblem {
    /// A port before it has the same name.
    #[error("name {0:?} is there twice")]
    NameTwice(String),
    /// A field is no port number.
    #[error("{field} is {number}; it must be from 1 to 65535")]
    NotANumber {
        /// The name of the field.
        field: &'static str,
        /// Its value.
        number: i32,
    },
    /// A name is too long.
    #[error("{field} has {length} characters; it must be at most {PORT_NAME_MAX}")]
    TooLong {
        /// The name of the field.
        field: &'static str,
        /// The number of characters.
        length: usize,
    },
    /// The transport is unknown.
    #[error("protocol is {0:?}; it must be TCP, UDP or SCTP")]
    UnknownProtocol(String),
}
