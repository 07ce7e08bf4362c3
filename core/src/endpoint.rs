//! An endpoint as it is to be published: the words shared by deciding and planning.

use std::{net::IpAddr, sync::Arc};

/// The transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Reads what Kubernetes writes.
    pub fn read(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.as_str() == text)
    }

    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// One port of an endpoint, resolved to a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPort {
    /// Name of the Service's port; kube-proxy joins by it. Empty for the only, unnamed port.
    pub name: String,
    /// The port the instance listens on, 1 to 65535.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// As in the Service.
    pub app_protocol: Option<String>,
}

/// A sorted set of ports; cheap to clone, since most instances share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(Arc<[EndpointPort]>);

impl PortSet {
    /// Sorts the ports, so that equal sets are equal.
    pub fn new(mut ports: Vec<EndpointPort>) -> Self {
        ports.sort();
        ports.dedup();
        Self(ports.into())
    }

    /// The ports in order.
    pub fn ports(&self) -> &[EndpointPort] {
        &self.0
    }

    /// Whether the two have a port in common, by name and number.
    pub fn meets(&self, other: &Self) -> bool {
        let same = |a: &EndpointPort, b: &EndpointPort| a.name == b.name && a.port == b.port;
        self.0.iter().any(|a| other.0.iter().any(|b| same(a, b)))
    }

    /// Whether there is no port at all, as for a headless Service without ports.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The address family; a slice holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As an EndpointSlice's addressType and a Service's ipFamilies write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The conditions of an endpoint. All three are always written: a consumer that meets a missing one
/// guesses, and they guess differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conditions {
    /// May be given new connections.
    pub ready: bool,
    /// Able to answer, whether it is leaving or not.
    pub serving: bool,
    /// Leaving.
    pub terminating: bool,
}

/// The Pod behind an endpoint, for its targetRef.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's uid.
    pub uid: String,
}

/// One address with its ports, to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The one address of this endpoint.
    pub address: IpAddr,
    /// The ports it answers on; endpoints of one slice share them.
    pub ports: PortSet,
    /// What consumers may do with it.
    pub conditions: Conditions,
    /// Host name inside a headless Service, a DNS label.
    pub hostname: Option<String>,
    /// The Node it runs on.
    pub node_name: Option<String>,
    /// The zone it runs in.
    pub zone: Option<String>,
    /// The Pod behind it; none for an instance outside the cluster.
    pub pod: Option<PodRef>,
    /// Whether the Endpoints object of the Service lists it too, and as ready or not: draining
    /// endpoints are in slices only.
    pub in_endpoints: Option<EndpointsReadiness>,
}

/// Where the Endpoints object lists an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointsReadiness {
    /// Under `addresses`.
    Ready,
    /// Under `notReadyAddresses`.
    NotReady,
}
