//! The objects of the modelled API server.

use std::sync::Arc;

use beatkeeper_api::{ServiceRegistration, heartbeat::REGISTRATION_LABEL};
use beatkeeper_core::{
    objects::{
        heartbeat::HeartbeatLease,
        marks::{ENDPOINTS_MANAGED_BY_LABEL, MANAGER, SLICE_MANAGED_BY_LABEL, label, owner_of},
    },
    vocabulary::key::Key,
};
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Lease,
    Pod,
    Service,
    Slice,
    Endpoints,
    Registration,
}

pub const KINDS: [Kind; 6] =
    [Kind::Lease, Kind::Pod, Kind::Service, Kind::Slice, Kind::Endpoints, Kind::Registration];

#[derive(Debug, Clone)]
pub enum Object {
    Lease(Arc<HeartbeatLease>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Endpoints(Arc<Endpoints>),
    Registration(Arc<ServiceRegistration>),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Lease(_) => Kind::Lease,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Slice(_) => Kind::Slice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Registration(_) => Kind::Registration,
        }
    }

    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Lease(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Slice(object) => &object.metadata,
            Self::Endpoints(object) => &object.metadata,
            Self::Registration(object) => &object.metadata,
        }
    }

    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Lease(object) => &mut Arc::make_mut(object).metadata,
            Self::Pod(object) => &mut Arc::make_mut(object).metadata,
            Self::Service(object) => &mut Arc::make_mut(object).metadata,
            Self::Slice(object) => &mut Arc::make_mut(object).metadata,
            Self::Endpoints(object) => &mut Arc::make_mut(object).metadata,
            Self::Registration(object) => &mut Arc::make_mut(object).metadata,
        }
    }

    pub fn key(&self) -> Key {
        Key::of(self.meta())
    }

    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    pub fn version(&self) -> u64 {
        self.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether writing this object over `other` would change nothing.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Slice(a), Self::Slice(b)) => a == b,
            (Self::Endpoints(a), Self::Endpoints(b)) => a == b,
            (Self::Service(a), Self::Service(b)) => a == b,
            (Self::Registration(a), Self::Registration(b)) => {
                a.spec == b.spec && a.status == b.status && a.metadata == b.metadata
            }
            _ => false,
        }
    }

    /// Whether the operator's watch selects this object.
    pub fn is_watched(&self) -> bool {
        self.kind() != Kind::Lease || label(self.meta(), REGISTRATION_LABEL).is_some()
    }

    /// Whether the operator may write this object. It may write only objects that it has made (P6).
    pub fn is_operators(&self) -> bool {
        let meta = self.meta();
        match self.kind() {
            Kind::Slice | Kind::Endpoints => {
                label(meta, SLICE_MANAGED_BY_LABEL) == Some(MANAGER)
                    || label(meta, ENDPOINTS_MANAGED_BY_LABEL) == Some(MANAGER)
                    || owner_of(meta).is_some()
            }
            Kind::Service => owner_of(meta).is_some(),
            Kind::Lease => label(meta, REGISTRATION_LABEL).is_some(),
            Kind::Registration => true,
            Kind::Pod => false,
        }
    }

    pub fn lease(&self) -> Option<&Arc<HeartbeatLease>> {
        if let Self::Lease(lease) = self { Some(lease) } else { None }
    }

    pub fn slice(&self) -> Option<&Arc<EndpointSlice>> {
        if let Self::Slice(slice) = self { Some(slice) } else { None }
    }
}
