//! What names a carried beat in the index.

use super::store::Slot;

/// The record of a Lease, for as long as the Lease and its owner are the same (G6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    pub(super) slot: Slot,
    pub(super) owner: u64,
}

/// How a beat was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Right now.
    Fresh,
    /// The gateway took it at an unknown moment since this replica last heard from it, or before this replica knew it.
    Late,
}
