//! Waits until a control plane can be used.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Credentials;
use crate::part::Part;
use crate::plane::ControlPlane;
use crate::supervisor::Order;

/// The timeout is long, since several control planes and a compiler may share two cores. The end of a process is
/// noticed at once.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until the process says that it is healthy. The wait also ends when a process in `watched` ends.
pub(crate) async fn healthy(plane: &ControlPlane, part: Part, watched: &[Part]) -> Result<()> {
    let client = plane.client(part, Credentials::Admin, "beatkeeper-cluster/ready")?;
    until(plane, part, watched, async || get(&client, part.health_path()).await.is_ok()).await
}

/// Waits until ServiceAccounts are created and custom resources can be declared.
pub(crate) async fn usable(plane: &ControlPlane) -> Result<()> {
    let client = plane.admin_client()?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    until(plane, Part::ControllerManager, &Part::ALL, async || {
        accounts.get("default").await.is_ok()
    })
    .await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    until(plane, Part::ApiServer, &Part::ALL, async || {
        crds.list(&ListParams::default()).await.is_ok()
    })
    .await
}

/// Returns the body at a path that is not a resource.
pub(crate) async fn get(client: &Client, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(client.request_text(request).await?)
}

async fn until(
    plane: &ControlPlane,
    part: Part,
    watched: &[Part],
    mut so: impl AsyncFnMut() -> bool,
) -> Result<()> {
    let by = Instant::now() + PATIENCE;
    while Instant::now() < by {
        // A server that hangs must not prevent us from noticing that another has ended.
        if timeout(Duration::from_secs(5), so()).await == Ok(true) {
            return Ok(());
        }
        for part in watched {
            let status = plane.order(*part, Order::Status).await?;
            if let (None, Some(ended)) = (status.pid, status.ended) {
                let tail = tail(&plane.log(*part));
                bail!("{} ended ({ended}) before it was ready {tail}", part.name());
            }
        }
        sleep(PAUSE).await;
    }
    let tail = tail(&plane.log(part));
    bail!("{} is not ready after {} s {tail}", part.name(), PATIENCE.as_secs())
}

/// Returns the end of a log, for an error message.
fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
    format!("\nthe last lines of {}:\n  {last}", log.display())
}
