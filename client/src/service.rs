//! One instance of a service, from its description to its stop.

mod background;
mod builder;
mod check;
mod hooks;
mod reporter;
mod runner;
mod running;
mod signals;
mod start;

pub use builder::{Builder, INTERVAL_VARIABLE, TTL_VARIABLE};
pub use reporter::Stats;
pub use running::Running;
pub use start::Service;
