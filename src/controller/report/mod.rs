//! What the operator reports: statuses, events, and conditions of Pods.

pub(super) mod access;
pub(super) mod event_recorder;
pub(super) mod gates;
pub(super) mod pending;
pub(super) mod readiness;
pub(super) mod status;
pub(super) mod status_writer;
