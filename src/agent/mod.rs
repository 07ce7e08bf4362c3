//! The side that beats: `beatkeeper agent` keeps one instance alive from the outside, for processes
//! that do not do it themselves.
//!
//! [`heart`] is the engine: it claims the instance's Lease, renews it, and gives it back. What it
//! decides lies in modules without I/O: when to beat ([`schedule`], [`clock`]), what to do with the
//! Lease that is already there ([`lease`]), what a failure means ([`failure`]). It tells what happens
//! as [`event`]s; [`command`] prints them, and knows the flags ([`args`]) and signals.

pub mod args;
pub mod clock;
pub mod command;
pub mod event;
pub mod failure;
pub mod heart;
pub mod lease;
pub mod schedule;

mod api;
pub(crate) mod hostname;

pub use args::Args;
pub use command::run;
pub use heart::Heart;
