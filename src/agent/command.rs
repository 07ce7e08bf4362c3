//! The command: flags and signals in, lines of text out.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::Args;
use super::event::{Event, Weight};
use super::heart::{Heart, Report};
use crate::kube_client;

/// The same trouble is told again after this long, not with every retry.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// Runs `beatkeeper agent` to its end.
///
/// # Errors
/// When it cannot start: unusable flags, no configuration for the API server. Once it runs, it keeps
/// trying whatever happens.
pub fn run(args: Args) -> Result<ExitCode> {
    // One thread suffices for one heart, and costs a sidecar the least.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(beat(args))
}

async fn beat(args: Args) -> Result<ExitCode> {
    // First of all: a signal that comes while we start must not kill us in the middle of something.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let config = kube::Config::infer().await.context(
        "found no way to the API server: set KUBECONFIG, or run in a Pod with a ServiceAccount token",
    )?;
    let pod_name = std::env::var("POD_NAME").ok();
    let identity = args.identity(&config.default_namespace, pod_name)?;
    let client = kube_client::connect(config, &kube_client::Options::of("agent"))?;
    let heart = Heart::new(client, identity, args.interval(), printer(args.verbose()));

    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(heart.run(stop.clone()));
    let name = tokio::select! {
        // Never happens while nobody has stopped it.
        outcome = &mut running => return finish(outcome),
        (name, _) = signals.next() => name,
    };
    print(&format!("{name}: stopping"));
    stop.cancel();
    tokio::select! {
        outcome = running => finish(outcome),
        // Whoever asks twice is in a hurry. The Lease then lives until its ttl is over.
        (_, number) = signals.next() => Ok(ExitCode::from(128 + number)),
    }
}

fn finish(outcome: Result<(), super::failure::Failure>) -> Result<ExitCode> {
    outcome.context("not deregistered, so the instance stays until its ttl is over")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints events; a trouble that only repeats itself, now and then.
fn printer(verbose: bool) -> Report {
    let told: Mutex<Option<(String, Instant)>> = Mutex::new(None);
    Arc::new(move |event| {
        if event.weight() == Weight::Detail && !verbose {
            return;
        }
        if let Event::Failed { failure, .. } | Event::NotReread(failure) = event {
            let text = failure.to_string();
            let Ok(mut told) = told.lock() else { return };
            let repeated =
                told.as_ref().is_some_and(|(last, at)| *last == text && at.elapsed() < TELL_AGAIN);
            if repeated && !verbose {
                return;
            }
            *told = Some((text, Instant::now()));
        }
        print(&event.to_string());
    })
}

/// Not println!, which panics when nobody reads any more: the heart beats on.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The signals that ask us to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The name and number of the next one.
    async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 15),
            _ = self.interrupt.recv() => ("SIGINT", 2),
            _ = self.quit.recv() => ("SIGQUIT", 3),
        }
    }
}
