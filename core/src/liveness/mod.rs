//! When each instance was last seen to beat, and how much of the time since is proven.

pub mod index;
pub mod outage_guard;
pub mod probe_tracker;
pub mod proven_time;
pub mod rhythm;
pub mod rollback;
pub mod silence_log;
pub mod ttl;
pub mod unproven;
