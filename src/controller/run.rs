//! Starting and stopping: one set of watches and one queue for each scope.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt, applier,
        controller::{Config, Error as QueueError, ReconcileRequest},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    clock::Clock,
    context::{CALL_TIMEOUT, Context, Instruments},
    metrics::Metrics,
    pulse::Pulse,
    reconcile,
    serve::{self, BindError, SharedHealth},
    settings::Settings,
    sweep,
    watch::{self, Watches},
};
use crate::{
    core::index::Key,
    kube_client::{self, gate::Gate},
};

/// How long a call waits when the API server asks for it: a second is left to be answered in.
const PATIENCE: Duration = CALL_TIMEOUT.saturating_sub(Duration::from_secs(1));

const REGISTRATIONS: &str = "ServiceRegistrations";

/// A part of the operator that never ends by itself has ended. Going on without it would take what
/// it no longer reports for unchanged, or for absent.
#[derive(Debug, thiserror::Error)]
#[error("a part of the controller has ended by itself; see the log above, and please report it")]
pub struct EndedByItself;

/// Why the operator did not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// After a defect: then all of it has been stopped, to be started anew.
    #[error(transparent)]
    EndedByItself(#[from] EndedByItself),
    /// There is no way to the API server.
    #[error(transparent)]
    Connect(#[from] kube_client::ConnectError),
    /// Probes or scrapes cannot be answered.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Runs the operator until `stop` is cancelled, and then until what is under way has ended.
///
/// Each namespace of [`Settings::namespaces`] is a scope of its own, or the whole cluster is one.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    config: kube::Config,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new(clock, settings.metrics_per_registration));
    let health = SharedHealth::new(clock);
    let calls = Calls { clock, metrics: metrics.clone(), health: health.clone() };
    let gate = Gate::new(settings.max_parallel_api_calls.into(), Arc::new(calls));
    let options =
        kube_client::Options { patience: PATIENCE, ..kube_client::Options::of("controller") };
    let client = kube_client::connect_through(Some(gate), config, &options)?;
    // Ends with this function.
    let _servers = serve::start(&settings, clock, &health, &metrics, &stop).await?;
    let instruments = Instruments { clock, metrics, health };
    let scopes: Vec<Option<String>> = if settings.namespaces.is_empty() {
        vec![None]
    } else {
        settings.namespaces.iter().cloned().map(Some).collect()
    };
    let scopes = scopes.into_iter().map(|namespace| {
        scope(client.clone(), settings.clone(), instruments.clone(), namespace, stop.clone())
    });
    let ended: Result<(), EndedByItself> =
        futures::future::join_all(scopes).await.into_iter().collect();
    Ok(ended?)
}

async fn scope(
    client: Client,
    settings: Settings,
    instruments: Instruments,
    namespace: Option<String>,
    outer: CancellationToken,
) -> Result<(), EndedByItself> {
    let stop = outer.child_token();
    let recorder = Recorder::new(client.clone(), reporter());
    let context =
        Arc::new(Context::new(client.clone(), settings, recorder, instruments, stop.clone()));

    let api = match &namespace {
        Some(namespace) => Api::<ServiceRegistration>::namespaced(client, namespace),
        None => Api::all(client),
    };
    let (reader, writer) = reflector::store();
    let registrations = reflector::reflector(writer, watcher(api, watcher::Config::default()))
        .backoff(watch::pauses());
    let registrations_cache = watch::cache(REGISTRATIONS, namespace.as_deref());
    context.health.lock().await_cache(&registrations_cache);
    context.spawn_for_ever(follow(context.clone(), reader.clone(), registrations));

    let watches = Watches::start(&context, namespace.as_deref());
    let ready = async {
        watches.first_lists().await;
        let read = reader.wait_until_ready().await;
        context.health.lock().cache_read(&registrations_cache);
        read
    };
    if let Some(Ok(())) = stop.run_until_cancelled(ready).await {
        let scope = namespace.as_deref().unwrap_or("all namespaces");
        tracing::info!(scope, "everything has been read once; publishing begins");
        context.spawn_for_ever(sweep::run(context.clone()));
        queue(context.clone(), reader, stop).await;
    }
    let ended_by_itself = !outer.is_cancelled();
    outer.cancel();
    context.tasks.close();
    context.tasks.wait().await;
    if ended_by_itself { Err(EndedByItself) } else { Ok(()) }
}

/// Reconciles whom somebody woke, each registration one at a time, until stopped.
async fn queue(context: Arc<Context>, reader: Store<ServiceRegistration>, stop: CancellationToken) {
    // In this order: who is woken from now on is in the queue, and all the others are in the store.
    let woken = context.listen();
    let all: Vec<_> = reader.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect();
    let requests = stream::iter(all)
        .chain(woken)
        .map(|object| Ok::<_, watcher::Error>(ReconcileRequest::from(object)))
        .take_until(stop.cancelled_owned());
    let config = Config::default().concurrency(context.settings.concurrency);
    applier(
        |object, context| Box::pin(reconcile::run(object, context)),
        |object, error, context: Arc<Context>| reconcile::retry(&object, error, &context),
        context,
        reader,
        Box::pin(requests),
        config,
    )
    .for_each(|result| async {
        match result {
            // Told by the retry policy, or woken for one that is gone.
            Ok(_) | Err(QueueError::ReconcilerFailed(..) | QueueError::ObjectNotFound(_)) => {}
            Err(error) => tracing::error!(%error, "the queue failed"),
        }
    })
    .await;
}

/// Keeps the registrations up to date, and wakes them and those that share a Service with them.
async fn follow(
    context: Arc<Context>,
    reader: Store<ServiceRegistration>,
    events: impl futures::Stream<Item = watcher::Result<Event<ServiceRegistration>>>,
) {
    let mut events = std::pin::pin!(events);
    let mut pulse = Pulse::of(REGISTRATIONS, &context);
    while let Some(event) = events.next().await {
        let Some(event) = pulse.take(event) else { continue };
        match event {
            Event::Apply(object) => {
                let concerned = context.world().put_registration(&object);
                context.wake(concerned);
            }
            Event::Delete(object) => remove(&context, &Key::of(&object.metadata)),
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                let listed = reader.state();
                for object in &listed {
                    let concerned = context.world().put_registration(object);
                    context.wake(concerned);
                }
                let listed = listed.iter().map(|object| Key::of(&object.metadata)).collect();
                let gone = context.world().registrations_beyond(&listed);
                gone.iter().for_each(|key| remove(&context, key));
                context.wake(listed);
            }
        }
    }
}

fn remove(context: &Context, key: &Key) {
    let concerned = context.world().remove_registration(key);
    context.forget(key);
    context.wake(concerned);
}

fn reporter() -> Reporter {
    Reporter {
        controller: "beatkeeper.dev/controller".to_owned(),
        instance: std::env::var("POD_NAME").ok(),
    }
}
