//! The agent: `beatkeeper agent` beats for instances from the outside, on behalf of processes that do not do
//! so themselves.
//!
//! The agent uses the [heartbeat loop](beatkeeper_client::heartbeat_loop) of the SDK. The settings
//! ([`settings`]) make a [`plan`]. A [`supervisor`] executes the plan, with one worker for each instance. The
//! beats of a worker carry the results of its probes ([`probe`]). [`command`] lists the subcommands. [`exec`]
//! wraps a process. [`health`] and [`systemd`] report the progress to the program that started the agent, and
//! [`metrics`] to Prometheus.

pub mod command;
pub mod console;
pub mod exec;
pub mod health;
pub mod metrics;
pub mod plan;
pub mod probe;
pub mod reap;
pub mod reference;
pub mod run;
pub mod settings;
pub mod signals;
pub mod status;
pub mod supervisor;
pub mod systemd;

mod arguments;
mod connection;
mod lifecycle;
mod one_shot;
mod server;

pub use command::{Command, run_command as run};
pub(crate) use metrics::page::section as metrics_section;
pub use reference::page as reference_page;
