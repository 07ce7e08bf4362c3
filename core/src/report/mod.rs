//! What is reported of a decision that was carried out.

pub mod applied;
pub mod conditions;
pub mod dry_run;
pub mod events;
pub mod flapping;
mod lasting;
pub mod published_verdicts;
pub mod readiness_gates;
pub mod reported_states;
pub mod status;
pub mod summary;
