//! Whether the Endpoints object still says what was decided, told from the addresses that may have changed.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{EndpointSubset, Endpoints},
    discovery::v1::{Endpoint as Published, EndpointSlice},
};

use crate::{
    plan::{
        build::PlanPremise,
        listing::{self, Line, Listed, lines_of},
        target::{EndpointsMode, MAX_ENDPOINTS_ADDRESSES},
    },
    vocabulary::endpoint::{Endpoint, Family},
};

/// An Endpoints object that says what was decided.
#[derive(Debug)]
pub(super) struct KeptListing {
    object: Option<Arc<Endpoints>>,
    /// Whether it has no room for some endpoints.
    is_full: bool,
    /// How many addresses it has no room for, at least.
    left_out: usize,
    /// The addresses that may have changed since. Each of them may be one that was left out.
    changed: BTreeSet<IpAddr>,
}

impl KeptListing {
    /// Keeps the object as it is while everything that was decided is in these slices.
    pub fn new(
        premise: &PlanPremise,
        slices: &[Arc<EndpointSlice>],
        object: Option<&Arc<Endpoints>>,
    ) -> Self {
        let primary = premise.service.families.first().map(|family| family.as_str());
        // What a slice holds that is being deleted is in another slice, too.
        let stays = |slice: &&Arc<EndpointSlice>| slice.metadata.deletion_timestamp.is_none();
        let of_family = |slice: &&Arc<EndpointSlice>| Some(&*slice.address_type) == primary;
        let slices = slices.iter().filter(stays).filter(of_family);
        let listed: Vec<&Published> =
            slices.flat_map(|slice| &slice.endpoints).filter(|it| may_be_listed(it)).collect();
        let addresses: HashSet<&String> = listed.iter().flat_map(|it| &it.addresses).collect();
        Self {
            object: object.cloned(),
            is_full: listed.len() > MAX_ENDPOINTS_ADDRESSES,
            left_out: addresses.len().saturating_sub(MAX_ENDPOINTS_ADDRESSES),
            changed: BTreeSet::new(),
        }
    }

    /// Whether the object says what is wanted at these addresses. If it is not known, the answer is no.
    pub fn agrees(
        &mut self,
        premise: &PlanPremise,
        object: Option<&Arc<Endpoints>>,
        wanted: &[Endpoint],
        addresses: &BTreeSet<IpAddr>,
    ) -> bool {
        if premise.endpoints_object == EndpointsMode::LeaveAlone {
            return true;
        }
        if object.map(Arc::as_ptr) != self.object.as_ref().map(Arc::as_ptr) {
            return false;
        }
        if premise.endpoints_object == EndpointsMode::Off {
            return object.is_none();
        }
        self.changed.extend(addresses);
        // The object may have room for all now, and its annotation would have to go.
        if self.is_full && self.changed.len() >= self.left_out {
            return false;
        }
        let subsets = object.and_then(|object| object.subsets.as_deref()).unwrap_or_default();
        let listed = listed_at(subsets, addresses);
        // What has no room changes nothing. What is listed stays, even if it turns not ready.
        let known: HashSet<&str> = listed.iter().map(|line| line.ip).collect();
        let wanted = wanted_at(premise, wanted, addresses);
        let has_room = |(endpoint, _): &Listed<'_>| known.contains(&*endpoint.address.to_string());
        let wanted: Vec<Listed<'_>> =
            wanted.into_iter().filter(|it| !self.is_full || has_room(it)).collect();
        let subsets = listing::subsets(&wanted);
        lines_of(&subsets, |_| true) == listed
    }
}

/// Whether the endpoint of a slice belongs into the Endpoints object, as decided in endpoint_conflicts.rs.
fn may_be_listed(endpoint: &Published) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let is = |condition: Option<bool>, otherwise| condition.unwrap_or(otherwise);
    is(conditions.and_then(|it| it.ready), true)
        || !is(conditions.and_then(|it| it.terminating), false)
}

fn listed_at<'a>(subsets: &'a [EndpointSubset], addresses: &BTreeSet<IpAddr>) -> Vec<Line<'a>> {
    let texts: HashSet<String> = addresses.iter().map(IpAddr::to_string).collect();
    lines_of(subsets, |address| texts.contains(address))
}

fn wanted_at<'a>(
    premise: &PlanPremise,
    wanted: &'a [Endpoint],
    addresses: &BTreeSet<IpAddr>,
) -> Vec<Listed<'a>> {
    let primary = premise.service.families.first().copied();
    let of_family = wanted.iter().filter(|it| Some(Family::of(it.address)) == primary);
    let open = of_family.filter(|endpoint| addresses.contains(&endpoint.address));
    let mut wanted: Vec<Listed<'_>> =
        open.filter_map(|endpoint| Some((endpoint, endpoint.in_endpoints?))).collect();
    wanted.sort_by(|(a, _), (b, _)| (&a.ports, a.address).cmp(&(&b.ports, b.address)));
    wanted
}
