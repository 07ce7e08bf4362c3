//! The Lease of the instance: its content, the patches of it, and what to do with one that already exists.

pub mod foreign_fields;
pub mod renew_times;
pub mod rival;

mod change;
mod create;
mod existing;
#[cfg(test)]
mod fixtures;
mod health_report;
mod identity;
mod patch;
mod version;

pub use change::{LeaseChange, lease_change};
pub use existing::{Existing, Occupant, Owner};
pub use health_report::HealthReport;
pub use identity::{Identity, Location};
pub use patch::{Beat, LeasePatch, SharedBeat};
pub use version::{LeaseVersion, renewed};
