//! The plugin against a real control plane, with the operator and agents as they ship.
#![allow(clippy::unwrap_used)]

mod console;
mod get;
mod live;
mod rights;
mod shell;
mod stage;
mod why;
