//! Serves the health and the metrics of the operator over HTTP, and listens for those that ask about instances.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::RawQuery,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::get,
};
use kube::Client;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::bind_address::BindAddress;
use crate::controller::{
    clock::Clock,
    explain::server::ExplainServer,
    host::Process,
    metrics::process::Metrics,
    secure::{
        certificate::{Certificate, CertificateError},
        guard::{Access, Guard},
        review::{ApiServer, Reviewer},
        server,
    },
    settings::{SecureMetrics, Settings},
    telemetry::{SharedHealth, Telemetry},
};
use crate::metrics::exposition;
use beatkeeper_core::replica::health::Report;

/// How often the timers are checked.
const TICK: Duration = Duration::from_secs(1);

const PROBES: &str = "health-probe-bind-address";
const METRICS: &str = "metrics-bind-address";
const EXPLAIN: &str = "explain-bind-address";

/// The operator cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, as --{flag} asks: {cause}")]
pub struct BindError {
    flag: &'static str,
    address: String,
    cause: std::io::Error,
}

/// The operator cannot serve health probes, scrapes or explanations.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It has no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Listens on the addresses of the settings until `stop` is cancelled. Dropping the returned value stops the
/// servers. `reviews` is the client that asks about the tokens of scrapes.
///
/// # Errors
/// [`ServeError`].
pub(crate) async fn start(
    settings: &Settings,
    process: &Process,
    telemetry: &Telemetry,
    reviews: Client,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, ServeError> {
    let Telemetry { clock, metrics, health, traces: _ } = telemetry;
    let mut tasks = JoinSet::new();
    tasks.spawn(process.task(tick(*clock, health.clone())));
    let probes = probes(*clock, health.clone());
    let (probe_address, metrics_address) =
        (&settings.health_probe_bind_address, &settings.metrics_bind_address);
    let secure = settings.secure_metrics.as_ref();
    let plain = if secure.is_some() {
        vec![(PROBES, probe_address, probes)]
    } else if probe_address == metrics_address {
        vec![(PROBES, probe_address, probes.merge(scrapes(metrics.clone())))]
    } else {
        vec![(PROBES, probe_address, probes), (METRICS, metrics_address, scrapes(metrics.clone()))]
    };
    for (flag, address, router) in plain {
        let Some(listener) = listen(flag, address).await? else { continue };
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(flag, %error, "no longer listening");
            }
        });
    }
    if let Some(SecureMetrics { certificate }) = secure {
        let certificate = Certificate::open(certificate.as_deref()).await?;
        let config = certificate.server().map_err(CertificateError::from)?;
        if let Some(listener) = listen(METRICS, metrics_address).await? {
            let guard = Guard::new(ApiServer::new(reviews), *clock);
            let router = guarded_scrapes(Arc::new(guard), metrics.clone());
            let serving = server::serve(listener, config, router, process.clone(), stop.clone());
            tasks.spawn(process.task(serving));
            tasks.spawn(process.task(certificate.follow()));
        }
    }
    Ok(tasks)
}

/// Listens for those that ask about an instance, if the settings say so. Nothing is answered yet.
///
/// # Errors
/// [`ServeError`].
pub(crate) async fn explains(settings: &Settings) -> Result<Option<ExplainServer>, ServeError> {
    match listen(EXPLAIN, &settings.explain_bind_address).await? {
        Some(listener) => Ok(Some(ExplainServer::on(listener).await?)),
        None => Ok(None),
    }
}

/// Listens on an address, unless it is off.
async fn listen(
    flag: &'static str,
    address: &BindAddress,
) -> Result<Option<TcpListener>, BindError> {
    let BindAddress::At(address) = address else { return Ok(None) };
    let failed = |cause| BindError { flag, address: address.clone(), cause };
    let listener = BindAddress::listen(address).await.map_err(failed)?;
    let bound: SocketAddr = listener.local_addr().map_err(failed)?;
    tracing::info!(flag, %bound, "listening");
    Ok(Some(listener))
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

fn guarded_scrapes<R: Reviewer>(guard: Arc<Guard<R>>, all: Arc<Metrics>) -> Router {
    let scrape = move |headers: HeaderMap| async move {
        match guard.check(&headers, Access::Metrics).await {
            Ok(()) => exposition::page(all.text()).into_response(),
            Err(refused) => refused.into_response(),
        }
    };
    Router::new().route("/metrics", get(scrape))
}

fn scrapes(all: Arc<Metrics>) -> Router {
    exposition::routes(move || all.text())
}
