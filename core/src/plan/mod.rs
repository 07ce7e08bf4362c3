//! Plans the writes that bring a Service's slices and Endpoints object to what was decided.
//!
//! [`plan`] compares what is to be published ([`Target`]) with what is published ([`Published`]). It returns the writes
//! that lead from one to the other. The writes keep three promises:
//!
//! * **No wanted endpoint disappears in between.** What is published and stays wanted is published after every
//!   single write. This holds for any order of the writes within one phase, and for any of them that fail.
//! * **No write is redundant.** A write that changes nothing is not planned, and a plan touches as few objects as
//!   possible, because every consumer of the Service on every node reads each changed object.
//! * **Removals do not wait for additions.** An instance that is no longer wanted is removed in the first phase.
//!   So an addition that the API server refuses, for example because of a quota, cannot keep it published. (The
//!   exception: a manual edit put a dead and a living address into one endpoint.)

use std::collections::HashSet;

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use super::endpoint::{Endpoint, Family};

mod draft;
mod listing;
pub mod meta;
mod pack;
mod read;
mod slices;
mod write;

#[cfg(test)]
mod tests;

pub(super) use read::{ports_of, says};
pub use write::{Plan, Tally, Write};

/// Default maximum number of endpoints in a slice. Kubernetes' own controller has the same default.
pub const DEFAULT_MAX_ENDPOINTS_PER_SLICE: usize = 100;
/// Maximum number of endpoints in a slice that the API server accepts.
pub const MAX_ENDPOINTS_PER_SLICE: usize = 1000;
/// Maximum number of addresses in an Endpoints object. Kubernetes' own controller has the same limit.
pub const MAX_ENDPOINTS_ADDRESSES: usize = 1000;

/// The ServiceRegistration that owns what is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Namespace of the registration, and of everything that it owns.
    pub namespace: String,
    /// Name of the registration.
    pub name: String,
    /// Uid of the registration.
    pub uid: String,
}

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

/// Returns the writes that make `published` match `target`. The plan is empty if they match already.
pub fn plan(target: &Target<'_>, published: Published<'_>) -> Plan {
    let max = target.max_endpoints_per_slice.clamp(1, MAX_ENDPOINTS_PER_SLICE);
    let Published { slices, endpoints } = published;
    let slices::Phases { mut first, second } = slices::plan(target, slices, max);
    first.extend(listing::plan(target, endpoints));
    let (first, second) = leave_closed(first, second, &target.closed);
    Plan { phases: [first, second].into_iter().filter(|phase| !phase.is_empty()).collect() }
}

/// Leaves out the writes to closed slices. If that removes a write of the first phase, the second phase is left out as
/// well, because it relies on the whole first phase.
fn leave_closed(
    mut first: Vec<Write>,
    mut second: Vec<Write>,
    closed: &HashSet<String>,
) -> (Vec<Write>, Vec<Write>) {
    let is_open = |write: &Write| write.slice_name().is_none_or(|name| !closed.contains(name));
    let all = first.len();
    first.retain(is_open);
    if first.len() < all {
        second.clear();
    }
    second.retain(is_open);
    (first, second)
}
