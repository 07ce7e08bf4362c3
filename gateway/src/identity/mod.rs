//! Who beats (G7): a bearer token, verified by the published keys of the cluster or reviewed by the API server.
//!
//! This finds out who beats. Whether it may is the leader's decision (`beatkeeper_core::carriers::rights`).

pub mod api_server;
pub mod authenticator;
pub mod claims;
pub mod issuers;
pub mod keys;
pub mod ports;
