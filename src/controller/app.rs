//! Start and stop. Each scope has one set of watches and one work queue.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{ServiceRegistration, duration};
use beatkeeper_client::transport::HttpService;
use futures::{Stream, StreamExt, stream};
use http::{Request, Response};
use hyper::body::Bytes;
use kube::{
    Client,
    client::Body,
    runtime::{
        WatchStreamExt,
        events::Reporter,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event},
    },
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use crate::controller::{
    calls::Calls,
    clock::Clock,
    context::{CALL_TIMEOUT, Context, Instruments},
    error::Error,
    gc::{abandoned, leases, missing_leases},
    host::{Host, Process},
    leader::{election::Election, leadership::Leadership},
    observer::Unobserved,
    probe::prover::{self, Probe},
    queue,
    reconcile::{decide, pipeline},
    replica,
    report::{event_recorder::EventRecorder, readiness},
    rollback,
    serve::{self, BindError},
    settings::Settings,
    watch::{
        access,
        address_scope::{self, AddressScope, AddressesUnknown},
        backoff::WatchBackoff,
        health::WatchHealth,
        objects::{self, Watches},
        unreadable::UnreadableObjects,
    },
};
use crate::kube_client::{self, Source, gate::Gate, list::Collection, observe::observe};
use beatkeeper_core::{
    objects::{decode::Decoded, registration::Registration},
    vocabulary::key::Key,
};

/// How long a call may wait when the API server asks it to retry later. The rest of the timeout, one second, is
/// left for the answer.
const PATIENCE: Duration = CALL_TIMEOUT.saturating_sub(Duration::from_secs(1));

const REGISTRATIONS: &str = "ServiceRegistrations";
/// The scope of an operator that is limited to no namespace.
const ALL: &str = "all namespaces";

