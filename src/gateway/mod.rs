//! `beatkeeper gateway`: a process that takes beats over HTTP, so that they cost no write of a Lease (docs/adr/0031).
//!
//! The crate `beatkeeper_gateway` is the network. This module is what makes it a process of a cluster: flags, the
//! connection to the API server, the gateway's own Lease, and its end.

mod args;
mod cluster;
mod lease;
mod metrics;
mod place;
mod run;

pub use args::Args;
pub(crate) use metrics::section as metrics_section;
pub use run::{RunError, run};
