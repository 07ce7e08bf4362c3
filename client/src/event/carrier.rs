//! The events about the way that beats take.

use std::fmt;

use beatkeeper_api::Carrier;

use crate::{failure::Failure, gateway::GatewayNames};

/// Beats take another way, or cannot take the one that the registration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarrierEvent {
    /// A first beat was accepted by this way, and the next ones take it.
    Changed(Carrier),
    /// The registration asks for a gateway, and this process knows none. It renews the Lease on.
    NoGateway {
        /// `namespace/registration`
        registration: String,
        /// What the user of this process calls the settings that are missing.
        names: GatewayNames,
    },
    /// No gateway has accepted a beat of this instance yet. Its Lease is renewed until one does.
    NotYet(Failure),
    /// A gateway refuses this instance, which it had accepted before. Its Lease is read and claimed anew.
    Refused(Failure),
}

impl fmt::Display for CarrierEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(Carrier::Gateway) => f.write_str("beating through a gateway now"),
            Self::Changed(Carrier::Lease) => f.write_str("beating by renewing the Lease now"),
            Self::NoGateway { registration, names } => write!(
                f,
                "the registration {registration} says carrier: Gateway, and no gateway is configured here: beating by \
                 renewing the Lease; set {} and {}",
                names.gateway, names.ca_file,
            ),
            Self::NotYet(failure) => {
                write!(f, "{failure}; renewing the Lease until a gateway accepts one")
            }
            Self::Refused(failure) => write!(f, "{failure}; claiming the Lease again"),
        }
    }
}