/// A part of the operator that never ends by itself has ended. The operator must not continue: it would treat
/// objects that this part no longer reports as unchanged or as absent.
#[derive(Debug, thiserror::Error)]
#[error("a part of the controller has ended by itself; see the log above, and please report it")]
pub struct EndedByItself;

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
    /// The operator cannot listen for health probes or scrapes.
    #[error(transparent)]
    Bind(#[from] BindError),
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
    let source = source.into();
    let host = Host {
        api_server: HttpService::open(&source, &options().user_agent)?,
        namespace: source.namespace().to_owned(),
        identity: replica::identity(),
        clock: Clock::start(),
        process: Process::default(),
        observer: Arc::new(Unobserved),
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
    let Host { api_server, namespace, identity, clock, process, observer } = host;
    let instruments = Instruments::new(process, clock, observer, settings.metrics_per_registration);
    let gate =
        Gate::new(settings.max_parallel_api_calls.into(), Arc::new(Calls(instruments.clone())));
    let client = kube_client::through(Some(gate), api_server, namespace, &options());
    // The servers end when this function returns.
    let _servers = serve::start(&settings, &instruments, &stop).await?;
    let address_scopes = address_scope::determine(&client, &settings, &stop).await?;
    let scopes: Vec<Option<String>> = if settings.namespaces.is_empty() {
        vec![None]
    } else {
        settings.namespaces.iter().cloned().map(Some).collect()
    };
    let election = settings
        .election
        .as_ref()
        .map(|how| Election::new(&client, how, identity.clone(), &instruments));
    let leadership =
        election.as_ref().map_or_else(|| Leadership::without_election(clock), Election::leadership);
    // With leader election this process does not lead until the election says so.
    instruments.metrics.leads(election.is_none());
    let shared = Shared {
        client,
        settings,
        identity,
        instruments,
        leadership,
        warm: CancellationToken::new(),
    };
    let ended = CancellationToken::new();
    let election = election.map(|election| {
        let process = shared.instruments.process.clone();
        let (stop, ended, warm) = (stop.clone(), ended.clone(), shared.warm.clone());
        tokio::spawn(process.task(async move {
            // The guard is dropped on a panic, too.
            let _ended = stop.clone().drop_guard();
            // A replica with caches that are not filled yet leaves the lead to the others.
            if stop.run_until_cancelled(warm.cancelled()).await.is_some() {
                election.run(stop, ended).await;
            }
        }))
    });
    let scopes = scopes.into_iter().map(|namespace| {
        let address_scope = address_scopes.of(namespace.as_deref());
        scope(&shared, namespace, address_scope, stop.clone())
    });
    let results = futures::future::join_all(scopes).await;
    // No task writes any more, so the claim may be released.
    ended.cancel();
    if let Some(election) = election {
        election.await.map_err(|_| EndedByItself)?;
    }
    let ended: Result<(), EndedByItself> = results.into_iter().collect();
    Ok(ended?)
}

/// How this process connects to the API server.
fn options() -> kube_client::Options {
    let mut options = kube_client::Options::of("controller");
    options.patience = PATIENCE;
    if let Some(pod) = replica::pod() {
        // The audit log can tell the replicas apart by this.
        options.user_agent = format!("{} ({pod})", options.user_agent);
    }
    options
}

/// What all scopes share.
struct Shared {
    client: Client,
    settings: Settings,
    /// The identity of this process, which no other process has.
    identity: String,
    instruments: Instruments,
    leadership: Leadership,
    /// Cancelled once a scope has listed all kinds, or has no right to and must report this.
    warm: CancellationToken,
}

async fn scope(
    shared: &Shared,
    namespace: Option<String>,
    address_scope: AddressScope,
    outer: CancellationToken,
) -> Result<(), EndedByItself> {
    let Shared { client, settings, identity, instruments, leadership, warm } = shared;
    let client = client.clone();
    let stop = outer.child_token();
    let event_recorder = EventRecorder::new(client.clone(), reporter());
    let probe =
        Probe::new(&namespace.clone().unwrap_or_else(|| replica::namespace(&client)), identity);
    let context = Arc::new(Context::new(
        client.clone(),
        settings.clone(),
        event_recorder,
        probe,
        instruments.clone(),
        leadership.clone(),
        stop.clone(),
    ));

    let registrations = Collection::of::<ServiceRegistration>(&client, namespace.as_deref());
    let (reader, writer) = reflector::store();
    let unread = UnreadableObjects::of(REGISTRATIONS, &context);
    let registrations = context.relists.of(REGISTRATIONS, move || {
        let registrations = registrations.clone();
        access::relist_after_refusal(move || observe(registrations.clone()))
            .backoff(WatchBackoff::new())
    });
    let registrations = reflector::reflector(writer, known(registrations, unread));
    let registrations_cache = objects::cache(REGISTRATIONS, namespace.as_deref());
    context.health.lock().await_cache(&registrations_cache);
    context.read_access.expect(REGISTRATIONS);
    context.spawn_for_ever(follow(context.clone(), reader.clone(), registrations));

    let watches = Watches::start(&context, namespace.as_deref(), address_scope);
    context.spawn_for_ever(access::run(
        namespace.clone(),
        context.clone(),
        reader.clone(),
        warm.clone(),
    ));
    let ready = async {
        watches.first_lists().await;
        prover::recall(&context);
        context.spawn_for_ever(prover::run(context.clone()));
        let read = reader.wait_until_ready().await;
        context.health.lock().cache_read(&registrations_cache);
        // The caches must know all registrations first: a Lease without a registration is forgotten without a
        // read.
        context.spawn_for_ever(missing_leases::run(context.clone()));
        context.spawn_for_ever(rollback::run(context.clone(), namespace.clone()));
        read
    };
    if let Some(Ok(())) = stop.run_until_cancelled(ready).await {
        let scope = namespace.as_deref().unwrap_or(ALL);
        tracing::info!(scope, "everything has been read once");
        if context.settings.dry_run {
            tracing::warn!(
                "this is a dry run: everything is decided and reported, nothing published"
            );
        }
        warm.cancel();
        publish(namespace.as_deref(), &context, &reader, &stop).await;
    }
    let ended_by_itself = !outer.is_cancelled();
    outer.cancel();
    context.tasks.close();
    context.tasks.wait().await;
    if ended_by_itself { Err(EndedByItself) } else { Ok(()) }
}

/// Publishes in each term that this replica leads, until stopped. Returns when the running work has ended.
async fn publish(
    namespace: Option<&str>,
    context: &Arc<Context>,
    reader: &Store<ServiceRegistration>,
    stop: &CancellationToken,
) {
    let scope = namespace.unwrap_or(ALL);
    while let Some(term) = stop.run_until_cancelled(context.leadership.leads()).await {
        tracing::info!(scope, "publishing begins");
        let over = stop.child_token();
        let work = async {
            lead(namespace, context.clone(), reader.clone(), over.clone()).await;
            over.cancel();
        };
        let lost = async {
            let lost = over.run_until_cancelled(context.leadership.lost(term)).await;
            over.cancel();
            lost.is_some()
        };
        let (lost, ()) = tokio::join!(lost, work);
        context.end_term();
        if !lost {
            // The controller was stopped, or a part of the term has ended by itself.
            return;
        }
        tracing::info!(scope, "publishing has ended; observing goes on");
    }
}

/// Runs one term. The term begins with a proof. After the proof this replica has seen everything that the last
/// leader saw. Without the proof, instances that its own watch has not shown yet would seem absent.
async fn lead(
    namespace: Option<&str>,
    context: Arc<Context>,
    reader: Store<ServiceRegistration>,
    over: CancellationToken,
) {
    let claimed = context.clock.now();
    let proven = async {
        tokio::select! {
            biased;
            () = prover::prove_until_it_succeeds(claimed, &context) => {}
            () = access::report_unproven(&context, &reader) => {}
        }
    };
    if over.run_until_cancelled(proven).await.is_none() {
        return;
    }
    // The order matters: the channel delivers registrations that are woken from now on, and the store has all
    // others.
    let woken = context.begin_term();
    let mut all = reader.state();
    // The store returns the registrations in the order of a hash table.
    all.sort_unstable_by_key(|object| Key::of(&object.metadata));
    decide::warm_up(&all, &context).await;
    let sweep = tokio::spawn({
        let (context, over) = (context.clone(), over.clone());
        context.clone().process.task(async move {
            // The guard is dropped on a panic, too.
            let _ended = over.clone().drop_guard();
            leases::run(context, over).await;
        })
    });
    let collector = tokio::spawn({
        let (context, over) = (context.clone(), over.clone());
        let namespace = namespace.map(str::to_owned);
        context.clone().process.task(async move {
            let _ended = over.clone().drop_guard();
            abandoned::run(namespace, context, over).await;
        })
    });
    let teller = tokio::spawn({
        let (context, over) = (context.clone(), over.clone());
        context.clone().process.task(async move {
            let _ended = over.clone().drop_guard();
            readiness::run(context, over).await;
        })
    });
    let all: Vec<_> = all.iter().map(|object| ObjectRef::from_obj(&**object)).collect();
    let requests = stream::iter(all).chain(woken).take_until(over.cancelled_owned());
    let places = context.settings.concurrency;
    let retry = {
        let context = context.clone();
        move |object: &ServiceRegistration, error: &Error| pipeline::retry(object, error, &context)
    };
    let run = move |object| pipeline::run(object, context.clone());
    queue::work_off(requests, reader, places, run, retry).await;
    // A panic is already logged, and it has ended the term.
    let _ = tokio::join!(sweep, collector, teller);
}

/// Keeps the registrations up to date. Wakes each changed registration and those that share a Service with it.
async fn follow(
    context: Arc<Context>,
    reader: Store<ServiceRegistration>,
    events: impl Stream<Item = watcher::Result<Event<ServiceRegistration>>>,
) {
    let mut events = std::pin::pin!(events);
    let mut health = WatchHealth::of(REGISTRATIONS, &context);
    while let Some(event) = events.next().await {
        let Some(event) = health.take(event) else { continue };
        match event {
            Event::Apply(object) => {
                note(&context, &object);
                let concerned = context.world().put_registration(&object);
                context.update_probe_pace();
                if !concerned.is_empty() {
                    check_gates(&context, &Key::of(&object.metadata));
                }
                context.wake(concerned);
            }
            Event::Delete(object) => remove(&context, &Key::of(&object.metadata)),
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                let listed = reader.state();
                for object in &listed {
                    note(&context, object);
                    let concerned = context.world().put_registration(object);
                    context.wake(concerned);
                }
                let listed = listed.iter().map(|object| Key::of(&object.metadata)).collect();
                let gone = context.world().registrations_beyond(&listed);
                gone.iter().for_each(|key| remove(&context, key));
                context.update_probe_pace();
                context.wake(listed);
            }
        }
    }
}

