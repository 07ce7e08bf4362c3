//! Traces of the reconciliations that prune, hold or fail, for an OpenTelemetry collector. Off unless asked for.
//!
//! A reconciliation notes its steps while it runs (`recording`). When it has ended, it is either forgotten, or made into
//! spans (`spans`) and put in a bounded queue (`queue`), from which a task of its own sends them (`collector`). So no
//! prune waits for a collector.

pub(super) mod args;
pub(super) mod collector;
pub(super) mod queue;
pub(super) mod recording;
mod spans;
