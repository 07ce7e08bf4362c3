//! The main job of Beatkeeper, demonstrated and measured on a real control plane.

mod beats;
mod environment;
mod observer;
mod output;
mod playground;
mod report;
mod silence;
mod story;
mod table;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::environment::Environment;
use crate::output::Output;

/// Beatkeeper on a real Kubernetes control plane of its own.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The binary to show [default: `beatkeeper` beside this one].
    #[arg(long, value_name = "FILE", global = true)]
    beatkeeper: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Subcommand)]
enum Action {
    /// Tell the story and measure it; fails when something does not happen as it should.
    Play,
    /// Start the control plane and the operator to play with, until Ctrl-C.
    Cluster,
}

/// How a run ended that did not fail.
enum End {
    Done,
    Interrupted,
}

/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Everything is polled on `main`'s own thread, because the kernel ties the children's lives to this thread.
#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { beatkeeper, action } = Arguments::parse();
    match run(beatkeeper, action).await {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Interrupted) => match action {
            Action::Play => ExitCode::from(INTERRUPTED),
            // `cluster` is meant to end by Ctrl-C.
            Action::Cluster => ExitCode::SUCCESS,
        },
        Err(error) => {
            if !nobody_reads(&error) {
                let _ = writeln!(std::io::stderr(), "\nbeatkeeper-demo: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(beatkeeper: Option<PathBuf>, action: Action) -> Result<End> {
    let mut asked = std::pin::pin!(asked_to_end()?);
    let beatkeeper = match beatkeeper {
        Some(file) => file,
        None => std::env::current_exe()
            .context("cannot tell where this program lies; say --beatkeeper FILE")?
            .with_file_name("beatkeeper"),
    };
    let began = Instant::now();
    let mut environment = tokio::select! {
        environment = Environment::start(beatkeeper) => environment?,
        () = &mut asked => return Ok(End::Interrupted),
    };
    let result = tokio::select! {
        result = act(action, &mut environment, began.elapsed()) => result.map(|()| End::Done),
        () = &mut asked => Ok(End::Interrupted),
    };
    if let Err(error) = &result
        && !nobody_reads(error)
    {
        let _ = writeln!(std::io::stderr(), "{}", environment.log_tails());
    }
    // An error of the story is more informative than an error while it is taken down, so it is reported first.
    let stopped = environment.stop().await;
    let end = result?;
    if matches!(end, End::Interrupted) {
        let _ = writeln!(std::io::stderr(), "\nstopped, and everything with it");
    }
    stopped.context("something did not end in good order")?;
    Ok(end)
}

async fn act(action: Action, environment: &mut Environment, ready_after: Duration) -> Result<()> {
    let mut out = Output::new();
    match action {
        Action::Play => story::tell(environment, &mut out, ready_after).await,
        Action::Cluster => playground::open(environment, &out).await,
    }
}

/// Resolves at Ctrl-C, at a TERM, or at the end of the terminal.
fn asked_to_end() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Whether a pipe was closed. That is no failure to report.
fn nobody_reads(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == ErrorKind::BrokenPipe)
}
