//! The identity of an instance.

use std::{collections::BTreeMap, net::IpAddr};

use beatkeeper_api::heartbeat;

/// The identity of an instance: its registration, its name, its place, and what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the registration and of the Lease.
    pub namespace: String,
    /// Name of the ServiceRegistration.
    pub registration: String,
    /// Name of the instance.
    pub instance: String,
    /// Where the instance lives.
    pub home: Location,
    /// The version of the app in the instance.
    pub version: Option<String>,
    /// Other data about the instance: annotations under [`heartbeat::METADATA_PREFIX`].
    pub metadata: BTreeMap<String, String>,
}

/// Where an instance lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In the Pod of this name; its address is the Pod's.
    Pod(String),
    /// Outside the cluster, at the addresses given here or, if none are given, at those that the registration
    /// declares.
    Outside(Vec<IpAddr>),
}

impl Identity {
    /// Name of the Lease.
    pub fn lease_name(&self) -> String {
        heartbeat::lease_name(&self.registration, &self.instance)
    }

    /// The value of the addresses annotation; `None` if the annotation must be absent.
    pub(crate) fn addresses(&self) -> Option<String> {
        match &self.home {
            Location::Outside(addresses) if !addresses.is_empty() => {
                Some(addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","))
            }
            Location::Outside(_) | Location::Pod(_) => None,
        }
    }
}
