//! The probe of this replica (L3).

mod lease;
pub(super) mod others;
pub(super) mod proofs;
pub(super) mod renewal;
