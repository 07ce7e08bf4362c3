//! The objects of the modelled API server, with their types.

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
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::store::Resource;

pub const LEASES: Resource = "leases";
pub const PODS: Resource = "pods";
pub const SERVICES: Resource = "services";
pub const SLICES: Resource = "endpointslices";
pub const ENDPOINTS: Resource = "endpoints";
pub const REGISTRATIONS: Resource = "serviceregistrations";

/// The kinds that the operator watches, apart from Nodes.
pub const KINDS: [Resource; 6] = [LEASES, PODS, SERVICES, SLICES, ENDPOINTS, REGISTRATIONS];

pub enum Object {
    Lease(HeartbeatLease),
    Pod(Box<Pod>),
    Service(Service),
    Slice(EndpointSlice),
    Endpoints(Endpoints),
    Registration(ServiceRegistration),
    /// Of a kind that no check needs.
    Other(ObjectMeta),
}

impl Object {
    pub fn read(resource: Resource, value: &Value) -> Self {
        fn of<T: DeserializeOwned>(value: &Value) -> T {
            T::deserialize(value).expect("the simulated API server has only readable objects")
        }
        match resource {
            LEASES => Self::Lease(of(value)),
            PODS => Self::Pod(of(value)),
            SERVICES => Self::Service(of(value)),
            SLICES => Self::Slice(of(value)),
            ENDPOINTS => Self::Endpoints(of(value)),
            REGISTRATIONS => Self::Registration(of(value)),
            _ => Self::Other(of(&value["metadata"])),
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
            Self::Other(meta) => meta,
        }
    }

    /// Whether the operator may write this object. It may write only objects that it has made (P6).
    pub fn is_operators(&self) -> bool {
        let meta = self.meta();
        match self {
            Self::Slice(_) | Self::Endpoints(_) => {
                label(meta, SLICE_MANAGED_BY_LABEL) == Some(MANAGER)
                    || label(meta, ENDPOINTS_MANAGED_BY_LABEL) == Some(MANAGER)
                    || owner_of(meta).is_some()
            }
            Self::Service(_) => owner_of(meta).is_some(),
            Self::Lease(_) => {
                label(meta, REGISTRATION_LABEL).is_some()
                    || meta.namespace.as_deref() == Some(OPERATOR)
            }
            Self::Registration(_) | Self::Other(_) => true,
            Self::Pod(_) => false,
        }
    }

    pub fn lease(&self) -> Option<&HeartbeatLease> {
        if let Self::Lease(lease) = self { Some(lease) } else { None }
    }

    pub fn slice(&self) -> Option<&EndpointSlice> {
        if let Self::Slice(slice) = self { Some(slice) } else { None }
    }

    pub fn registration(&self) -> Option<&ServiceRegistration> {
        if let Self::Registration(object) = self { Some(object) } else { None }
    }
}

/// The namespace of the operator.
pub const OPERATOR: &str = "beatkeeper";

/// Whether a key is of the operator's own namespace.
pub fn is_operators(key: &Key) -> bool {
    key.namespace == OPERATOR
}
