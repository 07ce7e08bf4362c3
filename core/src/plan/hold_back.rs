//! Leaves out of a plan what the API server has refused.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::write::Write;
use crate::{
    inputs::{Inputs, held_back::HeldBack},
    vocabulary::{address::AddressSet, endpoint::Endpoint},
};

/// Removes the addresses that are held back from those to publish. Addresses that are already published stay.
pub(crate) fn hold_back(endpoints: &mut Vec<Endpoint>, inputs: &Inputs) {
    let HeldBack { slices, endpoints: unlisted, .. } = &inputs.held_back;
    let published = &inputs.snapshot.published;
    endpoints.retain(|it| !slices.contains(&it.address) || published.contains(&it.address));
    if unlisted.is_empty() {
        return;
    }
    let listed = listed(inputs.snapshot.endpoints.as_deref());
    for endpoint in endpoints {
        if unlisted.contains(&endpoint.address) && !listed.contains(&endpoint.address) {
            endpoint.in_endpoints = None;
        }
    }
}

/// Removes from a write of the Endpoints object the addresses that it would add and that are in no slice. The API
/// server may have refused them in a slice. The Endpoints must not contain an address that a slice must not contain,
/// not even until the refusal has been searched for. The write still removes and changes what it should. Returns
/// `None` if nothing remains to be written.
pub fn without_unpublished(
    mut write: Write,
    before: Option<&core::Endpoints>,
    published: &AddressSet,
) -> Option<Write> {
    let (object, rest) = match &mut write {
        Write::CreateEndpoints(object) => (object, true),
        Write::UpdateEndpoints(object, tally) => {
            let rest = tally.removed > 0 || tally.changed > 0;
            tally.added = 0;
            (object, rest)
        }
        Write::CreateSlice(_)
        | Write::UpdateSlice(..)
        | Write::DeleteSlice { .. }
        | Write::DeleteEndpoints { .. } => return Some(write),
    };
    let before = listed(before);
    let mut added = 0;
    retain(object, |text| {
        let Ok(address) = text.parse::<IpAddr>() else { return true };
        let is_listed = before.contains(&address);
        added += usize::from(!is_listed && published.contains(&address));
        is_listed || published.contains(&address)
    });
    if let Write::UpdateEndpoints(_, tally) = &mut write {
        tally.added = added;
    }
    (rest || added > 0).then_some(write)
}

/// Keeps only some of the addresses of an Endpoints object.
pub(super) fn retain(object: &mut core::Endpoints, mut stays: impl FnMut(&str) -> bool) {
    for subset in object.subsets.iter_mut().flatten() {
        let both = [&mut subset.addresses, &mut subset.not_ready_addresses];
        for addresses in both.into_iter().flatten() {
            addresses.retain(|address| stays(&address.ip));
        }
    }
    if let Some(subsets) = &mut object.subsets {
        subsets.retain(|subset| ips(subset).next().is_some());
    }
}

pub(super) fn listed(object: Option<&core::Endpoints>) -> AddressSet {
    let subsets = object.into_iter().flat_map(|object| object.subsets.iter().flatten());
    subsets.flat_map(ips).filter_map(|text| text.parse().ok()).collect()
}

fn ips(subset: &core::EndpointSubset) -> impl Iterator<Item = &str> {
    let both = [&subset.addresses, &subset.not_ready_addresses];
    both.into_iter().flatten().flatten().map(|address| address.ip.as_str())
}
