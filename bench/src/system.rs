//! What all measured systems have in common, so that all are driven and watched by the same rules.

use std::any::Any;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use crate::messages::Instance;

/// A measured system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Heartbeat Leases on a real control plane, and EndpointSlices.
    Beatkeeper,
    /// The same, with beats through a gateway.
    Gateway,
    /// Keys with an etcd lease.
    Etcd,
    /// Keys with an expiry, and keyspace notifications.
    Redis,
    /// Ephemeral nodes, a session for each instance.
    Zookeeper,
}

/// How a system is set up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    pub system: System,
    /// How long an instance may send no beat before it counts as dead.
    pub ttl: Duration,
    /// How often an instance beats.
    pub interval: Duration,
    /// The number of services over which the instances are spread. Only for Beatkeeper.
    pub services: u32,
    /// The number of other keys with a long expiry. Only for Redis.
    pub ballast: u32,
    /// The folder of the data.
    pub data: PathBuf,
}

/// A process of a running system.
#[derive(Clone)]
pub struct Part {
    /// Its name in the results.
    pub name: &'static str,
    pub pid: u32,
    /// Reaches its metrics in Prometheus' format, if they are recorded.
    pub metrics: Option<Client>,
}

/// A running system.
pub struct Running {
    /// The address for clients.
    pub address: String,
    /// Its processes.
    pub parts: Vec<Part>,
    /// A description of the system, with versions.
    pub version: String,
    /// Ends the system when it is dropped.
    #[expect(dead_code, reason = "held, not read")]
    pub keep: Box<dyn Any>,
}

/// The operations of an instance, the same for every system.
pub trait Registry: Sized + Send + Sync + 'static {
    /// The state of an instance while it is registered.
    type Membership: Send + 'static;

    /// Connects to a running system.
    fn connect(setup: &Setup, address: &str) -> impl Future<Output = Result<Self>>;

    /// Waits until another request may be sent. The request counts as under way while the returned permit is held.
    /// Do not count this wait toward the timeout of the answer: a request that is cut off costs its connection.
    fn turn(&self) -> impl Future<Output = Option<SemaphorePermit<'_>>> + Send {
        std::future::ready(None)
    }

    /// Registers an instance, or a silent instance that returns.
    fn join(&self, instance: Instance) -> impl Future<Output = Result<Self::Membership>> + Send;

    /// Renews the registration.
    fn renew(&self, membership: &mut Self::Membership) -> impl Future<Output = Result<()>> + Send;

    /// Deregisters. To let an instance fall silent, drop its membership.
    fn leave(&self, membership: Self::Membership) -> impl Future<Output = Result<()>> + Send;
}
