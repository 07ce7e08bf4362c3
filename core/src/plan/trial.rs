//! The search for the addresses because of which the API server refuses a write.

use std::net::IpAddr;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};

use super::{
    hold_back::{listed, retain},
    refusals::ObjectKind,
    write::Write,
};
use crate::{inputs::Inputs, vocabulary::address::AddressSet};

/// The largest number of variants of one write that are tried. Addresses that were not tried by then count as refused.
pub const TRIALS_MAX: usize = 40;

/// A write that was refused, and the addresses that it would have added.
#[derive(Debug, Clone)]
pub struct Trial {
    write: Write,
    newcomers: AddressSet,
    pods: Vec<IpAddr>,
    outside: Vec<IpAddr>,
}

impl Trial {
    /// A trial of a write that adds addresses to an object.
    pub fn of(write: &Write, inputs: &Inputs) -> Option<Self> {
        let (found, there): (Vec<(IpAddr, bool)>, AddressSet) = match write {
            Write::CreateSlice(slice) => (in_slice(slice), AddressSet::default()),
            Write::UpdateSlice(slice, _) => {
                let name = slice.metadata.name.as_ref();
                let slices = inputs.snapshot.slices.iter();
                let before = slices.filter(|it| it.metadata.name.as_ref() == name);
                let there = before.flat_map(|it| in_slice(it)).map(|(address, _)| address);
                (in_slice(slice), there.collect())
            }
            Write::CreateEndpoints(object) => (in_endpoints(object), AddressSet::default()),
            Write::UpdateEndpoints(object, _) => {
                (in_endpoints(object), listed(inputs.snapshot.endpoints.as_deref()))
            }
            Write::DeleteSlice { .. } | Write::DeleteEndpoints { .. } => return None,
        };
        let added = found.into_iter().filter(|(address, _)| !there.contains(address));
        let (pods, outside): (Vec<_>, Vec<_>) = added.partition(|(_, is_pod)| *is_pod);
        let addresses = |all: Vec<(IpAddr, bool)>| -> Vec<IpAddr> {
            all.into_iter().map(|(address, _)| address).collect()
        };
        let (pods, outside) = (addresses(pods), addresses(outside));
        let newcomers = pods.iter().chain(&outside).copied().collect();
        Some(Self { write: write.clone(), newcomers, pods, outside })
    }

    /// The kind of object that is written.
    pub fn place(&self) -> ObjectKind {
        if self.write.is_of_endpoints() { ObjectKind::Endpoints } else { ObjectKind::Slices }
    }

    /// The name of the object, if it already exists.
    pub fn existing(&self) -> Option<&str> {
        match &self.write {
            Write::UpdateSlice(slice, _) => slice.metadata.name.as_deref(),
            Write::UpdateEndpoints(object, _) => object.metadata.name.as_deref(),
            Write::CreateSlice(_)
            | Write::CreateEndpoints(_)
            | Write::DeleteSlice { .. }
            | Write::DeleteEndpoints { .. } => None,
        }
    }

    /// The same write with only some of the new addresses.
    pub fn with(&self, some: &[IpAddr]) -> Write {
        let stays = |text: &str| {
            let address = text.parse::<IpAddr>();
            address.is_ok_and(|it| !self.newcomers.contains(&it) || some.contains(&it))
        };
        let mut write = self.write.clone();
        match &mut write {
            Write::CreateSlice(slice) | Write::UpdateSlice(slice, _) => {
                slice.endpoints.retain(|endpoint| endpoint.addresses.iter().all(|it| stays(it)));
            }
            Write::CreateEndpoints(object) | Write::UpdateEndpoints(object, _) => {
                retain(object, stays);
            }
            Write::DeleteSlice { .. } | Write::DeleteEndpoints { .. } => {}
        }
        write
    }

    /// Starts a search for the addresses that caused the refusal.
    pub fn search(&self) -> Search {
        // Most policies distinguish Pods from outside instances, so these two groups are tried first.
        let groups = [self.outside.clone(), self.pods.clone()];
        let mut groups: Vec<_> = groups.into_iter().filter(|group| !group.is_empty()).collect();
        let known_bad = if groups.len() == 1 { groups.pop() } else { None };
        let mut search = Search { untried: groups, ..Search::default() };
        search.untried.reverse();
        if let Some(group) = known_bad {
            search.split(group);
        }
        search
    }
}

fn in_slice(slice: &discovery::EndpointSlice) -> Vec<(IpAddr, bool)> {
    let endpoints = slice.endpoints.iter().flat_map(|endpoint| {
        let is_pod = endpoint.target_ref.is_some();
        endpoint.addresses.iter().map(move |text| (text, is_pod))
    });
    endpoints.filter_map(|(text, is_pod)| Some((text.parse().ok()?, is_pod))).collect()
}

fn in_endpoints(object: &core::Endpoints) -> Vec<(IpAddr, bool)> {
    let subsets = object.subsets.iter().flatten();
    let both = subsets.flat_map(|it| [&it.addresses, &it.not_ready_addresses]).flatten().flatten();
    let mut all: Vec<(IpAddr, bool)> = both
        .filter_map(|address| Some((address.ip.parse().ok()?, address.target_ref.is_some())))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A bisection that finds the addresses that are refused.
#[derive(Debug, Default)]
pub struct Search {
    /// Groups of addresses that may be accepted or refused; the last group is tried next.
    untried: Vec<Vec<IpAddr>>,
    refused: Vec<IpAddr>,
    trials: usize,
}

impl Search {
    /// The addresses to try next; `None` if the search has ended.
    pub fn next_trial(&mut self) -> Option<Vec<IpAddr>> {
        if self.trials == TRIALS_MAX {
            self.refused.extend(self.untried.drain(..).flatten());
        }
        self.trials += 1;
        self.untried.pop()
    }

    /// Records whether these addresses were accepted.
    pub fn answer(&mut self, tried: Vec<IpAddr>, accepted: bool) {
        if !accepted {
            self.split(tried);
        }
    }

    /// The addresses that are refused.
    pub fn refused(self) -> Vec<IpAddr> {
        self.refused
    }

    /// Splits a group that contains a refused address.
    fn split(&mut self, mut group: Vec<IpAddr>) {
        if group.len() <= 1 {
            self.refused.append(&mut group);
            return;
        }
        let second = group.split_off(group.len() / 2);
        self.untried.extend([second, group]);
    }
}
