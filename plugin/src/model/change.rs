//! What a watch brings.

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::vocabulary::key::Key;
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};

use super::{kind::Kind, lease::SeenLease};

/// An object that has appeared, changed or gone.
#[derive(Debug)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Object {
    Registration(Box<ServiceRegistration>),
    Lease(Box<SeenLease>),
    Pod(Box<Pod>),
    Slice(Box<EndpointSlice>),
    Service(Box<Service>),
    Endpoints(Box<Endpoints>),
}

/// A step of a watch.
#[derive(Debug)]
pub enum Change {
    /// A list of this kind begins.
    ListBegins(Kind),
    /// The list is complete: what it did not have is gone.
    ListEnds(Kind),
    /// An object of a list.
    Listed(Object),
    /// An object has appeared or changed.
    Changed(Object),
    /// An object is gone.
    Gone(Kind, Key),
    /// An object of this kind cannot be read.
    Unreadable {
        /// The object.
        what: String,
        /// Why.
        why: String,
    },
    /// The watch of this kind has failed, and starts again.
    Failed(Kind, String),
}
