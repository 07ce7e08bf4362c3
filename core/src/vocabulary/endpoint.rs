//! An endpoint as it should be published: the types that decisions and plans share.

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
    /// Reads the text that Kubernetes uses.
    pub fn read(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.as_str() == text)
    }

    /// The text that Kubernetes uses.
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
    /// Name of the Service's port, with which kube-proxy matches ports. Empty for the only, unnamed port.
    pub name: String,
    /// The port on which the instance listens, 1 to 65535.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The application protocol, as in the Service.
    pub app_protocol: Option<String>,
}

/// A sorted set of ports. It is cheap to clone, because most instances share one set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(Arc<[EndpointPort]>);

impl PortSet {
    /// Sorts the ports and removes duplicates, so that equal sets compare as equal.
    pub fn new(mut ports: Vec<EndpointPort>) -> Self {
        ports.sort();
        ports.dedup();
        Self(ports.into())
    }

    /// The ports in sorted order.
    pub fn ports(&self) -> &[EndpointPort] {
        &self.0
    }

    /// Whether the two have a port in common, by name and number.
    pub fn meets(&self, other: &Self) -> bool {
        let same = |a: &EndpointPort, b: &EndpointPort| a.name == b.name && a.port == b.port;
        self.0.iter().any(|a| other.0.iter().any(|b| same(a, b)))
    }

    /// Whether the set has no port, as for a headless Service without ports.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The address family. All endpoints of a slice have the same one.
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

    /// The text that addressType of an EndpointSlice and ipFamilies of a Service use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The conditions of an endpoint. All three are always written, because consumers interpret a missing condition in
/// different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conditions {
    /// Whether it may get new connections.
    pub ready: bool,
    /// Whether it can answer, even if it is terminating.
    pub serving: bool,
    /// Whether it is terminating.
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

/// One address with its ports, as it should be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The one address of this endpoint.
    pub address: IpAddr,
    /// The ports on which it answers. All endpoints of a slice have the same ports.
    pub ports: PortSet,
    /// Its conditions.
    pub conditions: Conditions,
    /// Host name inside a headless Service, a DNS label.
    pub hostname: Option<String>,
    /// The Node on which it runs.
    pub node_name: Option<String>,
    /// The zone in which it runs.
    pub zone: Option<String>,
    /// The Pod behind it; `None` for an outside instance.
    pub pod: Option<PodRef>,
    /// How the Endpoints object of the Service lists it; `None` if it does not, as for draining endpoints, which are
    /// only in slices.
    pub in_endpoints: Option<EndpointsReadiness>,
}

/// The list of the Endpoints object that contains an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointsReadiness {
    /// Under `addresses`.
    Ready,
    /// Under `notReadyAddresses`.
    NotReady,
}
