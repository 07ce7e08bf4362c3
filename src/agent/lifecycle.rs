//! What every agent that beats does beside the beats: it serves its health, and notifies systemd.

use std::process::ExitCode;

use anyhow::Result;
use rustix::process::Signal;
use tokio_util::task::AbortOnDropHandle;

use super::{
    console::Console,
    health,
    signals::{self, Signals, ended_by},
    supervisor::{Supervisor, control::WorkerState},
    systemd,
};
use crate::bind_address::BindAddress;

/// Serves the state of the agent while the returned value is kept.
pub(super) async fn serve_health(
    address: &BindAddress,
    supervisor: &Supervisor,
) -> Result<tokio::task::JoinSet<()>> {
    let mut attending = tokio::task::JoinSet::new();
    if let BindAddress::At(address) = address {
        attending.spawn(health::serve(address, supervisor.watch()).await?);
    }
    attending.spawn(systemd::keep_watchdog());
    Ok(attending)
}

/// Tells systemd when each instance has had a beat accepted, while the returned value is kept.
pub(super) fn notify_when_ready(supervisor: &Supervisor) -> AbortOnDropHandle<()> {
    let ready = supervisor.all(WorkerState::Settled);
    AbortOnDropHandle::new(tokio::spawn(async {
        ready.await;
        systemd::ready();
    }))
}

pub(super) fn stopping(signal: Signal, console: &Console) {
    systemd::stopping();
    console.print(&format!("{}: stopping", signals::name(signal)));
}

/// Runs the end, unless a second signal asks to stop sooner. The Leases then stay, and the instances are
/// pruned when their ttl has passed.
pub(super) async fn unless_interrupted(
    end: impl Future<Output = Result<()>>,
    signals: &mut Signals,
) -> Result<ExitCode> {
    tokio::select! {
        ended = end => ended.map(|()| ExitCode::SUCCESS),
        signal = signals.end() => Ok(ended_by(signal.as_raw())),
    }
}
