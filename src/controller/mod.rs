//! The shell around the core: it feeds it from the Kubernetes API and carries its plans out.
//!
//! [`run`] starts one watch of each kind, waits until all of them have been read once, and then
//! reconciles registration by registration ([`reconcile`]). Heartbeats do not reconcile: their watch
//! feeds the liveness index, and only what may change a decision wakes a registration.

mod apply;
mod calls;
mod clock;
mod context;
mod desk;
mod error;
mod establish;
mod metrics;
mod outage;
mod publish;
mod pulse;
mod reconcile;
mod run;
mod serve;
mod settings;
mod stage;
mod sweep;
mod verify;
mod watch;

pub use metrics::page as metrics_page;
pub use run::{RunError, run};
pub use serve::{BindAddress, BindError};
pub use settings::{Args, Settings};
