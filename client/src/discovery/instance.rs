//! What a lookup returns.

use std::net::IpAddr;

/// A published instance: one address with its ports.
///
/// An instance with addresses of two IP families is published once for each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The address at which the instance is reached.
    pub address: IpAddr,
    /// The ports of the instance, ordered by number.
    pub ports: Vec<Port>,
    /// Whether the instance accepts new connections.
    pub ready: bool,
    /// Whether the instance serves its existing connections; this can be true while it drains.
    pub serving: bool,
    /// Whether the instance is about to leave.
    pub terminating: bool,
    /// Name of the Pod that the instance runs in.
    pub pod: Option<String>,
    /// Name of the Node that the instance runs on.
    pub node: Option<String>,
    /// Zone of the instance.
    pub zone: Option<String>,
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The name in the registration; empty if the registration has a single port without a name.
    pub name: String,
}

/// A change in the set of published instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The instance is now published.
    Created(Instance),
    /// The instance was published before and has changed: it drains, or cannot serve, or can serve again.
    Updated(Instance),
    /// The instance is not published any more.
    Deleted(Instance),
}
