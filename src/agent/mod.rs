//! The side that beats: `beatkeeper agent` keeps instances alive from the outside, for processes that do not
//! do it themselves.
//!
//! The engine is that of the SDK, [`beatkeeper_client::heart`]. What is set ([`settings`]) makes a [`plan`];
//! a [`crew`] carries it out, one [`member`] for each instance, which tells with its beats what its probes
//! ([`probe`]) find. [`command`] is the table of contents of the subcommands; [`exec`] wraps a process,
//! [`health`] and [`systemd`] tell whoever started us how far we are.

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
