//! What the cluster's own controllers leave when the selector of a Service is removed.
//!
//! They do nothing any more for a Service without a selector: their slices and the Endpoints object stay
//! as they were, for ever, and the Endpoints are mirrored besides. The registration takes them over,
//! without further consent: who removed the selector has given them up. An instance in them that does
//! not beat yet stays for as long as its Pod is there.
//!
//! Their slices do not become ours, as those of people do, but are deleted once ours hold the same: that
//! controller remembers its slices, and one that it misses without having seen its deletion keeps it from
//! ever publishing that Service again, should the selector be put back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    plan::meta::{ENDPOINTS_MANAGED_BY_LABEL, SLICE_MANAGED_BY_LABEL},
    pod::PodView,
    world::label,
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

/// Whether there is nothing of others but what the cluster's own controllers left. `endpoints` is the
/// Endpoints object, with whether it is ours.
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

/// The Pod with this uid, if it still is there and has not run to its end.
pub(super) fn living<'a>(pod: Option<&'a PodView>, uid: &str) -> Option<&'a PodView> {
    pod.filter(|pod| pod.uid == uid && !pod.terminal)
}
