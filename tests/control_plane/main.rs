//! Tests against a real control plane, in one binary because they share one.
#![allow(clippy::unwrap_used)]

mod agent;
mod crd;
mod docs;
mod lag;
mod publishing;
mod story;
mod support;
