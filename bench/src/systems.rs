//! The measured systems.

use std::time::Duration;

use anyhow::Result;

use crate::load;
use crate::messages::Events;
use crate::system::{Running, Setup, System};

pub mod beatkeeper;
pub mod control_plane;
mod etcd;
mod installed;
mod redis;
mod zookeeper;

/// Starts a system.
///
/// # Errors
/// [`crate::system::Absent`] if the system is not installed; any other error if it does not start.
pub async fn start(system: System, setup: &Setup) -> Result<Running> {
    match system {
        System::Beatkeeper => beatkeeper::start(setup).await,
        System::Etcd => etcd::start(setup).await,
        System::Redis => redis::start(setup).await,
        System::Zookeeper => zookeeper::start(setup).await,
    }
}

/// Watches which instances are registered, until the driver ends.
///
/// # Errors
/// If the watch breaks: later events would not be reliable.
pub async fn watch(system: System, address: &str, events: Events) -> Result<()> {
    match system {
        System::Beatkeeper => beatkeeper::watch(address, events).await,
        System::Etcd => etcd::watch(address, events).await,
        System::Redis => redis::watch(address, events).await,
        System::Zookeeper => zookeeper::watch(address, events).await,
    }
}

/// Runs instances as the driver orders, until the driver ends.
///
/// # Errors
/// If the system cannot be reached, or an order cannot be read.
pub async fn load(
    system: System,
    address: &str,
    (ttl, interval): (Duration, Duration),
    services: u32,
    events: Events,
) -> Result<()> {
    match system {
        System::Beatkeeper => {
            let leases = beatkeeper::Leases::connect(address, ttl, services).await?;
            load::run(leases, interval, events).await
        }
        System::Etcd => {
            load::run(etcd::Leases::connect(address, ttl).await?, interval, events).await
        }
        System::Redis => {
            load::run(redis::Keys::connect(address, ttl).await?, interval, events).await
        }
        System::Zookeeper => {
            load::run(zookeeper::Sessions::new(address, ttl), interval, events).await
        }
    }
}
