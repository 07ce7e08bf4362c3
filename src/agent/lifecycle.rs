//! What every agent that beats does beside the beats: it serves its health and its metrics, and notifies systemd.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{
    console::Console,
    metrics::counts::AgentMetrics,
    server::Server,
    signals::{self, Signals, ended_by},
    supervisor::{Supervisor, control::WorkerState},
    systemd,
};

/// Serves the state and the metrics of the agent, and keeps systemd's watchdog, while the returned value is
/// kept.
pub(super) fn attend(
    servers: impl IntoIterator<Item = Server>,
    supervisor: &Supervisor,
    metrics: &Arc<AgentMetrics>,
) -> JoinSet<()> {
    let mut attending = JoinSet::new();
    for server in servers {
        attending.spawn(server.serve(supervisor.watch(), metrics.clone()));
    }
    attending.spawn(systemd::keep_watchdog());
    attending
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
