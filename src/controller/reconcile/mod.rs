//! Reconciling one registration.

mod adoption;
mod apply;
mod cordons;
pub(super) mod decide;
mod dry_run;
mod ensure_service;
mod inputs;
mod isolate;
pub(super) mod pipeline;
pub(super) mod verify;
