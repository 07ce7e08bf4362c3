//! Garbage collection, beside the reconciliations.

pub(super) mod abandoned;
pub(super) mod leases;
pub(super) mod missing_leases;
