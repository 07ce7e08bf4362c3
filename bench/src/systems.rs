//! The measured systems.

use anyhow::Result;

use crate::load;
use crate::messages::Events;
use crate::system::{Running, Setup, System};

pub mod beatkeeper;
pub mod control_plane;
mod etcd;
mod gateway;
mod redis;
mod zookeeper;

/// Starts a system.
///
/// # Errors
/// If it is not installed, or does not start.
pub async fn start(setup: &Setup) -> Result<Running> {
    match setup.system {
        System::Beatkeeper => beatkeeper::start(setup).await,
        System::Gateway => gateway::start(setup).await,
        System::Etcd => etcd::start(setup).await,
        System::Redis => redis::start(setup).await,
        System::Zookeeper => zookeeper::start(setup).await,
    }
}

/// Watches which instances are registered, until the driver ends.
///
/// # Errors
/// If the watch breaks: later events would not be reliable.
pub async fn watch(setup: &Setup, address: &str, events: Events) -> Result<()> {
    match setup.system {
        System::Beatkeeper => beatkeeper::watch(address, events).await,
        System::Gateway => gateway::watch(address, events).await,
        System::Etcd => etcd::watch(address, events).await,
        System::Redis => redis::watch(address, events).await,
        System::Zookeeper => zookeeper::watch(address, events).await,
    }
}

/// Runs instances as the driver orders, until the driver ends.
///
/// # Errors
/// If the system cannot be reached, or an order cannot be read.
pub async fn load(setup: &Setup, address: &str, events: Events) -> Result<()> {
    match setup.system {
        System::Beatkeeper => load::run::<beatkeeper::Leases>(setup, address, events).await,
        System::Gateway => load::run::<gateway::Carried>(setup, address, events).await,
        System::Etcd => load::run::<etcd::Leases>(setup, address, events).await,
        System::Redis => load::run::<redis::Keys>(setup, address, events).await,
        System::Zookeeper => load::run::<zookeeper::Sessions>(setup, address, events).await,
    }
}
