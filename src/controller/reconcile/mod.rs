//! Reconciling one registration: inputs, decide, verify, plan, apply, report.

pub(super) mod adoption;
pub(super) mod apply;
pub(super) mod cordons;
pub(super) mod decide;
pub(super) mod ensure_service;
mod error;
mod fence;
mod gathering;
pub(super) mod inputs;
mod judge;
mod known;
pub(super) mod pipeline;
pub(super) mod plan;
pub(super) mod refused_addresses;
pub(super) mod report;
mod subject;
pub(super) mod takeovers;
pub(super) mod verify;
pub(super) mod warm_up;
mod write;
