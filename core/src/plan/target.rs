//! What is to be published, and what is published.

use std::collections::HashSet;

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use crate::{
    objects::marks::Owner,
    vocabulary::endpoint::{Endpoint, Family},
};

/// Default maximum number of endpoints in a slice. Kubernetes' own controller has the same default.
pub const DEFAULT_MAX_ENDPOINTS_PER_SLICE: usize = 100;

/// Maximum number of endpoints in a slice that the API server accepts.
pub const MAX_ENDPOINTS_PER_SLICE: usize = 1000;

/// Maximum number of addresses in an Endpoints object. Kubernetes' own controller has the same limit.
pub const MAX_ENDPOINTS_ADDRESSES: usize = 1000;

/// What the planner needs to know about the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Name of the Service.
    pub name: String,
    /// Whether the clusterIP is None.
    pub headless: bool,
    /// IP families of the Service, the primary one first. Endpoints of other families are not published.
    pub families: Vec<Family>,
}

/// What to do with the Endpoints object of the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointsMode {
    /// Create the object if it is missing, and keep it up to date.
    #[default]
    Publish,
    /// Publish no Endpoints object, and delete ours.
    Off,
    /// Neither write nor delete the object, for example because it belongs to another manager.
    LeaveAlone,
}

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The registration that owns what is published.
    pub owner: &'a Owner,
    /// The Service that the endpoints are published for.
    pub service: &'a ServiceFacts,
    /// The endpoints. No two of them share an address, port name, port number and protocol: if several instances claim
    /// the same one, the caller chooses between them.
    pub endpoints: Vec<Endpoint>,
    /// Maximum number of endpoints in a slice, from 1 to [`MAX_ENDPOINTS_PER_SLICE`]. Other values are clamped to that
    /// range.
    pub max_endpoints_per_slice: usize,
    /// The moment of the change that led to this plan. It is written along with other changes, so that consumers can
    /// measure how long a change took to reach them. It is never itself a reason to write.
    pub trigger_time: Option<jiff::Timestamp>,
    /// What to do with the Endpoints object.
    pub endpoints_object: EndpointsMode,
    /// Names of slices that are not written now, because the API server refuses to write them. They stay as they are,
    /// and no endpoint is added to them.
    pub closed: HashSet<String>,
}

/// What is published now.
#[derive(Debug, Clone)]
pub struct Published<'a> {
    /// Our slices of this Service, as in the cache, without the slices of other managers.
    pub slices: Vec<&'a EndpointSlice>,
    /// Our Endpoints object, if there is one. If the object belongs to another manager, pass
    /// [`EndpointsMode::LeaveAlone`].
    pub endpoints: Option<&'a Endpoints>,
}
