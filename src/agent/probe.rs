//! Probes: the agent asks a process whether it can serve, the way the kubelet does.
//!
//! A probe is written with the kubelet's fields, or as a short text ([`spec`]). [`series`] decides,
//! without I/O, when the next one is due and what follows from the outcomes; [`check`] runs one; and
//! [`run`] is the loop around both. What fails is alive all the same: a failing probe makes an
//! instance `Failing` with the probe's message as its note, and silence is kept for death.
//!
//! Nothing here knows of beats, so whatever probes a target, local or remote, can use it.

pub mod series;
pub mod spec;

mod connect;
mod exec;
mod fields;
mod grpc;
mod http;
mod redirect;
mod short;
#[cfg(test)]
mod tests;
mod text;
mod tls;

use std::time::Duration;

use beatkeeper_api::duration;
use beatkeeper_client::{
    awake::{Awake, earlier},
    panics::caught,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use series::{Series, Verdict};
pub use spec::{Check, Probe, Timing};

/// How one probe ended: in success, perhaps with something that a person should look at, or in a
/// failure, with the reason.
pub type Outcome = Result<Option<String>, String>;

/// What servers read of us in their logs.
const USER_AGENT: &str = concat!("beatkeeper-agent/", env!("CARGO_PKG_VERSION"));

/// Runs one probe to its end, which comes within `limit`. When dropped, it leaves nothing behind: no
/// connection and no process.
pub async fn check(check: &Check, limit: Duration) -> Outcome {
    let answer = async {
        match check {
            Check::Http(http) => http::check(http).await,
            Check::Tcp(target) => connect::connect(target).await.map(|_| None),
            Check::Grpc(grpc) => grpc::check(grpc).await,
            Check::Exec(exec) => exec::check(exec).await,
        }
    };
    timeout(limit, answer).await.unwrap_or_else(|_| {
        let what = if matches!(check, Check::Exec(_)) { "not ended" } else { "no answer" };
        Err(format!("{what} within {}", duration::format(limit)))
    })
}

/// Probes until it is stopped, or nobody listens any more, and sends each new verdict; the first one,
/// that nothing is known yet, at once ([`Series`]).
///
/// One probe at a time, a period from start to start. One that takes longer than the period is followed
/// by the next at once.
pub async fn run(probe: &Probe, verdicts: &watch::Sender<Verdict>, stop: &CancellationToken) {
    let limit = probe.timing.timeout;
    run_by(probe, verdicts, stop, || check(&probe.check, limit)).await;
}

async fn run_by<F: Future<Output = Outcome>>(
    probe: &Probe,
    verdicts: &watch::Sender<Verdict>,
    stop: &CancellationToken,
    check: impl Fn() -> F,
) {
    let (mut began, mut awake) = (Instant::now(), Awake::default());
    let mut series = Series::new(probe);
    tell(verdicts, series.verdict());
    let probing = async {
        loop {
            // A time that no clock can hold never comes.
            let lost = match began.checked_add(series.due()) {
                Some(due) => awake.sleep_until(due).await,
                None => std::future::pending().await,
            };
            if let Some(lost) = lost {
                // What was due while the machine was suspended is due now.
                began = earlier(began, lost.suspended);
                continue;
            }
            let started = began.elapsed();
            // A probe that panics would leave its last verdict standing for good.
            let outcome = caught(async { check().await }).await;
            let outcome = outcome.unwrap_or_else(|panic| Err(panic.to_string()));
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

/// Wakes nobody for what they know.
fn tell(verdicts: &watch::Sender<Verdict>, verdict: &Verdict) {
    verdicts.send_if_modified(|told| {
        let news = told != verdict;
        if news {
            verdict.clone_into(told);
        }
        news
    });
}
