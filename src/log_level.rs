//! The log level of a running operator. SIGUSR1 makes the operator log what it does in detail, SIGUSR2 as it was told to
//! at its start. A signal needs no port and no right of the operator: a user who may send one may also end the process.

use std::{fs, io};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{self, SignalKind, signal};

use crate::logging::Filter;

/// What is logged after SIGUSR1.
const DETAILED: &str = "info,beatkeeper=debug";

/// The arguments of `beatkeeper log-level`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How much the operator is to log.
    level: Level,
    /// The process of the operator: 1 in its container.
    #[arg(long, value_name = "PID", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
}

/// How much an operator logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// What it does, in detail.
    Debug,
    /// What RUST_LOG selected when it was started.
    Configured,
}

impl Level {
    fn signal(self) -> Signal {
        match self {
            Self::Debug => Signal::USR1,
            Self::Configured => Signal::USR2,
        }
    }
}

/// Tells a running operator how much to log.
///
/// # Errors
/// The process is not an operator, or belongs to another user.
pub(crate) fn change(args: &Args) -> anyhow::Result<()> {
    let Args { level, pid } = *args;
    // An agent ends at SIGUSR1, and so does a program that does not handle it.
    let command_line = fs::read(format!("/proc/{pid}/cmdline"))
        .with_context(|| format!("cannot look at process {pid}"))?;
    let subcommand = command_line.split(|byte| *byte == 0).nth(1);
    if !matches!(subcommand, Some(b"controller" | b"gateway")) {
        bail!(
            "process {pid} is neither `beatkeeper controller` nor `beatkeeper gateway`; name its process with --pid"
        );
    }
    let process = Pid::from_raw(pid).context("a process has a positive number")?;
    kill_process(process, level.signal())
        .with_context(|| format!("cannot send a signal to process {pid}"))
}

/// The signals that change the log level.
pub(crate) struct Signals {
    debug: unix::Signal,
    configured: unix::Signal,
}

impl Signals {
    /// Begins to listen. From then on these signals do not end the process.
    pub(crate) fn listen() -> io::Result<Self> {
        let listen = |level: Level| signal(SignalKind::from_raw(level.signal().as_raw()));
        Ok(Self { debug: listen(Level::Debug)?, configured: listen(Level::Configured)? })
    }

    /// Changes the filter at each signal, for ever.
    pub(crate) async fn follow(mut self, filter: Filter) {
        loop {
            let level = tokio::select! {
                _ = self.debug.recv() => Level::Debug,
                _ = self.configured.recv() => Level::Configured,
            };
            filter.select(match level {
                Level::Debug => Some(DETAILED),
                Level::Configured => None,
            });
            tracing::info!(?level, "the log level was changed by a signal");
        }
    }
}
