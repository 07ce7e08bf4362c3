//! What is published of a registration: its Service, the slices of this Service, and its Endpoints.

use std::collections::{BTreeSet, HashMap};

use beatkeeper_core::objects::{
    marks::{
        ENDPOINTS_MANAGED_BY_LABEL, MANAGER, OVER_CAPACITY_ANNOTATION, SLICE_MANAGED_BY_LABEL,
        label,
    },
    service::ServiceView,
};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::instance::Published;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedService {
    /// Its name.
    pub name: String,
    /// Its type, such as ClusterIP.
    pub kind: String,
    /// Its cluster IPs; empty for a headless Service.
    pub cluster_ips: Vec<String>,
    /// Its ports, such as `http 80 → 8080`.
    pub ports: Vec<String>,
    /// Whether it selects Pods, so that the cluster publishes its endpoints, too.
    pub selects: bool,
    /// Whether it is an alias of a DNS name and has no endpoints.
    pub external_name: bool,
}

impl PublishedService {
    /// What is shown of a Service.
    pub fn of(service: &Service) -> Self {
        let view = ServiceView::of(service);
        let spec = service.spec.as_ref();
        let port = |port: &beatkeeper_core::objects::service::ServicePortView| {
            let name = if port.name.is_empty() { String::new() } else { format!("{} ", port.name) };
            let protocol =
                if port.protocol == "TCP" { String::new() } else { format!("/{}", port.protocol) };
            format!("{name}{}{protocol} → {}", port.port, port.target_port)
        };
        Self {
            name: service.metadata.name.clone().unwrap_or_default(),
            kind: spec
                .and_then(|spec| spec.type_.clone())
                .unwrap_or_else(|| "ClusterIP".to_owned()),
            cluster_ips: view.cluster_ips.iter().map(ToString::to_string).collect(),
            ports: view.ports.iter().map(port).collect(),
            selects: view.selects,
            external_name: view.external_name,
        }
    }
}

/// How many endpoints there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointCount {
    /// Those that may get new connections.
    pub ready: usize,
    /// Those that may not.
    pub not_ready: usize,
    /// Those that are leaving.
    pub draining: usize,
}

/// An EndpointSlice of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSlice {
    /// Its name.
    pub name: String,
    /// Its manager, if it is not Beatkeeper.
    pub foreign_manager: Option<String>,
    /// IPv4, IPv6 or FQDN.
    pub family: String,
    /// Its endpoints.
    pub count: EndpointCount,
    /// Its ports, such as `http 8080`.
    pub ports: Vec<String>,
}

impl PublishedSlice {
    /// What is shown of a slice.
    pub fn of(slice: &EndpointSlice) -> Self {
        let mut count = EndpointCount::default();
        for endpoint in &slice.endpoints {
            match how(endpoint) {
                Published::Ready => count.ready += 1,
                Published::Draining => count.draining += 1,
                Published::NotReady | Published::No => count.not_ready += 1,
            }
        }
        let port = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
            let number = port.port.map_or_else(|| "any".to_owned(), |port| port.to_string());
            match port.name.as_deref() {
                None | Some("") => number,
                Some(name) => format!("{name} {number}"),
            }
        };
        Self {
            name: slice.metadata.name.clone().unwrap_or_default(),
            foreign_manager: foreign_manager(slice),
            family: slice.address_type.clone(),
            count,
            ports: slice.ports.iter().flatten().map(port).collect(),
        }
    }
}

/// The manager of a slice, if it is not Beatkeeper.
fn foreign_manager(slice: &EndpointSlice) -> Option<String> {
    match label(&slice.metadata, SLICE_MANAGED_BY_LABEL) {
        Some(MANAGER) => None,
        Some(manager) if !manager.is_empty() => Some(manager.to_owned()),
        _ => Some("a controller that it does not name".to_owned()),
    }
}

/// How an endpoint is published. A condition that is missing counts as the API defines it.
pub(super) fn how(endpoint: &Endpoint) -> Published {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    match () {
        () if ready => Published::Ready,
        () if conditions.terminating == Some(true) && conditions.serving.unwrap_or(false) => {
            Published::Draining
        }
        () => Published::NotReady,
    }
}

/// The Endpoints object of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedEndpoints {
    /// Its name.
    pub name: String,
    /// Whether Beatkeeper manages it.
    pub ours: bool,
    /// Its addresses. None of them is draining: Endpoints cannot say so.
    pub count: EndpointCount,
    /// The ready addresses.
    pub ready: BTreeSet<String>,
    /// Whether it does not have room for all addresses.
    pub truncated: bool,
}

impl PublishedEndpoints {
    /// What is shown of an Endpoints object.
    pub fn of(endpoints: &Endpoints) -> Self {
        let subsets = || endpoints.subsets.iter().flatten();
        let ready = subsets().flat_map(|it| it.addresses.iter().flatten()).map(|it| it.ip.clone());
        let ready: BTreeSet<String> = ready.collect();
        let not_ready = subsets().flat_map(|it| it.not_ready_addresses.iter().flatten());
        let not_ready: BTreeSet<&str> = not_ready.map(|it| it.ip.as_str()).collect();
        let annotations = endpoints.metadata.annotations.as_ref();
        Self {
            name: endpoints.metadata.name.clone().unwrap_or_default(),
            ours: label(&endpoints.metadata, ENDPOINTS_MANAGED_BY_LABEL) == Some(MANAGER),
            count: EndpointCount { ready: ready.len(), not_ready: not_ready.len(), draining: 0 },
            ready,
            truncated: annotations.is_some_and(|all| all.contains_key(OVER_CAPACITY_ANNOTATION)),
        }
    }
}

/// Where and how an address is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAddress {
    /// How.
    pub how: Published,
    /// Its zone.
    pub zone: Option<String>,
}

/// The addresses in slices, each as it is published best.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressBook {
    /// In the slices of Beatkeeper.
    pub ours: HashMap<String, PublishedAddress>,
    /// In the slices of others.
    pub foreign: HashMap<String, PublishedAddress>,
}

impl AddressBook {
    /// The addresses in these slices.
    pub fn of<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Self {
        let mut book = Self::default();
        for slice in slices {
            let map = match foreign_manager(slice) {
                None => &mut book.ours,
                Some(_) => &mut book.foreign,
            };
            for endpoint in &slice.endpoints {
                let how = how(endpoint);
                for address in &endpoint.addresses {
                    let zone = endpoint.zone.clone();
                    let entry = map.entry(address.clone());
                    let known = entry.or_insert(PublishedAddress { how, zone });
                    // An address that moves between slices is in both for a moment.
                    known.how = known.how.max(how);
                }
            }
        }
        book
    }

    /// How the slices of Beatkeeper contain an instance with these addresses.
    pub fn published(&self, addresses: &[String]) -> Published {
        let found = addresses.iter().filter_map(|address| self.ours.get(address));
        found.map(|it| it.how).max().unwrap_or(Published::No)
    }

    /// The zone of an instance with these addresses.
    pub fn zone(&self, addresses: &[String]) -> Option<&str> {
        let mut found = addresses.iter().filter_map(|address| self.ours.get(address));
        found.find_map(|it| it.zone.as_deref())
    }
}
