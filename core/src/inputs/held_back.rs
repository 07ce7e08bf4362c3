//! What must not be written at the moment, because the API server has refused it.

use std::collections::HashSet;

use crate::vocabulary::address::AddressSet;

/// What must not be tried at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// Addresses that must not be added to slices.
    pub slices: AddressSet,
    /// Addresses that must not be added to the Endpoints object.
    pub endpoints: AddressSet,
    /// Slices that must not be written.
    pub closed: HashSet<String>,
    /// Whether the Endpoints object must not be written.
    pub endpoints_closed: bool,
}

impl HeldBack {
    /// Whether everything may be tried.
    pub fn is_empty(&self) -> bool {
        let Self { slices, endpoints, closed, endpoints_closed } = self;
        slices.is_empty() && endpoints.is_empty() && closed.is_empty() && !endpoints_closed
    }
}