/// Passes on the registrations of which at least the name can be read. Nearly all registrations are readable
/// ([`lenient`](beatkeeper_core::objects::salvage)). Others are skipped and reported.
fn known(
    events: impl Stream<Item = watcher::Result<Event<Decoded<ServiceRegistration>>>>,
    mut unread: UnreadableObjects,
) -> impl Stream<Item = watcher::Result<Event<ServiceRegistration>>> {
    events.filter_map(move |event| {
        if let Ok(event) = &event {
            unread.note(event);
        }
        let read = match event {
            Ok(Event::Apply(object)) => object.ok().map(Event::Apply).map(Ok),
            Ok(Event::Delete(object)) => object.ok().map(Event::Delete).map(Ok),
            Ok(Event::InitApply(object)) => object.ok().map(Event::InitApply).map(Ok),
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(read)
    })
}

/// Notes the ttls of a registration, also on a standby replica, so that each new leader knows the former ttls.
fn note(context: &Context, object: &ServiceRegistration) {
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let told = object.status.as_ref().and_then(|status| status.former_ttl.as_deref());
    let told = told.and_then(|former| duration::parse(former).ok());
    let ttl = Registration::validate(object).ttl;
    context.note_ttl(&Key::of(&object.metadata), uid, ttl, told);
}

fn remove(context: &Context, key: &Key) {
    let concerned = context.world().remove_registration(key);
    context.forget(key);
    check_gates(context, key);
    context.update_probe_pace();
    context.wake(concerned);
}

/// Queues all Pods with the readiness gate in the namespace: a change of its registrations changes which of
/// them have to publish a Pod.
fn check_gates(context: &Context, registration: &Key) {
    let gated = context.world().gated(&registration.namespace);
    context.check_gates(gated);
}

pub(crate) fn reporter() -> Reporter {
    Reporter {
        controller: "beatkeeper.dev/controller".to_owned(),
        instance: std::env::var("POD_NAME").ok(),
    }
}
