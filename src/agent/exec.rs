//! A wrapped command: its instance is alive as long as its process.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    pin::pin,
    process::{ExitCode, ExitStatus},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use beatkeeper_client::Connection;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    arguments::BeatArgs,
    connection::prepare,
    console::Console,
    lifecycle::{attend, notify_when_ready, stopping},
    metrics::counts::AgentMetrics,
    plan::Plan,
    reap::{self, Ours},
    server::{ListenError, Server},
    signals::{ReceivedSignal, Signals, ended_by},
    supervisor::{Supervisor, control::OnFailure},
};

/// The longest time that the start of a command waits for the agent's settings and configuration.
const PREPARE_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two tries to read the settings and the configuration.
const PREPARE_AGAIN: Duration = Duration::from_secs(3);

/// The exit codes of a shell for a command that cannot be run, and for one that does not exist.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs a command, even if the agent cannot beat for it yet, and beats for it as soon as the agent can.
///
/// # Errors
/// The command cannot be waited for.
pub(super) async fn run(args: BeatArgs, command: Vec<OsString>) -> Result<ExitCode> {
    let signals = &mut Signals::listen().context("cannot listen for signals")?;
    let console = &Console::new(args.verbose);
    let mut prepared = prepare_soon(&args, console).await;
    // The command starts before the first beat: a command that cannot be run must not be published.
    let mut wrapped = match WrappedCommand::start(&command) {
        Ok(wrapped) => wrapped,
        Err(error) => {
            let program = command.first().map(|program| program.display().to_string());
            console.print(&format!("cannot run {}: {error}", program.unwrap_or_default()));
            return Ok(cannot_start(&error));
        }
    };
    let mut later = pin!(prepare_later(&args, console));
    let mut wrap: Option<Beats> = None;
    // After the first request to end, no beat begins. All other signals are passed on to the command.
    let mut ending = false;
    let status = loop {
        if let Some((plan, connection)) = prepared.take() {
            wrap = Some(Beats::begin(plan, &connection, console).await);
        }
        tokio::select! {
            status = wrapped.ended() => break status,
            ready = &mut later, if wrap.is_none() && !ending => prepared = Some(ready),
            heard = signals.next() => match heard {
                ReceivedSignal::PassOn(signal) => wrapped.signal(signal),
                ReceivedSignal::End(signal) if ending => wrapped.signal(signal),
                ReceivedSignal::End(signal) => {
                    ending = true;
                    stopping(signal, console);
                    let drain = Beats::drain(wrap.as_ref(), console);
                    if let Some(status) = drained(drain, &mut wrapped, signals).await {
                        break status;
                    }
                    wrapped.signal(signal);
                }
            },
        }
    };
    let code = exit_code(status.context("cannot wait for the command")?);
    tokio::select! {
        // The exit code of the command is what counts for the caller.
        stopped = Beats::stop(wrap) => if let Some(Err(error)) = stopped {
            console.print(&format!("{error:#}"));
        },
        () = asked_twice(ending, signals) => {
            console.print("a second signal: not deregistered, so the instance stays until its ttl is over");
        }
    }
    Ok(code)
}

/// Drains to the end, or until a second signal ends the drain early. Returns the status of a command that has
/// ended by itself meanwhile.
async fn drained(
    drain: impl Future<Output = ()>,
    wrapped: &mut WrappedCommand,
    signals: &mut Signals,
) -> Option<io::Result<ExitStatus>> {
    let mut drain = pin!(drain);
    loop {
        tokio::select! {
            biased;
            status = wrapped.ended() => return Some(status),
            () = &mut drain => return None,
            heard = signals.next() => match heard {
                ReceivedSignal::PassOn(signal) => wrapped.signal(signal),
                ReceivedSignal::End(_) => return None,
            },
        }
    }
}

/// Waits for a second signal. A service manager often signals the agent and the command at one moment, so the
/// command may have ended before the agent has read the first signal.
async fn asked_twice(asked_before: bool, signals: &mut Signals) {
    if !asked_before {
        signals.end().await;
    }
    signals.end().await;
}

/// The beats for a command, once the agent can beat.
struct Beats {
    supervisor: Supervisor,
    delay: Duration,
    _attending: JoinSet<()>,
    _ready: AbortOnDropHandle<()>,
}

impl Beats {
    async fn begin(plan: Plan, connection: &Connection, console: &Console) -> Self {
        let on_failure = OnFailure::ReportFailing { started_here: true };
        let metrics = Arc::new(AgentMetrics::new());
        let listening = Server::listen(&plan).await;
        let supervisor =
            Supervisor::start(plan.instances, on_failure, connection, &metrics, console);
        let servers = listening.into_iter().filter_map(|server| {
            let complain =
                |error: &ListenError| console.print(&format!("{error}; going on without it"));
            server.inspect_err(complain).ok()
        });
        let attending = attend(servers, &supervisor, &metrics);
        let _ready = notify_when_ready(&supervisor);
        Self { supervisor, delay: plan.drain_delay, _attending: attending, _ready }
    }

    async fn drain(this: Option<&Self>, console: &Console) {
        if let Some(Self { supervisor, delay, .. }) = this {
            supervisor.drain(*delay, console).await;
        }
    }

    async fn stop(this: Option<Self>) -> Option<Result<()>> {
        Some(this?.supervisor.stop().await)
    }
}

/// Prepares for a command that does not wait for long. Returns `None` if this takes too long or fails; a
/// failure is reported.
async fn prepare_soon(args: &BeatArgs, console: &Console) -> Option<(Plan, Connection)> {
    match timeout(PREPARE_WITHIN, prepare_aside(args)).await {
        Ok(Ok(prepared)) => Some(prepared),
        Ok(Err(error)) => {
            console.print(&format!(
                "not beating: {error:#}; the command runs, and this is tried again"
            ));
            None
        }
        Err(_) => None,
    }
}

/// Retries until it succeeds. A failure is reported if it differs from the one before.
async fn prepare_later(args: &BeatArgs, console: &Console) -> (Plan, Connection) {
    let mut told = String::new();
    loop {
        sleep(PREPARE_AGAIN).await;
        match prepare_aside(args).await {
            Ok(prepared) => return prepared,
            Err(error) => {
                let text = format!("still not beating: {error:#}");
                if text != told {
                    console.print(&text);
                }
                told = text;
            }
        }
    }
}

/// Prepares on a thread that may block on a file.
async fn prepare_aside(args: &BeatArgs) -> Result<(Plan, Connection)> {
    let args = args.clone();
    tokio::task::spawn_blocking(move || prepare(&args)).await?
}

/// The process of the command.
pub struct WrappedCommand {
    child: Child,
    pid: Option<Pid>,
    _ours: Ours,
}

impl WrappedCommand {
    /// Starts a command, without a shell, on the agent's own terminal.
    ///
    /// # Errors
    /// The command cannot be started; [`cannot_start`] maps the error to an exit code.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let [program, args @ ..] = command else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no command is given"));
        };
        let (child, ours) = reap::spawn(Command::new(program).args(args))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, pid, _ours: ours })
    }

    /// Waits until the process ends.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal to the process. A process that has just ended gets none.
    pub fn signal(&self, signal: Signal) {
        // Before the process has been waited for, no other process can have this pid.
        if let Some(pid) = self.pid.filter(|_| self.child.id().is_some()) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The exit code for a command that never ran.
pub fn cannot_start(error: &io::Error) -> ExitCode {
    let missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN })
}

/// The exit code for the status of a command, as a shell passes it on.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => ended_by(signal),
        (None, None) => ExitCode::FAILURE,
    }
}
