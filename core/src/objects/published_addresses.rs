//! The contents of the operator's slices, as far as reports need them.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::vocabulary::address::AddressSet;

/// The addresses in the operator's slices, and which of them are ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishedAddresses {
    all: AddressSet,
    /// The addresses that are not ready in any slice; usually few.
    not_ready: AddressSet,
}

impl PublishedAddresses {
    /// The contents of these slices. `all` are their addresses, which the caller already knows.
    pub fn of(slices: &[Arc<EndpointSlice>], all: AddressSet) -> Self {
        let is_ready = |endpoint: &Endpoint| {
            // The API says that an unknown state counts as ready.
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let addresses = |ready: bool| {
            let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
            let found = endpoints.filter(move |endpoint| is_ready(endpoint) == ready);
            let texts = found.flat_map(|endpoint| &endpoint.addresses);
            texts.filter_map(|text| text.parse::<IpAddr>().ok())
        };
        let mut not_ready: AddressSet = addresses(false).collect();
        if !not_ready.is_empty() {
            // An address that moves between slices is in both for a moment.
            for address in addresses(true) {
                not_ready.remove(&address);
            }
        }
        Self { all, not_ready }
    }

    /// The same addresses, all as ready.
    pub fn as_ready(all: AddressSet) -> Self {
        Self { all, not_ready: AddressSet::default() }
    }

    /// The addresses.
    pub fn all(&self) -> &AddressSet {
        &self.all
    }

    /// Whether an address is in the slices.
    pub fn holds(&self, address: &IpAddr) -> bool {
        self.all.contains(address)
    }

    /// Whether an address is in the slices and ready.
    pub fn is_ready(&self, address: &IpAddr) -> bool {
        self.holds(address) && !self.not_ready.contains(address)
    }
}
