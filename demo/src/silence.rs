//! A second check of whether an instance was pruned early.

use std::time::Duration;

use anyhow::{Context, Result};
use beatkeeper_cluster::ControlPlane;

/// Returns the time from the arrival of an instance's last beat at the API server to the arrival of the last write
/// to the slices. Both times come from the API server's audit log.
///
/// The observer's clock starts when a beat reaches the observer, which may be late on a busy machine. The audit
/// log's two times come from one clock, and a late observer does not change them.
pub async fn silence(plane: &ControlPlane, instance: &str) -> Result<Duration> {
    let lease = format!("greeter.{instance}");
    let entries = plane.audit(|entry| entry.namespace == "shop" && entry.succeeded()).await?;
    let last = |resource: &str, name: Option<&str>| {
        let of = entries.iter().filter(|entry| {
            entry.resource == resource && name.is_none_or(|name| entry.name == name)
        });
        of.map(|entry| entry.time).max()
    };
    let beat = last("leases", Some(&lease)).context("the audit log has no beat")?;
    let prune = last("endpointslices", None).context("the audit log has no write of a slice")?;
    Ok(Duration::try_from(prune.duration_since(beat)).unwrap_or_default())
}
