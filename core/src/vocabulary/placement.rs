//! Where an instance can be reached.

use std::net::IpAddr;

use super::{
    address::AddressSet,
    endpoint::{PodRef, PortSet},
};

/// Where an instance can be reached, and what its Pod and its Node say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its addresses, limited to the IP families of the Service.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: PortSet,
    /// The Node on which it runs.
    pub node_name: Option<String>,
    /// The zone in which it runs.
    pub zone: Option<String>,
    /// Its host name in a headless Service.
    pub hostname: Option<String>,
    /// The Pod, for an instance that runs in one.
    pub pod: Option<PodRef>,
    /// Whether its kubelet reports it as ready; always true outside the cluster.
    pub kubelet_ready: bool,
}

impl Placement {
    /// Whether one of its addresses is in `addresses`.
    pub fn is_at(&self, addresses: &AddressSet) -> bool {
        self.addresses.iter().any(|address| addresses.contains(address))
    }
}
