//! The inputs of a decision.

use std::{cell::OnceCell, collections::HashMap, net::IpAddr, sync::Arc};

use crate::{
    adoption::adopted::Adopted,
    decide::{cordons::Cordon, evidence::Evidence},
    inputs::earlier::Earlier,
    liveness::{index::Record, ttl::TtlHistory},
    objects::{
        pod::PodView,
        registration::{PortTemplate, Registration},
    },
    vocabulary::{
        address::{AddressSet, OutsideRanges},
        endpoint::{EndpointPort, Family, PortSet},
        monotonic_time::MonotonicTime,
    },
};

/// The inputs of a decision.
pub struct Facts<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The ttls that it has had while this controller was running.
    pub ttl: &'a TtlHistory,
    /// Its heartbeat Leases.
    pub records: &'a [Record],
    /// The Pods that those Leases name, by name.
    pub pods: &'a HashMap<String, Arc<PodView>>,
    /// The zones of the Nodes on which those Pods run, by the name of the Node.
    pub zones: &'a HashMap<String, String>,
    /// The address families of the Service.
    pub families: &'a [Family],
    /// Name of the Service, for the host names of a headless one.
    pub service: &'a str,
    /// The ports that the Service has, too.
    pub ports: &'a [PortTemplate],
    /// The same ports, resolved. Set once they are known, for all instances that have no ports of their own, if the
    /// result is the same for each.
    pub shared_ports: OnceCell<PortSet>,
    /// The addresses in this registration's own slices.
    pub published: &'a AddressSet,
    /// Whether the registration's own slices contain an address with a port.
    pub publishes: &'a dyn Fn(IpAddr, &EndpointPort) -> bool,
    /// The ranges of outside instances.
    pub ranges: &'a OutsideRanges,
    /// Which object has an address, as far as the cluster knows.
    pub owner_of: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Leases with a live read that failed, with the error.
    pub unreadable: &'a HashMap<Arc<str>, String>,
    /// The other evidence for and against counting silence as death.
    pub evidence: &'a Evidence,
    /// When the present term of this controller began, that is, when it last became the leader.
    pub term_began: MonotonicTime,
    /// The adopted instances that have not beaten yet, as known before the decision.
    pub adopted: &'a [Adopted],
    /// Set if nothing may be added or changed: the earlier addresses of outside instances. A published instance that
    /// is alive then keeps its address, even if an edit says otherwise.
    pub frozen: Option<&'a Earlier>,
    /// The cordons that are in effect.
    pub cordons: &'a [Cordon],
    /// The present moment.
    pub now: MonotonicTime,
}
