//! The commands that act once for one instance.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use beatkeeper_api::{duration, heartbeat::Health};
use beatkeeper_client::{
    OneShot,
    heartbeat_loop::{BeatOptions, HeartbeatLoop},
    lease::{HealthReport, Identity},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    arguments::InstanceArgs,
    connection::{connect, pod_name},
    console::Console,
    plan::GATEWAY_NAMES,
    settings::Settings,
};

/// Registers an instance with its first beat.
pub(super) async fn register(settings: Settings, limit: Duration) -> Result<ExitCode> {
    if settings.probes.is_some()
        || settings.health_bind_address.is_some()
        || settings.metrics_bind_address.is_some()
        || settings.on_stop.is_some()
        || settings.gateways.is_some()
        || settings.gateway_ca_file.is_some()
        || settings.gateway_token_file.is_some()
    {
        bail!(
            "register only registers: --probe, --on-stop, --health-bind-address, --metrics-bind-address, --gateway, \
             --gateway-ca-file and --gateway-token-file belong to agent run"
        );
    }
    let (connection, namespace) = connect()?;
    let identity = settings.identity(&namespace, pod_name().as_deref())?;
    let interval = Some(Duration::ZERO);
    let options = BeatOptions { interval, gateway_names: GATEWAY_NAMES, ..BeatOptions::default() };
    let (_words, heard) = watch::channel(HealthReport::default());
    let heartbeat_loop =
        HeartbeatLoop::new(connection, identity, options, heard, Console::new(false).report());
    let mut progress = heartbeat_loop.progress();
    let registered = async { progress.wait_for(|now| now.reported.is_some()).await.map(drop) };
    // When this process is registered, the loop is dropped, so the Lease stays for other programs.
    let registered = tokio::select! {
        _ = heartbeat_loop.run(CancellationToken::new()) => false,
        registered = timeout(limit, registered) => registered.is_ok_and(|told| told.is_ok()),
    };
    if !registered {
        bail!("not registered within {}", duration::format(limit));
    }
    Ok(ExitCode::SUCCESS)
}

/// Beats once.
pub(super) async fn heartbeat(args: InstanceArgs) -> Result<ExitCode> {
    let (instance, name) = args.one_shot().await?;
    instance.heartbeat().await?;
    done(&format!("{name} has beaten"))
}

/// Drains an instance.
pub(super) async fn drain(args: InstanceArgs, note: Option<String>) -> Result<ExitCode> {
    let (instance, name) = args.one_shot().await?;
    let draining = HealthReport { health: Health::Draining, note, provisional: false };
    instance.set_health(&draining).await?;
    done(&format!("{name} drains"))
}

/// Deregisters an instance.
pub(super) async fn deregister(args: InstanceArgs) -> Result<ExitCode> {
    let (instance, name) = args.one_shot().await?;
    let existed = instance.deregister().await?;
    done(&format!("{name} {}", if existed { "deregistered" } else { "was not registered" }))
}

fn done(line: &str) -> Result<ExitCode> {
    Console::new(false).print(line);
    Ok(ExitCode::SUCCESS)
}

impl InstanceArgs {
    /// Returns the instance, and its name for messages.
    async fn one_shot(self) -> Result<(OneShot, String)> {
        let (connection, namespace) = connect()?;
        let Self { registration, namespace: said, instance } = self;
        let settings = Settings {
            registration: Some(registration),
            namespace: said,
            instance,
            ..Settings::default()
        };
        let identity: Identity = settings.identity(&namespace, pod_name().as_deref())?;
        let name = format!("{}/{}", identity.namespace, identity.lease_name());
        Ok((OneShot::new(connection, identity), name))
    }
}
