//! What is measured: each system behind the same few traits, so that all are driven and watched by the same rules.

use std::any::Any;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use crate::words::{Instance, Tell};

pub mod beatkeeper;
pub mod etcd;
mod peers;
pub mod redis;
pub mod zookeeper;

/// A system.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// Heartbeat Leases on a real control plane, and EndpointSlices.
    Beatkeeper,
    /// Keys with an etcd lease.
    Etcd,
    /// Keys with an expiry, and keyspace notifications.
    Redis,
    /// Ephemeral nodes, a session for each instance.
    Zookeeper,
}

impl Name {
    /// As on the command line and in the results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Beatkeeper => "beatkeeper",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
            Self::Zookeeper => "zookeeper",
        }
    }
}

/// How a system is set up, the same for all of them.
#[derive(Debug, Clone)]
pub struct Setup {
    /// After how long a silence an instance counts as dead.
    pub ttl: Duration,
    /// How often it beats.
    pub interval: Duration,
    /// The folder of the data.
    pub data: PathBuf,
    /// Where the servers of the peers lie, beside those on the PATH.
    pub peers: Option<PathBuf>,
    /// Over so many services the instances are spread. For Beatkeeper alone.
    pub services: u32,
    /// So many other keys with a long expiry lie beside the instances. For Redis alone.
    pub ballast: u32,
}

/// A process of a system that runs.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is called in the results.
    pub name: &'static str,
    /// Its process.
    pub pid: u32,
    /// Where it serves metrics in Prometheus' format, if it does.
    pub metrics: Option<String>,
}

impl Part {
    /// A process without metrics that are read.
    pub fn new(name: &'static str, pid: u32) -> Self {
        Self { name, pid, metrics: None }
    }
}

/// A system that runs. It ends when this is dropped.
pub struct Running {
    /// How clients find it.
    pub address: String,
    /// Its processes.
    pub parts: Vec<Part>,
    /// What it is, with versions.
    pub version: String,
    /// Ends it when dropped.
    #[expect(dead_code, reason = "held, not read")]
    pub keep: Box<dyn Any>,
}

/// Why a system cannot be measured here; told in the results instead of failing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Absent(pub String);

/// What an instance does, whatever it registers with.
pub trait Registry: Send + Sync + 'static {
    /// What an instance holds while it is registered.
    type Membership: Send + 'static;

    /// Waits until one request more may be under way; it may while what is returned is held. Not to be counted
    /// against the time that an answer may take: a request that is cut off costs its connection.
    fn turn(&self) -> impl Future<Output = Option<SemaphorePermit<'_>>> + Send {
        std::future::ready(None)
    }

    /// Registers an instance, or lets one return that fell silent.
    fn join(&self, instance: Instance) -> impl Future<Output = Result<Self::Membership>> + Send;

    /// Says that it lives.
    fn renew(&self, membership: &mut Self::Membership) -> impl Future<Output = Result<()>> + Send;

    /// Says that it leaves. To fall silent, a membership is dropped.
    fn leave(&self, membership: Self::Membership) -> impl Future<Output = Result<()>> + Send;
}

/// Starts a system.
///
/// # Errors
/// [`Absent`] where it is not installed; anything else when it does not start.
pub async fn start(name: Name, setup: &Setup) -> Result<Running> {
    match name {
        Name::Beatkeeper => beatkeeper::start(setup).await,
        Name::Etcd => etcd::start(setup).await,
        Name::Redis => redis::start(setup).await,
        Name::Zookeeper => zookeeper::start(setup).await,
    }
}

/// Follows who is registered, until the driver ends.
///
/// # Errors
/// When the watch breaks: then nothing that is told after it would be true.
pub async fn watch(name: Name, address: &str, tell: Tell) -> Result<()> {
    match name {
        Name::Beatkeeper => beatkeeper::watch(address, tell).await,
        Name::Etcd => etcd::watch(address, tell).await,
        Name::Redis => redis::watch(address, tell).await,
        Name::Zookeeper => zookeeper::watch(address, tell).await,
    }
}
