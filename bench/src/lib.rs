//! Crowds of instances for measuring the core: the input of the index, the decisions and the plans.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crowd;
pub mod hour;
pub mod memory;
pub mod scene;
