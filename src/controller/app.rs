//! Start and stop. Each scope has one set of watches and one work queue.

use std::{sync::Arc, time::Duration};

use beatkeeper_client::transport::HttpService;
use http::{Request, Response};
use hyper::body::Bytes;
use kube::client::Body;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use crate::{
    controller::{
        api::CALL_TIMEOUT,
        carriers::{network::Tls, port::Network},
        clock::Clock,
        explain::{scopes::Scopes, server::ExplainServer},
        host::{self, Host, Process},
        leader::{election::Election, leadership::Leadership},
        observer::Unobserved,
        scope::{
            self,
            run::{EndedByItself, Shared},
        },
        secure::{guard::Guard, review::ApiServer},
        serve::{self, ServeError},
        settings::Settings,
        telemetry::Telemetry,
        trace::collector::{Collector, CollectorError},
        watch::address_scope::{self, AddressesUnknown},
    },
    kube_client::{self, Source, gate::Gate},
};

/// How long a call may wait when the API server asks it to retry later. The rest of the timeout, one second, is
/// left for the answer.
const PATIENCE: Duration = CALL_TIMEOUT.saturating_sub(Duration::from_secs(1));

/// Why the operator did not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A part ended because of a defect. The operator has stopped all other parts, so that it can be restarted.
    #[error(transparent)]
    EndedByItself(#[from] EndedByItself),
    /// The operator has no connection to the API server.
    #[error(transparent)]
    Connect(#[from] kube_client::ConnectError),
    /// The operator cannot know which addresses belong to other objects.
    #[error(transparent)]
    AddressesUnknown(#[from] AddressesUnknown),
    /// The operator cannot serve health probes or scrapes.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The operator cannot send traces.
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

/// Runs the operator until `stop` is cancelled, and then until all running work has ended.
///
/// Each namespace of [`Settings::namespaces`] is a scope. Without namespaces the whole cluster is one scope.
/// With leader election all scopes observe from the start, and they publish while this replica leads.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    source: impl Into<Source>,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let (source, clock, identity) = (source.into(), Clock::start(), host::identity());
    let user_agent = options(clock).user_agent;
    let collector = settings.traces.as_ref();
    let collector = collector.map(|it| Collector::open(it, &user_agent, &identity)).transpose()?;
    let gateways = settings.gateways.as_ref();
    let gateways = gateways.map(|gateways| Arc::new(Tls::new(gateways)) as Arc<dyn Network>);
    let host = Host {
        api_server: HttpService::open(&source, &user_agent)?,
        namespace: source.namespace().to_owned(),
        identity,
        clock,
        process: Process::default(),
        observer: Arc::new(Unobserved),
        collector,
        gateways,
    };
    run_on(host, settings, stop).await
}

/// Runs the operator on the given host. [`run`] uses the host of the process.
///
/// # Errors
/// [`RunError`].
pub async fn run_on<S, B>(
    host: Host<S>,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), RunError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let Host { api_server, namespace, identity, clock, process, observer, collector, gateways } =
        host;
    let mut telemetry = Telemetry::new(clock, settings.metrics_per_registration);
    let ended = CancellationToken::new();
    let sending = collector.map(|it| begin_traces(it, &mut telemetry, &process, &ended));
    let gate = Gate::new(settings.max_parallel_api_calls.into(), Arc::new(telemetry.clone()));
    // Reviews of tokens take no place from the operator's work, and do not wait if the API server is busy.
    let impatient = kube_client::Options { patience: Duration::ZERO, ..options(clock) };
    let reviews = kube_client::through(None, api_server.clone(), namespace.clone(), &impatient);
    let client = kube_client::through(Some(gate), api_server, namespace, &options(clock));
    // The servers end when this function returns.
    let _servers = serve::start(&settings, &process, &telemetry, reviews.clone(), &stop).await?;
    let explains = serve::explains(&settings).await?;
    let address_scopes = address_scope::determine(&client, &settings, &stop).await?;
    let namespaces = namespaces(&settings);
    let election = settings
        .election
        .as_ref()
        .map(|how| Election::new(&client, how, identity.clone(), &telemetry))
        .map(|election| election.telling(explains.as_ref().map(ExplainServer::endpoint)));
    let leadership =
        election.as_ref().map_or_else(|| Leadership::without_election(clock), Election::leadership);
    let scopes = Arc::new(Scopes::new(&identity, clock, leadership.clone()));
    let guard = Guard::new(ApiServer::new(reviews), clock);
    let _explaining = explains.map(|server| server.start(scopes.clone(), guard, &process, &stop));
    // With leader election this process does not lead until the election says so.
    telemetry.metrics.leads(election.is_none());
    let warm = CancellationToken::new();
    let election = election.map(|it| begin_election(it, &process, &warm, &stop, &ended));
    let shared = Shared {
        client,
        settings,
        identity,
        process,
        observer,
        telemetry,
        leadership,
        scopes,
        gateways,
        warm,
    };
    let running = namespaces.into_iter().map(|namespace| {
        let addresses = address_scopes.of(namespace.as_deref());
        scope::run::run(&shared, namespace, addresses, stop.clone())
    });
    let results = futures::future::join_all(running).await;
    // No task writes any more, so the leadership may be released.
    ended.cancel();
    for task in election.into_iter().chain(sending) {
        task.await.map_err(|_| EndedByItself)?;
    }
    let ended: Result<(), EndedByItself> = results.into_iter().collect();
    Ok(ended?)
}

/// Begins to send traces. The returned task ends after `ended` is cancelled.
fn begin_traces(
    collector: Collector,
    telemetry: &mut Telemetry,
    process: &Process,
    ended: &CancellationToken,
) -> JoinHandle<()> {
    let (traces, sending) = collector.traces(telemetry.clock, &telemetry.metrics, ended.clone());
    telemetry.traces = traces;
    tokio::spawn(process.task(sending))
}

/// Begins to take part in the election. The returned task ends after `ended` is cancelled.
fn begin_election(
    election: Election,
    process: &Process,
    warm: &CancellationToken,
    stop: &CancellationToken,
    ended: &CancellationToken,
) -> JoinHandle<()> {
    let taking_part = take_part(election, warm.clone(), stop.clone(), ended.clone());
    tokio::spawn(process.task(taking_part))
}

/// The namespace of each scope; None for all namespaces.
fn namespaces(settings: &Settings) -> Vec<Option<String>> {
    match settings.namespaces.is_empty() {
        true => vec![None],
        false => settings.namespaces.iter().cloned().map(Some).collect(),
    }
}

/// Takes part in the election once this replica is warm: one with caches that are not filled yet leaves the lead to the
/// others.
async fn take_part(
    election: Election,
    warm: CancellationToken,
    stop: CancellationToken,
    ended: CancellationToken,
) {
    // The guard is dropped on a panic, too.
    let _ended = stop.clone().drop_guard();
    if stop.run_until_cancelled(warm.cancelled()).await.is_some() {
        election.run(stop, ended).await;
    }
}

/// How this process connects to the API server.
fn options(clock: Clock) -> kube_client::Options {
    let mut options = kube_client::Options::of("controller", clock.wall_clock());
    options.patience = PATIENCE;
    if let Some(pod) = host::pod_name() {
        // The audit log can tell the replicas apart by this.
        options.user_agent = format!("{} ({pod})", options.user_agent);
    }
    options
}
