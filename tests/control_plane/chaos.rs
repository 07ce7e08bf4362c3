//! Faults on a real control plane, with watches that see every state of every slice. No living
//! instance is missing at any moment (P1, P3), and no dead one stays (P2).
//!
//! Each case exists twice: small in the ordinary suite, and in full size for `make chaos`, which
//! prints the figures of docs/reliability.md.

mod churn;
mod crashes;
mod replicas;
mod servers;
mod suspended;
