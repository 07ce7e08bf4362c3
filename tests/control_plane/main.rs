//! Beatkeeper against a real control plane.

#![allow(clippy::unwrap_used)]

mod agent;
