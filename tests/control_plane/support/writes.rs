//! The operator's writes, read from the API server's audit log.

use std::time::{Duration, Instant};

use beatkeeper_cluster::{AuditEntry, AuditMark};

use super::TestNamespace;

impl TestNamespace {
    /// The operator's writes in this namespace since a mark, except for its own Leases.
    pub async fn written_since(&self, mark: AuditMark) -> Vec<AuditEntry> {
        let mut entries = self.plane.audit_since(mark).await.unwrap();
        entries.retain(|entry| {
            entry.namespace == self.name
                && entry.user_agent.starts_with("beatkeeper-controller")
                && entry.resource != "leases"
        });
        entries
    }

    /// Waits until the operator has written nothing for `quiet`. Returns the position in the audit
    /// log.
    pub async fn settled(&self, quiet: Duration) -> AuditMark {
        let patience = Instant::now();
        let mut mark = self.plane.audit_mark().await.unwrap();
        let mut since = Instant::now();
        while since.elapsed() < quiet {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !self.written_since(mark).await.is_empty() {
                mark = self.plane.audit_mark().await.unwrap();
                since = Instant::now();
            }
            assert!(
                patience.elapsed() < super::namespace::PATIENCE,
                "the operator writes on and on"
            );
        }
        mark
    }
}
