//! Tests against a real control plane, in one binary because they share one.
#![allow(clippy::unwrap_used)]

mod agent;
mod chaos;
mod clocks;
mod crd;
mod docs;
mod events;
mod garbage;
mod lag;
mod ownership;
mod publishing;
mod reliability;
mod restart;
mod standing;
mod steady;
mod story;
mod support;
mod sweep;
