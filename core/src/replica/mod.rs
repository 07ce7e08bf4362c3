//! What each replica of the operator decides about itself.

pub mod access;
pub mod health;
pub mod leader;
pub mod watch_stall;
