//! The plugin against a real control plane, with the operator and agents as they ship.
#![allow(clippy::unwrap_used)]

mod adopt;
mod bundle;
mod check;
mod console;
mod cordon;
mod diff;
mod drain;
mod get;
mod installed;
mod live;
mod loglevel;
mod packages;
mod policy;
mod rights;
mod shell;
mod stage;
mod terminal;
mod top;
mod why;
mod why_leader;
