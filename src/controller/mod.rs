//! The shell around the core. It reads from the Kubernetes API for the core, and it carries out the core's
//! plans.
//!
//! [`run()`] starts one watch of each kind and waits until each kind has been listed once. Then it reconciles one
//! registration at a time (`reconcile`). A heartbeat does not cause a reconciliation: the watch of the Leases
//! updates the liveness index, and only a change that may change a decision wakes a registration. With leader
//! election all replicas watch, and only the leader (`leader`) reconciles and writes.

mod access;
mod adopt;
mod anew;
mod announcer;
mod apply;
mod calls;
mod claim;
mod clock;
mod collect;
mod context;
mod cordon;
mod decision;
mod desk;
mod error;
mod establish;
mod forget;
mod host;
mod isolate;
mod leader;
mod metrics;
mod neighbourhood;
mod pauses;
mod probe;
mod publish;
mod pulse;
mod queue;
mod readiness;
mod reconcile;
mod rehearse;
mod replica;
mod run;
mod serve;
mod settings;
mod stage;
mod sweep;
mod unreadable;
mod verify;
mod watch;

pub use clock::Clock;
pub use host::{Host, Process, Supervisor};
pub use leader::{ElectionSettings, LeaderArgs};
pub use metrics::page as metrics_page;
pub use run::{RunError, run, run_on};
pub use serve::BindError;
pub use settings::{Args, Settings};
