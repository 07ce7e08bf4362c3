//! The metrics of the operator, for Prometheus.
//!
//! All metrics belong to one [`Metrics`](process::Metrics). Each is updated by one line of code at the place where the
//! event happens. By default no label grows with the number of registrations or instances.

pub(super) mod ages;
pub(super) mod groups;
mod known;
pub(super) mod page;
pub(super) mod process;
mod tally;
