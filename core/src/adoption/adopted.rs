//! Adopted instances, and the objects that a registration adopts.

use std::net::IpAddr;

use beatkeeper_api::AdoptedInstance;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use crate::objects::consent::Consent;

/// The prefix of the names of adopted instances. No other instance can have such a name.
pub const ADOPTED: &str = "adopted/";

/// An adopted instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its address.
    pub address: IpAddr,
    /// Its entry in the status.
    pub entry: AdoptedInstance,
}

impl Adopted {
    /// Reads an entry of the status; `None` if a user has changed its address to a text that is not an address.
    pub fn read(entry: &AdoptedInstance) -> Option<Self> {
        Some(Self { address: entry.address.parse().ok()?, entry: entry.clone() })
    }

    /// Name and uid of its Pod, if Kubernetes' own controller had published it.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.entry.pod.as_deref()?.split_once('/')
    }

    /// Whether the instance stays published with this consent. The consent applies only to hand-written addresses, and
    /// not to Pods.
    pub fn stays(&self, consent: &Consent) -> bool {
        self.entry.pod.is_some() || consent.keeps(self.address)
    }
}

/// The objects and instances that a registration adopts or has adopted.
#[derive(Debug, Default)]
pub struct Adoption {
    /// The instances that have not beaten yet, as known before the decision.
    pub instances: Vec<Adopted>,
    /// The entries of the status that are no longer adopted, whatever is decided.
    pub ended: Vec<AdoptedInstance>,
    /// The slices of Kubernetes' own controller. They are deleted as soon as the operator's slices contain their
    /// endpoints.
    pub leftovers: Vec<EndpointSlice>,
    /// The Endpoints object. The operator takes it over as soon as its slices contain its endpoints.
    pub endpoints: Option<Endpoints>,
}
