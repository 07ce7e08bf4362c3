//! The decisions of Beatkeeper, without I/O, clocks or async. The inputs are observations and the present moment; the
//! outputs are decisions and a plan.
//!
//! The modules are in layers. A file imports only files that stand before it; no two files import each other.

/// Values and names that all layers use.
pub mod vocabulary;

/// What is read of each Kubernetes object.
pub mod objects;

/// When each instance was last seen to beat, and how much of the time since is proven (L1, L3, L4, L5, L8).
pub mod liveness;

/// What is known of the cluster apart from the heartbeats.
pub mod cluster_cache;

/// The inputs of the reconciliation of one registration.
pub mod inputs;

/// What is decided about each instance (L2, L6, L7).
pub mod decide;

/// Beats that gateways carry, and that never become a write (G1–G12).
pub mod carriers;

/// The adoption of what others have published (P6).
pub mod adoption;

/// The writes that publish what was decided (P3, P4).
pub mod plan;

/// What is reported of a decision that was carried out (P7).
pub mod report;

/// What this replica knows of one instance, for a person who asks.
pub mod explain;

/// What each replica of the operator decides about itself: whether it leads, works and may read what it needs.
pub mod replica;

#[cfg(test)]
mod tests;
