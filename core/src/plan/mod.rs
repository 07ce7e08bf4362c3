//! What to write, so that a Service's slices and Endpoints say what was decided.
//!
//! [`plan`] compares what is to be published ([`Target`]) with what is ([`Published`]) and returns
//! the writes that lead from one to the other. Three things are promised of them:
//!
//! * **Nobody blinks.** Whatever is published and stays wanted is published after every single
//!   write, in whichever order the writes of one phase arrive and whichever of them fail.
//! * **Nothing is written that changes nothing**, and what is written touches as few objects as can
//!   be: every consumer of the Service on every node reads each of them.
//! * **The dead do not wait for the living.** An instance that is no longer wanted leaves in the
//!   first phase, so an addition that the API server refuses, for a quota say, cannot keep it
//!   published. (The exception is somebody's edit that put a dead and a living address into one
//!   endpoint.)

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

/// Most endpoints in a slice by default, as upstream's controller has it.
pub const DEFAULT_MAX_ENDPOINTS_PER_SLICE: usize = 100;
/// Most endpoints that the API server accepts in a slice.
pub const MAX_ENDPOINTS_PER_SLICE: usize = 1000;
/// Most addresses in an Endpoints object, as upstream's controller has it.
pub const MAX_ENDPOINTS_ADDRESSES: usize = 1000;

/// The ServiceRegistration that owns what is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace, and that of everything it owns.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What the planner needs to know of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its name.
    pub name: String,
    /// Whether its clusterIP is None.
    pub headless: bool,
    /// Its ipFamilies, the primary one first. Endpoints of other families are not published.
    pub families: Vec<Family>,
}

/// What to do about the Endpoints object of the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointsMode {
    /// Keep one and keep it up to date.
    #[default]
    Publish,
    /// Have none; delete ours.
    Off,
    /// Neither write nor delete, as when the object of that name is somebody else's.
    LeaveAlone,
}

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Who owns what is published.
    pub owner: &'a Owner,
    /// The Service it is published for.
    pub service: &'a ServiceFacts,
    /// The endpoints. No two of them share an address, port name, number and protocol: among
    /// claimants the caller chooses.
    pub endpoints: Vec<Endpoint>,
    /// Most endpoints in a slice, 1 to [`MAX_ENDPOINTS_PER_SLICE`]; what lies outside is clamped.
    pub max_endpoints_per_slice: usize,
    /// The moment of the change that led here. Written beside whatever else is written, so that
    /// consumers can measure how long a change took to reach them; never a reason to write.
    pub trigger_time: Option<jiff::Timestamp>,
    /// What to do about the Endpoints object.
    pub endpoints_object: EndpointsMode,
    /// The names of slices that are not written now, since the API server refuses that: they stay as they
    /// are, and take no one in.
    pub closed: HashSet<String>,
}

/// What is published now.
#[derive(Debug, Clone)]
pub struct Published<'a> {
    /// Our slices of this Service, as the cache has them; nobody else's.
    pub slices: Vec<&'a EndpointSlice>,
    /// Our Endpoints object, if there is one. For somebody else's, pass
    /// [`EndpointsMode::LeaveAlone`].
    pub endpoints: Option<&'a Endpoints>,
}

/// The writes that make `published` say what `target` says; none when it does already.
pub fn plan(target: &Target<'_>, published: Published<'_>) -> Plan {
    let max = target.max_endpoints_per_slice.clamp(1, MAX_ENDPOINTS_PER_SLICE);
    let Published { slices, endpoints } = published;
    let slices::Phases { mut first, second } = slices::plan(target, slices, max);
    first.extend(listing::plan(target, endpoints));
    let (first, second) = leave_closed(first, second, &target.closed);
    Plan { phases: [first, second].into_iter().filter(|phase| !phase.is_empty()).collect() }
}

/// Leaves out the writes to closed slices, and then everything that relies on the first phase.
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
