//! Leader election.

pub(super) mod args;
mod confirmation;
pub(super) mod election;
mod gateway_list;
pub(super) mod leadership;
mod lease;
mod lease_watch;
mod list_writes;
mod orders;
