//! What a decision has seen of the objects around its registration, to find out what has changed since.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::cluster_cache::pod_changes::PodsSeen;

/// What a decision has seen.
#[derive(Debug, Clone, Default)]
pub struct SeenObjects {
    /// The operator's slices.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The changes of Pods up to which it has seen them.
    pub pods: PodsSeen,
}

impl SeenObjects {
    /// The addresses that these slices contain and the seen ones did not, or the other way round. Slices that did not
    /// change are not looked into.
    pub fn moved(&self, slices: &[Arc<EndpointSlice>]) -> Vec<IpAddr> {
        let [before, after] =
            [&*self.slices, slices].map(|all| all.iter().map(Arc::as_ptr).collect::<HashSet<_>>());
        let mut counts: HashMap<&str, i64> = HashMap::new();
        for (all, others, count) in [(&*self.slices, &after, -1), (slices, &before, 1)] {
            let changed = all.iter().filter(|slice| !others.contains(&Arc::as_ptr(slice)));
            let addresses = changed.flat_map(|it| &it.endpoints).flat_map(|it| &it.addresses);
            addresses.for_each(|address| *counts.entry(address).or_default() += count);
        }
        let moved = counts.into_iter().filter(|(_, count)| *count != 0);
        moved.filter_map(|(address, _)| address.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::Endpoint;

    use super::*;

    fn slice(addresses: &[&str]) -> Arc<EndpointSlice> {
        let endpoint = |address: &&str| Endpoint {
            addresses: vec![(*address).to_owned()],
            ..Endpoint::default()
        };
        let endpoints = addresses.iter().map(endpoint).collect();
        Arc::new(EndpointSlice { endpoints, ..EndpointSlice::default() })
    }

    #[test]
    fn an_address_moves_if_it_appears_or_leaves_and_not_if_it_changes_its_slice() {
        let (same, first) =
            (slice(&["192.0.2.1", "192.0.2.2"]), slice(&["192.0.2.3", "192.0.2.4"]));
        let seen = SeenObjects { slices: vec![same.clone(), first], ..SeenObjects::default() };
        assert_eq!(seen.moved(&seen.slices), Vec::<IpAddr>::new());
        let moved = |others: &[&[&str]]| {
            let others = others.iter().map(|addresses| slice(addresses));
            let slices: Vec<_> = others.chain([same.clone()]).collect();
            let mut moved: Vec<String> =
                seen.moved(&slices).iter().map(IpAddr::to_string).collect();
            moved.sort();
            moved
        };
        assert_eq!(moved(&[&["192.0.2.4"], &["192.0.2.3"]]), Vec::<String>::new());
        assert_eq!(moved(&[&["192.0.2.4", "192.0.2.5"]]), ["192.0.2.3", "192.0.2.5"]);
        assert_eq!(moved(&[]), ["192.0.2.3", "192.0.2.4"]);
        assert_eq!(seen.moved(&[]).len(), 4);
    }
}
