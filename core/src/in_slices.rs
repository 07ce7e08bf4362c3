//! What our slices hold, as far as it is told.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::address::AddressSet;

/// The addresses in our slices, and which of them are ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InSlices {
    all: AddressSet,
    /// Those that no slice gives as ready; of thousands few.
    not_ready: AddressSet,
}

impl InSlices {
    /// What these slices hold; `all` are their addresses, which are known already.
    pub fn of(slices: &[Arc<EndpointSlice>], all: AddressSet) -> Self {
        let is_ready = |endpoint: &Endpoint| {
            // An unknown state is to be taken for ready, as the API says.
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
            // One that moves is in two slices for a moment.
            for address in addresses(true) {
                not_ready.remove(&address);
            }
        }
        Self { all, not_ready }
    }

    /// As if all of these were ready.
    pub fn as_ready(all: AddressSet) -> Self {
        Self { all, not_ready: AddressSet::default() }
    }

    /// The addresses.
    pub fn all(&self) -> &AddressSet {
        &self.all
    }

    /// Whether an address is there.
    pub fn holds(&self, address: &IpAddr) -> bool {
        self.all.contains(address)
    }

    /// Whether an address is there as ready.
    pub fn is_ready(&self, address: &IpAddr) -> bool {
        self.holds(address) && !self.not_ready.contains(address)
    }
}
