//! The objects that Kubernetes' own controllers leave behind when the selector of a Service is removed.
//!
//! These controllers ignore a Service without a selector. So their slices and the Endpoints object stay as they were
//! forever, and the Endpoints are also mirrored. The registration adopts them without further consent, because the
//! user who removed the selector has given them up. An instance in them that does not beat yet stays published as long
//! as its Pod exists.
//!
//! Hand-written slices become the operator's, but the controller's slices are deleted once the operator's slices
//! contain the same endpoints. The reason is that the controller remembers its slices. If one of them is missing and
//! the controller has not seen its deletion, it never publishes that Service again, even if the selector is added
//! again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::objects::{
    marks::{ENDPOINTS_MANAGED_BY_LABEL, SLICE_MANAGED_BY_LABEL, label},
    pod::PodView,
};

/// The manager of slices that mirror an Endpoints object.
pub const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
/// The manager of slices that are made for a Service's selector.
const SLICES: &str = "endpointslice-controller.k8s.io";
/// The manager of Endpoints that are made for a Service's selector.
const ENDPOINTS: &str = "endpoint-controller";

/// Whether a slice was made for the selector of a Service.
pub fn is_slice(metadata: &ObjectMeta) -> bool {
    label(metadata, SLICE_MANAGED_BY_LABEL) == Some(SLICES)
}

/// Whether a slice mirrors an Endpoints object.
pub fn is_mirror(metadata: &ObjectMeta) -> bool {
    label(metadata, SLICE_MANAGED_BY_LABEL) == Some(MIRROR)
}

/// Whether an Endpoints object was made for the selector of a Service.
pub fn is_endpoints(metadata: &ObjectMeta) -> bool {
    label(metadata, ENDPOINTS_MANAGED_BY_LABEL) == Some(ENDPOINTS)
}

/// Whether all objects of others were left behind by Kubernetes' own controllers. `endpoints` is the Endpoints object,
/// and whether it belongs to the operator.
pub fn are_all<'a>(
    foreign_slices: impl Iterator<Item = &'a ObjectMeta>,
    endpoints: Option<(&ObjectMeta, bool)>,
) -> bool {
    let mut made_for_selector = false;
    for slice in foreign_slices {
        if !is_slice(slice) && !is_mirror(slice) {
            return false;
        }
        made_for_selector |= is_slice(slice);
    }
    match endpoints {
        Some((endpoints, ours)) => ours || is_endpoints(endpoints),
        None => made_for_selector,
    }
}

/// The Pod with this uid, if it still exists and has not terminated.
pub(crate) fn living<'a>(pod: Option<&'a PodView>, uid: &str) -> Option<&'a PodView> {
    pod.filter(|pod| pod.uid == uid && !pod.terminal)
}
