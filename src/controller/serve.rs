//! Serves the health and the metrics of the operator over HTTP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::RawQuery, http::StatusCode, response::IntoResponse, routing::get};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bind_address::BindAddress;
use crate::controller::{
    clock::Clock,
    host::Process,
    metrics::process::Metrics,
    settings::Settings,
    telemetry::{SharedHealth, Telemetry},
};
use crate::metrics::exposition;
use beatkeeper_core::replica::health::Report;

/// How often the timers are checked.
const TICK: Duration = Duration::from_secs(1);

/// The operator cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, as --{flag} asks: {cause}")]
pub struct BindError {
    flag: &'static str,
    address: String,
    cause: std::io::Error,
}

/// Listens on the addresses of the settings until `stop` is cancelled. Dropping the returned value stops the
/// servers.
///
/// # Errors
/// [`BindError`].
pub(crate) async fn start(
    settings: &Settings,
    process: &Process,
    telemetry: &Telemetry,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, BindError> {
    let Telemetry { clock, metrics, health } = telemetry;
    let mut tasks = JoinSet::new();
    tasks.spawn(process.task(tick(*clock, health.clone())));
    let probes = probes(*clock, health.clone());
    let scrapes = scrapes(metrics.clone());
    let (probe_address, metrics_address) =
        (&settings.health_probe_bind_address, &settings.metrics_bind_address);
    let all = if probe_address == metrics_address {
        vec![("health-probe-bind-address", probe_address, probes.merge(scrapes))]
    } else {
        vec![
            ("health-probe-bind-address", probe_address, probes),
            ("metrics-bind-address", metrics_address, scrapes),
        ]
    };
    for (flag, address, router) in all {
        let BindAddress::At(address) = address else { continue };
        let failed = |cause| BindError { flag, address: address.clone(), cause };
        let listener = BindAddress::listen(address).await.map_err(failed)?;
        let bound: SocketAddr = listener.local_addr().map_err(failed)?;
        tracing::info!(flag, %bound, "listening");
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(flag, %error, "no longer listening");
            }
        });
    }
    Ok(tasks)
}

/// Reports that timers fire. Without timers no deadline would be noticed.
async fn tick(clock: Clock, health: SharedHealth) {
    let mut ticker = tokio::time::interval(TICK);
    loop {
        ticker.tick().await;
        health.lock().ticked(clock.now());
    }
}

fn probes(clock: Clock, health: SharedHealth) -> Router {
    let same = health.clone();
    let live = move |query| async move { answer(&health.lock().live(clock.now()), query) };
    let ready = move |query| async move { answer(&same.lock().ready(clock.now()), query) };
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

fn answer(report: &Report, RawQuery(query): RawQuery) -> impl IntoResponse + use<> {
    let verbose = query.is_some_and(|query| {
        query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="))
    });
    let code = if report.is_well() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (code, report.text(verbose))
}

fn scrapes(all: Arc<Metrics>) -> Router {
    exposition::routes(move || all.text())
}
