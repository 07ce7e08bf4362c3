//! A second opinion on whether somebody was pruned early.

use std::time::Duration;

use anyhow::{Context, Result};
use beatkeeper_cluster::ControlPlane;

/// From the arrival of an instance's last beat at the API server to that of the last write to the
/// slices, by the API server's audit log.
///
/// The observer's clock starts when a beat reaches the observer, which may be late on a busy
/// machine; these two moments are of one clock, and nobody who watches can be late for them.
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
