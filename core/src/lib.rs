//! The decisions of Beatkeeper, without I/O, clocks or async. The inputs are observations and the present moment; the
//! outputs are decisions and a plan.

pub mod access;
pub mod address;
pub mod adoption;
pub mod adoption_plan;
pub mod build_plan;
pub mod change_limits;
pub mod cluster_cache;
pub mod cordon;
pub mod decide;
pub mod decode;
pub mod depends;
pub mod dry_run;
pub mod endpoint;
pub mod endpoint_conflicts;
pub mod events;
pub mod evidence;
pub mod flapping;
pub mod frozen;
pub mod gates;
pub mod health;
pub mod heartbeat;
pub mod index;
pub mod inputs;
pub mod instance;
pub mod labels;
pub mod leader;
pub mod leftovers;
pub mod monotonic_time;
pub mod outage_guard;
pub mod plan;
pub mod pod;
pub mod preconditions;
pub mod probe_tracker;
pub mod proven_time;
pub mod published_addresses;
pub mod published_verdicts;
pub mod rate_limit;
pub mod refused_addresses;
pub mod registration;
pub mod rhythm;
pub mod rollback;
pub mod salvage;
pub mod server_message;
pub mod service;
pub mod silence_log;
pub mod snapshot;
pub mod status;
pub mod summary;
pub mod ttl;
pub mod verdict;
pub mod watch_stall;

mod judge;
mod min_ready;
mod placement;

#[cfg(test)]
mod tests;
