//! What the argument about an instance starts from.

use beatkeeper_api::explain::Explanation;
use jiff::Timestamp;

use crate::model::{instance::Instance, lease::SeenLease, registration::RegistrationView};

/// All that the argument starts from.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// The registration.
    pub view: &'a RegistrationView,
    /// The instance.
    pub instance: &'a Instance,
    /// Its Lease.
    pub lease: Option<&'a SeenLease>,
    /// What the leader knows of it, if it has said it.
    pub leader: Option<&'a Explanation>,
    /// The present time.
    pub now: Timestamp,
}
