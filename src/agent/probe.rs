//! Probes: the agent checks whether a process can serve, the way the kubelet does.
//!
//! A probe is written with the kubelet's fields, or as a short text ([`spec`]). [`series`] decides, without
//! I/O, when the next probe is due and what follows from the outcomes. [`check`] runs one probe. [`run`] is
//! the loop around both. A process whose probe fails is still alive: a failing probe makes an instance
//! `Failing`, with the probe's message as its note. Only a dead instance stops beating.
//!
//! This module knows nothing of beats, so all code that probes a target, local or remote, can use it.

pub mod series;
pub mod spec;

mod connect;
mod exec;
mod failure;
mod fields;
mod grpc;
mod http;
mod outcome;
mod redirect;
mod short;
#[cfg(test)]
mod tests;
mod text;
mod tls;

use std::time::Duration;

use beatkeeper_client::{
    panics::catch_panic,
    suspend::{SuspendDetector, earlier},
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use failure::ProbeFailure;
pub use outcome::Outcome;
pub use series::{Series, Verdict};
pub use spec::{Check, Probe, Timing};

/// Runs one probe to its end, within `limit`. When this future is dropped, no connection and no process
/// remain.
pub async fn check(check: &Check, limit: Duration) -> Outcome {
    let answer = async {
        match check {
            Check::Http(http) => http::check(http).await,
            Check::Tcp(target) => connect::connect(target).await.map(|_| None),
            Check::Grpc(grpc) => grpc::check(grpc).await,
            Check::Exec(exec) => exec::check(exec).await,
        }
    };
    timeout(limit, answer).await.unwrap_or_else(|_| match check {
        Check::Exec(_) => Err(ProbeFailure::NotEnded(limit)),
        _ => Err(ProbeFailure::Unanswered(limit)),
    })
}

/// Probes until it is stopped or all receivers are gone, and sends each new verdict. It sends the first
/// verdict, that nothing is known yet, at once ([`Series`]). `observe` gets the outcome of each probe.
///
/// One probe runs at a time. The period counts from start to start. If a probe takes longer than the period,
/// the next one follows at once.
pub async fn run(
    probe: &Probe,
    verdicts: &watch::Sender<Verdict>,
    stop: &CancellationToken,
    observe: impl Fn(&Outcome),
) {
    let limit = probe.timing.timeout;
    run_by(probe, verdicts, stop, observe, || check(&probe.check, limit)).await;
}

async fn run_by<F: Future<Output = Outcome>>(
    probe: &Probe,
    verdicts: &watch::Sender<Verdict>,
    stop: &CancellationToken,
    observe: impl Fn(&Outcome),
    check: impl Fn() -> F,
) {
    let (mut began, mut clocks) = (Instant::now(), SuspendDetector::default());
    let mut series = Series::new(probe);
    tell(verdicts, series.verdict());
    let probing = async {
        loop {
            // A time beyond the range of the clock never comes.
            let lost = match began.checked_add(series.due()) {
                Some(due) => clocks.sleep_until(due).await,
                None => std::future::pending().await,
            };
            if let Some(lost) = lost {
                // A probe that was due while the machine was suspended is due now.
                began = earlier(began, lost.suspended);
                continue;
            }
            let started = began.elapsed();
            // A panic counts as a failure: otherwise the last verdict would stay for good.
            let outcome = catch_panic(async { check().await }).await;
            let outcome = outcome.unwrap_or_else(|panic| Err(panic.into()));
            observe(&outcome);
            series.record(started, outcome);
            tell(verdicts, series.verdict());
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = verdicts.closed() => {}
        () = probing => {}
    }
}

/// Sends a verdict, and wakes the receivers only if it has changed.
fn tell(verdicts: &watch::Sender<Verdict>, verdict: &Verdict) {
    verdicts.send_if_modified(|told| {
        let news = told != verdict;
        if news {
            verdict.clone_into(told);
        }
        news
    });
}
