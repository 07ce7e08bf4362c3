//! A gateway as it ships, with real sockets on loopback: instances on one side, and on the other a leader that is made of the
//! state machine of the core and of the dialer that ships.
#![allow(clippy::unwrap_used)]

mod batches;
mod contract;
mod drain;
mod limits;
mod proofs;
mod protocol;
mod refusals;
mod streams;
mod support;
mod tokens;
