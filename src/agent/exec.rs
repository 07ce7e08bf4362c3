//! A command that is wrapped: it is alive as long as its process.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    pin::pin,
    process::{ExitCode, ExitStatus},
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
    command::{Beating, attend, prepare, say_when_ready, stopping},
    crew::Crew,
    member::OnFailure,
    plan::Plan,
    reap::{self, Ours},
    signals::{Heard, Signals, ended_by},
    tell::Teller,
};
use crate::bind_address::BindAddress;

/// A command does not wait for longer until it is clear how to beat for it.
const PREPARE_WITHIN: Duration = Duration::from_secs(2);
/// Between two tries, where that is not clear.
const PREPARE_AGAIN: Duration = Duration::from_secs(3);

/// A shell's words for a command that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs a command, whatever keeps us from beating for it, and beats for it as soon as nothing does.
///
/// # Errors
/// It cannot be waited for.
pub(super) async fn run(
    beating: Beating,
    command: Vec<OsString>,
    signals: &mut Signals,
    teller: &Teller,
) -> Result<ExitCode> {
    let mut prepared = prepare_soon(&beating, teller).await;
    // Before the first beat: a command that cannot be run is not to be published.
    let mut wrapped = match Wrapped::start(&command) {
        Ok(wrapped) => wrapped,
        Err(error) => {
            let program = command.first().map(|program| program.display().to_string());
            teller.say(&format!("cannot run {}: {error}", program.unwrap_or_default()));
            return Ok(cannot_start(&error));
        }
    };
    let mut later = pin!(prepare_later(&beating, teller));
    let mut wrap: Option<Beats> = None;
    // Once it is to end, no beat begins, and what else is asked for is for the command.
    let mut ending = false;
    let status = loop {
        if let Some((plan, connection)) = prepared.take() {
            wrap = Some(Beats::begin(plan, &connection, teller).await);
        }
        tokio::select! {
            status = wrapped.ended() => break status,
            ready = &mut later, if wrap.is_none() && !ending => prepared = Some(ready),
            heard = signals.next() => match heard {
                Heard::PassOn(signal) => wrapped.signal(signal),
                Heard::End(signal) if ending => wrapped.signal(signal),
                Heard::End(signal) => {
                    ending = true;
                    stopping(signal, teller);
                    let drain = Beats::drain(wrap.as_ref(), teller);
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
        // What became of the command is what counts to who called.
        stopped = Beats::stop(wrap) => if let Some(Err(error)) = stopped {
            teller.say(&format!("{error:#}"));
        },
        () = asked_twice(ending, signals) => {
            teller.say("a second signal: not deregistered, so the instance stays until its ttl is over");
        }
    }
    Ok(code)
}

/// Drains to the end, or until a second signal ends that early. The status of a command that ended by itself meanwhile.
async fn drained(
    drain: impl Future<Output = ()>,
    wrapped: &mut Wrapped,
    signals: &mut Signals,
) -> Option<io::Result<ExitStatus>> {
    let mut drain = pin!(drain);
    loop {
        tokio::select! {
            biased;
            status = wrapped.ended() => return Some(status),
            () = &mut drain => return None,
            heard = signals.next() => match heard {
                Heard::PassOn(signal) => wrapped.signal(signal),
                Heard::End(_) => return None,
            },
        }
    }
}

/// A service manager often signals the agent and the command at one moment: the command may have ended before the
/// first signal was read here.
async fn asked_twice(asked_before: bool, signals: &mut Signals) {
    if !asked_before {
        signals.end().await;
    }
    signals.end().await;
}

/// The beats for a command, once there is a way.
struct Beats {
    crew: Crew,
    delay: Duration,
    _attending: JoinSet<()>,
    _ready: AbortOnDropHandle<()>,
}

impl Beats {
    async fn begin(plan: Plan, connection: &Connection, teller: &Teller) -> Self {
        let on_failure = OnFailure::Tell { started_here: true };
        let crew = Crew::start(plan.members, on_failure, connection, teller);
        let attending = match attend(&plan.health_bind_address, &crew).await {
            Ok(attending) => attending,
            Err(error) => {
                teller.say(&format!("{error:#}; going on without it"));
                attend(&BindAddress::Off, &crew).await.unwrap_or_default()
            }
        };
        let _ready = say_when_ready(&crew);
        Self { crew, delay: plan.drain_delay, _attending: attending, _ready }
    }

    async fn drain(this: Option<&Self>, teller: &Teller) {
        if let Some(Self { crew, delay, .. }) = this {
            crew.drain(*delay, teller).await;
        }
    }

    async fn stop(this: Option<Self>) -> Option<Result<()>> {
        Some(this?.crew.stop().await)
    }
}

/// The same for a command that does not wait. None when it fails, which is reported, or takes too long.
async fn prepare_soon(beating: &Beating, teller: &Teller) -> Option<(Plan, Connection)> {
    match timeout(PREPARE_WITHIN, prepare_aside(beating)).await {
        Ok(Ok(prepared)) => Some(prepared),
        Ok(Err(error)) => {
            teller
                .say(&format!("not beating: {error:#}; the command runs, and this is tried again"));
            None
        }
        Err(_) => None,
    }
}

/// Tries until it succeeds. A failure is reported when it differs from the one before.
async fn prepare_later(beating: &Beating, teller: &Teller) -> (Plan, Connection) {
    let mut told = String::new();
    loop {
        sleep(PREPARE_AGAIN).await;
        match prepare_aside(beating).await {
            Ok(prepared) => return prepared,
            Err(error) => {
                let text = format!("still not beating: {error:#}");
                if text != told {
                    teller.say(&text);
                }
                told = text;
            }
        }
    }
}

/// On a thread that may wait for a file.
async fn prepare_aside(beating: &Beating) -> Result<(Plan, Connection)> {
    let beating = beating.clone();
    tokio::task::spawn_blocking(move || prepare(&beating)).await?
}

/// The process that runs.
pub struct Wrapped {
    child: Child,
    pid: Option<Pid>,
    _ours: Ours,
}

impl Wrapped {
    /// Starts a command, without a shell, on our own terminal.
    ///
    /// # Errors
    /// It cannot be started; [`cannot_start`] makes an exit code of it.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let [program, args @ ..] = command else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no command is given"));
        };
        let (child, ours) = reap::spawn(Command::new(program).args(args))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, pid, _ours: ours })
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends it a signal. One that has just ended gets none.
    pub fn signal(&self, signal: Signal) {
        // Until its end was waited for, nobody else can have this pid.
        if let Some(pid) = self.pid.filter(|_| self.child.id().is_some()) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The exit code of a command that never ran.
pub fn cannot_start(error: &io::Error) -> ExitCode {
    let missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN })
}

/// The exit code of a command, passed on as a shell does.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => ended_by(signal),
        (None, None) => ExitCode::FAILURE,
    }
}
