//! Beats over HTTP: the contract of docs/heartbeat.md with another host name, and many beats in one request.

pub mod answer;
pub mod bodies;
pub mod body;
pub mod connection;
pub mod listener;
pub mod proofs;
pub mod rates;
pub mod refusal;
pub mod reply;
pub mod route;
