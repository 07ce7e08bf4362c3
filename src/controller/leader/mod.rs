//! Leader election.

pub(super) mod args;
pub(super) mod election;
pub(super) mod leadership;
mod lease_watch;
