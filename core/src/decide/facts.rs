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
        failure::Failure,
        monotonic_time::MonotonicTime,
    },
};

/// The inputs of a decision.
pub struct Facts<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// What is known of its instances.
    pub instances: Instances<'a>,
    /// What counts for and against taking silence for death.
    pub liveness: Liveness<'a>,
    /// The Service for which it publishes.
    pub service: TargetService<'a>,
    /// What it publishes now.
    pub published: PublishedNow<'a>,
    /// The cluster around it.
    pub cluster: Cluster<'a>,
    /// The present moment.
    pub now: MonotonicTime,
}

/// What is known of the instances of a registration.
pub struct Instances<'a> {
    /// Its heartbeat Leases.
    pub records: &'a [Record],
    /// The adopted instances that have not beaten yet, as known before the decision.
    pub adopted: &'a [Adopted],
    /// The cordons that are in effect.
    pub cordons: &'a [Cordon],
}

/// What counts for and against taking the silence of an instance for its death.
#[derive(Clone, Copy)]
pub struct Liveness<'a> {
    /// The ttls that the registration has had while this controller was running.
    pub ttl: &'a TtlHistory,
    /// The evidence.
    pub evidence: &'a Evidence,
    /// Leases with a live read that failed, with the error.
    pub unreadable: &'a HashMap<Arc<str>, Failure>,
    /// When the present term of this controller began, that is, when it last became the leader.
    pub term_began: MonotonicTime,
}

/// The Service for which a registration publishes.
pub struct TargetService<'a> {
    /// Its name, for the host names of a headless one.
    pub name: &'a str,
    /// Its address families.
    pub families: &'a [Family],
    /// The ports of the registration that the Service has, too.
    pub ports: &'a [PortTemplate],
    /// The same ports, resolved. Set once they are known, for all instances that have no ports of their own, if the
    /// result is the same for each.
    pub shared_ports: OnceCell<PortSet>,
}

/// What a registration publishes at the moment of a decision.
pub struct PublishedNow<'a> {
    /// The addresses in its own slices.
    pub addresses: &'a AddressSet,
    /// Whether its own slices contain an address with a port.
    pub contains: &'a dyn Fn(IpAddr, &EndpointPort) -> bool,
    /// Set if nothing may be added or changed: the earlier addresses of outside instances. A published instance that
    /// is alive then keeps its address, even if an edit says otherwise.
    pub frozen: Option<&'a Earlier>,
}

/// The cluster around a registration.
pub struct Cluster<'a> {
    /// The Pods that the Leases name, by name.
    pub pods: &'a HashMap<String, Arc<PodView>>,
    /// The zones of the Nodes on which those Pods run, by the name of the Node.
    pub zones: &'a HashMap<String, String>,
    /// The ranges of outside instances.
    pub ranges: &'a OutsideRanges,
    /// Which object has an address, as far as the cluster knows.
    pub owner_of: &'a dyn Fn(IpAddr) -> Option<String>,
}
