//! Gateways: the streams to them, what they carry, and what their silence says (docs/adr/0031, docs/adr/0036).
//!
//! Each scope has a [`state::CarrierState`] beside its index. One task owns the streams ([`task`]): it takes frames in,
//! and does what follows. Decisions ask the state ([`findings`]), and the verify step asks gateways for proofs
//! ([`proving`]).

pub mod args;
pub(crate) mod discovery;
pub(crate) mod findings;
pub(crate) mod judge;
mod judging;
pub(crate) mod network;
pub mod port;
pub(crate) mod proving;
pub(crate) mod state;
pub(crate) mod task;
pub(crate) mod term;
