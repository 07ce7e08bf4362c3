//! Crowds of instances for measuring the core: what the index, the decisions and the plans are fed with.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crowd;
pub mod hour;
pub mod memory;
pub mod scene;
