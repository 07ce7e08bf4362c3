//! The core with many instances, for measuring it: the input of the index, the decisions and the plans.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod deaths;
pub mod hour;
pub mod instances;
pub mod service;
pub mod slices;
