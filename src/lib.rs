//! Beatkeeper: an operator that publishes what beats as the endpoints of a Kubernetes Service, and
//! prunes what stops.
//!
//! `beatkeeper-core` decides, and has no I/O, no clock and no async. [`controller`] feeds it from the
//! Kubernetes API and carries its decisions out; [`agent`] is the other side, that which beats.

pub mod agent;
pub mod bind_address;
pub mod controller;
pub mod gateway;
pub mod kube_client;
pub mod metrics;
pub mod output;
