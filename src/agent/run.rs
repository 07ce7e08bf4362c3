//! `run` and `proxy`: beat until stopped; reload when asked.

use std::{future::pending, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    arguments::BeatArgs,
    connection::{connect, open_gateway, pod_name},
    console::Console,
    lifecycle::{attend, notify_when_ready, stopping, unless_interrupted},
    metrics::counts::AgentMetrics,
    plan::{self, Environment, Plan},
    server::Server,
    settings::OnStop,
    signals::{ReceivedSignal, Signals},
    supervisor::{
        Changes, Supervisor,
        control::{OnFailure, WorkerState},
    },
    systemd,
};

/// A reload counts as done after this time, even if not every instance has beaten: until it is done,
/// `systemctl reload` cannot ask for another reload that corrects a mistake in the settings.
const RELOADED_WITHIN: Duration = Duration::from_secs(30);

/// What the agent beats for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Processes beside the agent.
    Local,
    /// Targets that cannot beat.
    Remote,
}

impl Kind {
    fn on_failure(self) -> OnFailure {
        match self {
            Self::Local => OnFailure::ReportFailing { started_here: false },
            Self::Remote => OnFailure::StopBeating,
        }
    }

    /// Makes the plan from the current flags, variables and file.
    fn plan(self, args: &BeatArgs, namespace: &str) -> Result<Plan> {
        let settings = plan::read(*args.settings.clone(), args.config.as_deref())?;
        let namespace = namespace.to_owned();
        match self {
            Self::Local => Plan::of(settings, &Environment { namespace, pod_name: pod_name() }),
            Self::Remote => Plan::for_targets(settings, namespace),
        }
    }

    /// Does the same on a thread that may block on a file, so that beats and signals do not wait.
    fn read(self, args: &BeatArgs, namespace: &str) -> Reading {
        let (args, namespace) = (args.clone(), namespace.to_owned());
        spawn_blocking(move || self.plan(&args, &namespace))
    }
}

type Reading = JoinHandle<Result<Plan>>;

async fn end_of(reading: &mut Option<Reading>) -> Result<Plan> {
    match reading {
        Some(reading) => reading.await?,
        None => pending().await,
    }
}

/// Beats until a signal ends it. SIGHUP reads the settings again. SIGUSR1 ends it, and leaves the Leases.
///
/// # Errors
/// It cannot start, or deregistering at its end failed.
pub(super) async fn run(args: BeatArgs, kind: Kind) -> Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let (mut connection, namespace) = connect()?;
    let mut plan = kind.plan(&args, &namespace)?;
    connection.gateway = open_gateway(&plan)?;
    let console = Console::new(args.verbose);
    // Before the first beat: an agent that ends here leaves no instance that beats only once.
    let servers = Server::listen(&plan).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (instances, metrics) = (std::mem::take(&mut plan.instances), Arc::new(AgentMetrics::new()));
    let mut supervisor =
        Supervisor::start(instances, kind.on_failure(), &connection, &metrics, &console);
    let _attending = attend(servers, &supervisor, &metrics);
    let (mut ready, mut is_started) = (notify_when_ready(&supervisor), false);
    let mut reading: Option<Reading> = None;
    let signal = loop {
        tokio::select! {
            heard = signals.next() => match heard {
                ReceivedSignal::End(signal) => break signal,
                ReceivedSignal::PassOn(Signal::USR1) => {
                    stopping(Signal::USR1, &console);
                    return Ok(leave(supervisor, &console).await);
                }
                ReceivedSignal::PassOn(Signal::HUP) => {
                    if reading.is_none() {
                        is_started |= ready.is_finished();
                        ready.abort();
                    }
                    systemd::reloading();
                    reading = Some(kind.read(&args, &namespace));
                }
                ReceivedSignal::PassOn(_) => {}
            },
            now = end_of(&mut reading) => {
                reading = None;
                plan = reload(&mut supervisor, plan, now, &args, &console).await;
                ready = match is_started {
                    true => notify_when_reloaded(&supervisor, &console),
                    false => notify_when_ready(&supervisor),
                };
            }
        }
    };
    stopping(signal, &console);
    if plan.on_stop == OnStop::Keep || kind == Kind::Remote {
        return Ok(leave(supervisor, &console).await);
    }
    let end = async {
        supervisor.drain(plan.drain_delay, &console).await;
        supervisor.stop().await
    };
    unless_interrupted(end, &mut signals).await
}

/// Tells systemd that a reload is done, while the returned value is kept.
fn notify_when_reloaded(supervisor: &Supervisor, console: &Console) -> AbortOnDropHandle<()> {
    let (beaten, console) = (supervisor.all(WorkerState::Settled), console.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        if timeout(RELOADED_WITHIN, beaten).await.is_err() {
            console.print("reloaded, but not every instance has had a beat accepted yet");
        }
        systemd::ready();
    }))
}

async fn leave(supervisor: Supervisor, console: &Console) -> ExitCode {
    console.print("the Leases stay: start again within ttl, or run beatkeeper agent deregister");
    supervisor.leave().await;
    ExitCode::SUCCESS
}

/// Continues with the current settings. Settings that cannot be used change nothing.
async fn reload(
    supervisor: &mut Supervisor,
    before: Plan,
    now: Result<Plan>,
    args: &BeatArgs,
    console: &Console,
) -> Plan {
    let mut now = match now {
        Ok(now) => now,
        Err(error) => {
            console.print_error("not reloaded, all stays as it was: ", &error);
            return before;
        }
    };
    if args.config.is_none() {
        console.print(
            "nothing to reload: flags and variables stay what they were at the start; settings that are to \
             be changed belong in the file that --config names",
        );
        return before;
    }
    for (key, now, before) in [
        ("healthBindAddress", &mut now.health_bind_address, &before.health_bind_address),
        ("metricsBindAddress", &mut now.metrics_bind_address, &before.metrics_bind_address),
    ] {
        if now != before {
            console.print(&format!(
                "{key} cannot be reloaded, and stays what it was: start again to change it"
            ));
            now.clone_from(before);
        }
    }
    if now.gateway != before.gateway {
        console.print(
            "gateways, gatewayCaFile and gatewayTokenFile cannot be reloaded, and stay what they were: start again to \
             change them",
        );
        now.gateway = before.gateway;
    }
    let Changes { added, changed, removed } =
        supervisor.reload(std::mem::take(&mut now.instances)).await;
    console.print(&format!("reloaded: {added} added, {changed} changed, {removed} removed"));
    now
}
