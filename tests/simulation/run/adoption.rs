//! The store goes back in the middle of an adoption.

use super::Run;
use crate::fault;

/// How long the API server is away, in milliseconds. No store can be restored within half a second.
const DOWN: u64 = 600;

impl Run {
    /// Stops the API server when the operator has written this often, and restores the state before the adoption. If
    /// the operator writes less, the store does not go back.
    pub(super) async fn lose_adoption(&self, at_write: u64, ttl: u64) {
        let backup = self.network.server.store.borrow().back_up();
        let written = || {
            let writes = self.network.writes_of_operators();
            writes.addresses + writes.reports
        };
        let end = self.executor.now() + ttl;
        while written() < at_write && self.executor.now() < end {
            self.advance(1).await;
        }
        if written() >= at_write {
            self.network.stop_for_a_restore();
            self.advance(DOWN).await;
            fault::put_back(&self.rc(), backup, false, false);
        }
        self.advance(ttl).await;
        self.calm_down().await;
    }
}
