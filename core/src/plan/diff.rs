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

use super::{listing, slices};
use crate::plan::{
    target::{MAX_ENDPOINTS_PER_SLICE, Published, Target},
    write::{Plan, Write},
};

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
