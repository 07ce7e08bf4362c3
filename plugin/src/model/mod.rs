//! What is known of registrations, as plain values. Everything here is pure: objects and the time are arguments.

pub mod assemble;
pub mod beat;
pub mod change;
pub mod counts;
pub mod difference;
pub mod event;
pub mod finding;
pub mod findings;
pub mod gateway;
pub mod instance;
pub mod judge;
pub mod kind;
pub mod lease;
pub mod live;
pub mod load;
pub mod planned;
mod planned_ports;
pub mod publication;
pub mod registration;
pub mod removal;
pub mod store;
pub mod why;
