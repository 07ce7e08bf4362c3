//! Faults against the real control plane, with watchers who see every state of every slice: not one
//! living instance is missing at any moment (P1, P3), and nobody dead stays (P2).
//!
//! Each case is there twice: small, in the ordinary suite, and in full size for `make chaos`, which
//! prints the figures of docs/reliability.md.

mod api_server;
mod churn;
mod crashes;
mod etcd;
mod replicas;
mod suspended;
