//! The objects that were read, by their keys, and what belongs to a registration.

use std::collections::{BTreeMap, BTreeSet};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::{
    objects::{marks::SERVICE_NAME_LABEL, marks::label, pod::PodView},
    vocabulary::key::Key,
};
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};

use super::{kind::Kind, lease::SeenLease, registration::Unread};

/// The objects that were read.
#[derive(Debug, Default)]
pub struct Store {
    /// The registrations.
    pub registrations: BTreeMap<Key, ServiceRegistration>,
    /// The heartbeat Leases, by registration and then by name.
    pub leases: BTreeMap<Key, BTreeMap<String, SeenLease>>,
    /// The Pods.
    pub pods: BTreeMap<Key, PodView>,
    /// The slices, by Service and then by name.
    pub slices: BTreeMap<Key, BTreeMap<String, EndpointSlice>>,
    /// The Services.
    pub services: BTreeMap<Key, Service>,
    /// The Endpoints.
    pub endpoints: BTreeMap<Key, Endpoints>,
    /// What could not be read.
    pub unread: BTreeSet<Unread>,
}

impl Store {
    /// Adds a Lease, or replaces it. Returns the registration that it belongs to.
    pub fn put_lease(&mut self, lease: SeenLease) -> Option<Key> {
        let registration = Key::new(&*lease.key.namespace, lease.heartbeat.registration.clone()?);
        let of_registration = self.leases.entry(registration.clone()).or_default();
        of_registration.insert(lease.key.name.clone(), lease);
        Some(registration)
    }

    /// Adds a slice, or replaces it. Returns the Service that it belongs to.
    pub fn put_slice(&mut self, slice: EndpointSlice) -> Option<Key> {
        let Key { namespace, name } = Key::of(&slice.metadata);
        let service = Key::new(namespace, label(&slice.metadata, SERVICE_NAME_LABEL)?);
        self.slices.entry(service.clone()).or_default().insert(name, slice);
        Some(service)
    }

    /// Adds a Pod, or replaces it.
    pub fn put_pod(&mut self, pod: &Pod) -> Key {
        let key = Key::of(&pod.metadata);
        self.pods.insert(key.clone(), PodView::of(pod));
        key
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        let leases: usize = self.leases.values().map(BTreeMap::len).sum();
        let slices: usize = self.slices.values().map(BTreeMap::len).sum();
        let named = self.services.len() + self.endpoints.len() + self.pods.len();
        self.registrations.len() + leases + slices + named
    }

    /// Notes that something could not be read.
    pub fn note_unread(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.unread.insert(Unread { what: what.into(), why: why.into() });
    }

    /// Whether all objects of a kind were read.
    pub fn has_read(&self, kind: Kind) -> bool {
        !self.unread.iter().any(|unread| unread.what == kind.as_str())
    }
}
