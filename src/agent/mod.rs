//! The agent: `beatkeeper agent` beats for instances from the outside, on behalf of processes that do not do
//! so themselves.
//!
//! The agent uses the engine of the SDK, [`beatkeeper_client::heartbeat_loop`]. The settings ([`settings`]) make a
//! [`plan`]. A [`crew`] carries the plan out, with one [`member`] for each instance. The beats of a member
//! carry the results of its probes ([`probe`]). [`command`] lists the subcommands. [`exec`] wraps a process.
//! [`health`] and [`systemd`] report the progress to the program that started the agent.

pub mod command;
pub mod crew;
pub mod exec;
pub mod health;
pub mod member;
pub mod page;
pub mod plan;
pub mod probe;
pub mod probing;
pub mod reap;
mod revive;
pub mod run;
pub mod settings;
pub mod signals;
pub mod status;
pub mod systemd;
pub mod tell;

pub use command::{Command, run};
pub use page::page as reference_page;
