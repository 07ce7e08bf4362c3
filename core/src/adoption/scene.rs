//! The inputs of an adoption.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use super::adopted::Adopted;
use crate::{
    decide::verdict::Verdict,
    objects::{
        pod::PodView,
        registration::{PortTemplate, Registration},
    },
    vocabulary::{address::OutsideRanges, endpoint::Family},
};

/// The objects for a Service that do not belong to the operator, from live reads.
#[derive(Debug, Default)]
pub struct ForeignObjects {
    /// The Endpoints object, if it does not belong to the operator.
    pub endpoints: Option<Endpoints>,
    /// Whether there is an Endpoints object, from the operator or not.
    pub has_endpoints: bool,
    /// The slices that do not belong to the operator.
    pub slices: Vec<EndpointSlice>,
}

/// The inputs of the decision whether the objects may be adopted.
pub struct AdoptionInputs<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The address families of the Service.
    pub families: &'a [Family],
    /// The ports that the Service has, too.
    pub ports: &'a [PortTemplate],
    /// The ranges of outside instances.
    pub ranges: &'a OutsideRanges,
    /// Which object has an address, as far as the cluster knows.
    pub owner_of: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Whether all objects of others were left behind by Kubernetes' own controllers.
    pub left_by_cluster: bool,
    /// Returns a Pod of the namespace by its name.
    pub pod: &'a dyn Fn(&str) -> Option<Arc<PodView>>,
    /// Whether a Pod with this name exists but cannot be read, so that nothing is known of it.
    pub is_unread: &'a dyn Fn(&str) -> bool,
    /// The instances that are already adopted, whether they are to stay or not.
    pub adopted: &'a [Adopted],
    /// The verdicts on the instances that have Leases.
    pub verdicts: &'a [Verdict],
    /// The wall-clock time, for people to read.
    pub wall: Timestamp,
}
