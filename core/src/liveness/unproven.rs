//! Why time is not proven (L3).

use crate::{
    liveness::rollback::RollbackSign,
    vocabulary::{failure::Failure, key::Key},
};

/// Why no renewal of the probe has proven the time that a decision needs. Then no instance may be pruned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The API server did not confirm the renewal.
    #[error(transparent)]
    NotRenewed(#[from] Failure),
    /// The API server confirmed the renewal of this Lease, but the watch does not show it.
    #[error("Lease {0} was renewed, but the watch of Leases does not bring it back")]
    NotShown(Key),
    /// The store has gone back, so earlier renewals prove nothing.
    #[error("the store went back to an earlier state: {0}")]
    RolledBack(#[from] RollbackSign),
    /// No renewal has failed, but none has come back in time either.
    #[error("it takes too long")]
    TooSlow,
}
