//! The probe (L3).

pub(super) mod prover;
mod renewal;
