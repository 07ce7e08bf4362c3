//! A service that uses the SDK, to measure its cost: a process with one instance or with many.

use anyhow::{Context, Result};
use beatkeeper_client::Service;
use futures::{StreamExt, TryStreamExt, stream};
use kube::Config;
use tokio::signal::unix::{SignalKind, signal};

use crate::systems::control_plane::{NAMESPACE, address_of, name_of};

/// How many instances start or stop at a time.
const AT_A_TIME: usize = 16;

/// So many instances beat in the cluster of KUBECONFIG until SIGTERM, then deregister. Each instance is a service of
/// its own with a connection of its own, because the SDK is for processes with one instance.
///
/// # Errors
/// If an instance cannot register or deregister.
pub async fn beat(instances: u32) -> Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let config = Config::infer().await?;
    let start = |instance| {
        let service = Service::builder(name_of(0))
            .namespace(NAMESPACE)
            .pod("")
            .instance(format!("vm-{instance}"))
            .address(address_of(instance))
            .config(config.clone())
            .handle_signal(false)
            .build();
        async move { anyhow::Ok(service?.start().await?) }
    };
    let running: Vec<_> = stream::iter((0..instances).map(start))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
        .context("an instance cannot register")?;
    stop.recv().await;
    let stopping = stream::iter(running.into_iter().map(|running| running.stop()));
    stopping.buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
    Ok(())
}
