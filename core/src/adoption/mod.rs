//! The adoption of what others have published.

pub mod adopted;
pub mod found;
pub mod plan;
pub mod refusal;
pub mod scene;
pub mod verdicts;
