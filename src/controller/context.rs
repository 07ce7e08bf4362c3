//! The state that all steps share: the client, what is known of the cluster, and the memory of each
//! registration.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beatkeeper_api::{AdoptedInstance, ServiceRegistration};
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use kube::{Client, runtime::reflector::ObjectRef};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::controller::{
    clock::Clock,
    error::{ApiError, Cause},
    host::Process,
    leader::leadership::Leadership,
    metrics::Metrics,
    observer::Observer,
    probe::prover::{Others, Probe},
    report::{event_recorder::EventRecorder, status_writer::PendingReports},
    rollback::Relists,
    serve::SharedHealth,
    settings::Settings,
    watch::access::ReadAccess,
};
use crate::kube_client::{self, gate::Gate};
use beatkeeper_core::{
    cluster_cache::ClusterCache,
    decide::verdict::Suspect,
    inputs::earlier::Earlier,
    liveness::{
        index::Index,
        outage_guard::OutageGuard,
        probe_tracker::ProbeTracker,
        ttl::{Replaced, TtlHistory},
    },
    plan::{change_limits::ChangeLimits, refusals::Refusals},
    report::{flapping::Flaps, readiness_gates::Gates, reported_states::ReportedStates},
    vocabulary::{
        address::AddressSet,
        key::Key,
        monotonic_time::MonotonicTime,
        rate_limit::{RateLimit, RateLimiter},
        version::Version,
    },
};

/// Timeout of a call to the API server, except watches. It is far above the duration of a healthy call (p99 12
/// ms) and far below any useful ttl.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that all steps of one scope share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    /// Says whether this process may write.
    pub(crate) leadership: Leadership,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: SharedHealth,
    pub(crate) event_recorder: EventRecorder,
    /// Sees what this process decides.
    pub(crate) observer: Arc<dyn Observer>,
    /// The process that every spawned task belongs to.
    pub(crate) process: Process,
    /// The tasks that run beside the work queue. The controller waits for them when it stops.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the controller is to stop.
    pub(crate) stop: CancellationToken,
    /// What the API server lets this scope read.
    pub(crate) read_access: ReadAccess,
    index: Arc<Mutex<Index>>,
    world: Mutex<ClusterCache>,
    /// Restarts the watches.
    pub(crate) relists: Relists,
    /// The probe of this replica.
    pub(crate) probe: Probe,
    path: Mutex<ProbeTracker>,
    other_probes: Mutex<Others>,
    /// The registrations with a decision that waits for a proof.
    unproven: Mutex<HashSet<Key>>,
    guard: Mutex<OutageGuard>,
    memories: Mutex<HashMap<Key, Memory>>,
    replaced: Mutex<Replaced>,
    gates: Mutex<Gates>,
    /// Wakes the task that writes the Pods' conditions when there is something new.
    pub(crate) gates_changed: Notify,
    paces: Mutex<KeptPaces>,
    desks: Mutex<PendingReports>,
    /// Limits how many tasks write a status, a condition or events at the same time.
    background: Semaphore,
    term: Mutex<Term>,
}

/// Calm paces are removed from memory at most this often.
const KEPT_PACES: Duration = Duration::from_secs(10);

/// The rate limits of each registration's writes.
#[derive(Debug, Default)]
struct KeptPaces {
    of: HashMap<Key, ChangeLimits>,
    /// When the calm paces were last removed.
    swept: MonotonicTime,
}

/// The current term of this process, or its last one.
#[derive(Debug, Default)]
struct Term {
    /// When it began.
    began: MonotonicTime,
    /// Set while the work queue listens. Before that no registration has to be woken, since the queue begins
    /// with all of them. Without this rule every beat would wake its registration.
    wakes: Option<UnboundedSender<ObjectRef<ServiceRegistration>>>,
}

/// What the scopes of one process share.
#[derive(Clone)]
pub(crate) struct Instruments {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) process: Process,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: SharedHealth,
}

impl Instruments {
    pub(crate) fn new(
        process: Process,
        clock: Clock,
        observer: Arc<dyn Observer>,
        metrics_per_registration: bool,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(clock, metrics_per_registration));
        Self { observer, process, clock, metrics, health: SharedHealth::new(clock) }
    }
}

/// What is remembered of a registration between two reconciliations.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The uid of the registration. A new registration of the same name begins with an empty memory.
    uid: String,
    /// The ttls that the registration has had.
    pub(crate) ttl: Option<TtlHistory>,
    /// After a failed write of a cordon, no cordon is written again before this time. The writes restore
    /// cordons in Leases that were made anew.
    pub(crate) cordons_paused_until: MonotonicTime,
    /// When to reconcile again because of a step that had to wait.
    pub(crate) requeue_at: Option<MonotonicTime>,
    /// The instances with a state that changes again and again.
    pub(crate) flaps: Flaps,
    /// When to send the events that had to wait.
    pub(crate) events_due: Option<MonotonicTime>,
    /// When to reconcile again because time alone may change the decision.
    pub(crate) due: Option<MonotonicTime>,
    /// The states that the last events reported. None after a start, until the first report.
    pub(crate) told: Option<ReportedStates>,
    /// The Endpoints are not updated again before this time.
    pub(crate) endpoints_paused_until: MonotonicTime,
    /// How often in a row the registration could not be published.
    pub(crate) failures: u32,
    /// How often in a row a decision lacked a live read or a proof.
    pub(crate) failed_reads: u32,
    /// The instances that were suspects at the last decision, or become suspects at their deadlines.
    pub(crate) expected_expiries: Vec<Suspect>,
    /// Whether the Service, when it last existed, was one that the operator did not own.
    pub(crate) foreign_service: bool,
    /// Since when the Service with this uid has been seen without a selector.
    pub(crate) without_selector: Option<(String, MonotonicTime)>,
    /// In a dry run: the addresses that would be published now.
    pub(crate) dry_run_published: Option<AddressSet>,
    /// The addresses of outside instances at the last time when they could change, with the generation of the
    /// spec that declared them. The generation is None if they come from a status.
    pub(crate) earlier: Option<(Option<i64>, Arc<Earlier>)>,
    /// The adopted instances as this process wrote them last.
    pub(crate) adopted: Option<(Version, Vec<AdoptedInstance>)>,
    /// What the API server refuses to publish.
    pub(crate) refusals: Refusals,
    /// Adopted instances that have beaten since, until the status no longer lists them.
    pub(crate) weaned: Vec<AdoptedInstance>,
    /// Since when a Service that the operator did not own is missing.
    pub(crate) service_gone: Option<MonotonicTime>,
    /// The deadlines of instances that are to be pruned, by the name of the Lease, until the API server
    /// confirms the write.
    pub(crate) pruning: HashMap<Arc<str>, MonotonicTime>,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        event_recorder: EventRecorder,
        probe: Probe,
        Instruments { observer, process, clock, metrics, health }: Instruments,
        leadership: Leadership,
        stop: CancellationToken,
    ) -> Self {
        let tellers = Gate::background(settings.max_parallel_api_calls.into());
        let index = Arc::<Mutex<Index>>::default();
        metrics.count_leases_of(index.clone());
        observer.keeps(&index);
        Self {
            client,
            settings,
            clock,
            read_access: ReadAccess::default(),
            relists: Relists::default(),
            probe,
            path: Mutex::new(ProbeTracker::new(clock.now())),
            other_probes: Mutex::default(),
            unproven: Mutex::default(),
            guard: Mutex::default(),
            leadership,
            metrics,
            health,
            event_recorder,
            observer,
            process,
            tasks: TaskTracker::new(),
            stop,
            index,
            world: Mutex::default(),
            memories: Mutex::default(),
            replaced: Mutex::default(),
            gates: Mutex::default(),
            gates_changed: Notify::new(),
            paces: Mutex::default(),
            desks: Mutex::default(),
            background: Semaphore::new(tellers),
            term: Mutex::default(),
        }
    }

    /// Waits for a permit to write a status, a condition or an event. There are as many permits as the gate has
    /// places for background calls. The timeout of the call does not run during this wait, since a thousand
    /// registrations may wait at once. Returns None once the controller is to stop.
    pub(crate) async fn background_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.stop.run_until_cancelled(self.background.acquire()).await?.ok()
    }

    /// The liveness index. The guard is never held across an await.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the cluster. The guard is never held across an await.
    pub(crate) fn world(&self) -> MutexGuard<'_, ClusterCache> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of the beats. The guard is never held across an await.
    pub(crate) fn path(&self) -> MutexGuard<'_, ProbeTracker> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The probes of other replicas. The guard is never held across an await.
    pub(crate) fn other_probes(&self) -> MutexGuard<'_, Others> {
        self.other_probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registrations that wait for a proof. The guard is never held across an await.
    pub(crate) fn unproven(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.unproven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outage guard (L6). The mutex guard is never held across an await.
    pub(crate) fn guard(&self) -> MutexGuard<'_, OutageGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the probe renew at the pace that the registrations require now.
    pub(crate) fn update_probe_pace(&self) {
        let tightest = self.world().tightest_pace();
        let now = self.clock.now();
        let sooner = {
            let mut path = self.path();
            let before = path.next(now);
            path.set_pace(tightest);
            path.next(now) < before
        };
        if sooner {
            self.probe.hurry();
        }
    }

    /// The reports that wait to be written. The guard is never held across an await.
    pub(crate) fn desks(&self) -> MutexGuard<'_, PendingReports> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ttls of recently deleted registrations. The guard is never held across an await.
    fn replaced(&self) -> MutexGuard<'_, Replaced> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Pods with the operator's readiness gate are told. The guard is never held across an await.
    pub(crate) fn gates(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues these Pods, all of which have the operator's readiness gate, to be checked.
    pub(crate) fn check_gates(&self, pods: impl IntoIterator<Item = Key>) {
        let now = self.clock.now();
        let mut any = false;
        for pod in pods {
            self.gates().look_at(&pod, now);
            any = true;
        }
        if any {
            self.gates_changed.notify_one();
        }
    }

    /// Gives access to the rate limits of a registration's writes.
    pub(crate) fn paces<T>(&self, key: &Key, ask: impl FnOnce(&mut ChangeLimits) -> T) -> T {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        ask(paces.of.entry(key.clone()).or_default())
    }

    /// Takes one token from a rate limit of a registration.
    ///
    /// # Errors
    /// When the next token will be available.
    pub(crate) fn may(
        &self,
        key: &Key,
        limit: RateLimit,
        which: impl FnOnce(&mut ChangeLimits) -> &mut RateLimiter,
    ) -> Result<(), MonotonicTime> {
        let now = self.clock.now();
        self.paces(key, |paces| which(paces).take(limit, now))
    }

    /// Reads or changes the memory of a registration. A different uid means a new registration: its memory is
    /// empty.
    pub(crate) fn remember<T>(
        &self,
        key: &Key,
        uid: &str,
        change: impl FnOnce(&mut Memory) -> T,
    ) -> T {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.entry(key.clone()).or_default();
        if memory.uid != uid {
            if let Some(ttl) = &memory.ttl {
                self.replaced().put(key, ttl.longest(), self.clock.now());
            }
            *memory = Memory { uid: uid.to_owned(), ..Memory::default() };
        }
        change(memory)
    }

    /// Forgets everything that is compared by resourceVersion.
    pub(crate) fn forget_versions(&self) {
        self.other_probes().forget_all();
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.values_mut().for_each(|memory| memory.adopted = None);
        drop(memories);
        self.desks().forget_written();
    }

    /// Forgets a registration that is gone. A new registration may soon replace it. Therefore its longest ttl
    /// is kept, since its instances keep the pace that they last read.
    pub(crate) fn forget(&self, key: &Key) {
        let memory = self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(ttl) = memory.and_then(|memory| memory.ttl) {
            self.replaced().put(key, ttl.longest(), self.clock.now());
        }
        self.desks().forget(key);
        self.gates().forget(key, self.clock.now());
        self.path().await_deadline(key, None);
        self.guard().forget(key);
        self.index().forget_cordons(key);
        let now = self.clock.now();
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        // The paces of this registration are kept until they are calm, since it may be made anew. A scan of all
        // paces for each deleted registration would be too expensive.
        if now.since(paces.swept) >= KEPT_PACES {
            paces.of.retain(|_, paces| !paces.are_idle(now));
            paces.swept = now;
        }
        self.metrics.forget(key);
    }

    /// Notes the current ttl of a registration, as the watch shows it. A standby replica does so too, so that
    /// the next leader knows of the changes (L8). `told` is the former ttl in the status, for a process that
    /// has just started.
    pub(crate) fn note_ttl(&self, key: &Key, uid: &str, ttl: Duration, told: Option<Duration>) {
        let now = self.clock.now();
        // This detects a replacement of which the watch has not shown the deletion.
        self.remember(key, uid, |_| ());
        let replaced = self.replaced().take(key, now);
        self.remember(key, uid, |memory| match &mut memory.ttl {
            Some(history) => history.set(ttl, now),
            none => *none = Some(TtlHistory::after(told.max(replaced), ttl, now)),
        });
    }

    /// Begins a term. From now on the returned channel delivers the registrations that are woken.
    ///
    /// This process does not know what another replica did in the meantime. As after a start, it takes from the
    /// status what has been reported.
    pub(crate) fn begin_term(&self) -> UnboundedReceiver<ObjectRef<ServiceRegistration>> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        for memory in memories.values_mut() {
            *memory = Memory {
                uid: std::mem::take(&mut memory.uid),
                ttl: memory.ttl.take(),
                foreign_service: memory.foreign_service,
                ..Memory::default()
            };
        }
        drop(memories);
        self.desks().clear();
        self.gates().clear();
        self.observer.leads(true);
        let (wakes, woken) = mpsc::unbounded();
        let began = self.clock.now();
        *self.term() = Term { began, wakes: Some(wakes) };
        woken
    }

    /// When the current term began, or the last one.
    pub(crate) fn term_began(&self) -> MonotonicTime {
        self.term().began
    }

    /// Ends a term. No registration is woken until the next term. The metrics of the last decisions are
    /// removed, since they no longer hold.
    pub(crate) fn end_term(&self) {
        self.term().wakes = None;
        self.observer.leads(false);
        let memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the registrations of this scope: another scope may lead again already.
        memories.keys().for_each(|key| self.metrics.forget(key));
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns a task that runs until the controller stops. If the task ends by itself, which is a defect, the
    /// controller stops: it must not decide from data that no task keeps up to date.
    pub(crate) fn spawn_for_ever(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            // Dropped on a panic, too.
            let _ended = stop.clone().drop_guard();
            stop.run_until_cancelled(task).await;
        });
    }

    /// Spawns a task beside the work queue. The task runs to its end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.process.task(task));
    }

    /// Queues these registrations to be reconciled. Registrations that do not exist are ignored.
    pub(crate) fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            // This is the case after nearly every beat.
            return;
        }
        let term = self.term();
        let Some(wakes) = &term.wakes else { return };
        for key in keys {
            // This fails only when the term is ending. Then no registration has to be woken.
            let _ = wakes.unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    }
}

/// Runs a call that reads, with a timeout of [`CALL_TIMEOUT`]. An error names the call.
pub(crate) async fn call<T>(
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    call_within(CALL_TIMEOUT, doing, call).await
}

/// Runs a call that writes, with a timeout of at most [`CALL_TIMEOUT`]. An error names the call. The call is
/// sent only while this process has the claim to lead, and it is cancelled when the claim ends.
pub(crate) async fn call_write<T>(
    context: &Context,
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    match context.leadership.left() {
        Some(left) => call_within(left.min(CALL_TIMEOUT), doing, call).await,
        None => Err(ApiError { doing: doing(), cause: Cause::NotLeading }),
    }
}

/// Runs a call with this timeout. An error names the call.
pub(crate) async fn call_within<T>(
    limit: Duration,
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    match kube_client::within(limit, call).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(ApiError { doing: doing(), cause: Cause::Kube(Box::new(error)) }),
        Err(late) => Err(ApiError { doing: doing(), cause: late.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        Args,
        app::reporter,
        leader::leadership::{Standing, Term},
        observer::Unobserved,
    };
    use clap::Parser;
    use tokio::sync::watch;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn context(leadership: Leadership, clock: Clock) -> Context {
        // No request is sent to this address.
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        let client = kube_client::connect(config, &kube_client::Options::of("test")).expect("one");
        let settings = Flags::parse_from(["beatkeeper"]).args.try_into().expect("the defaults");
        let event_recorder = EventRecorder::new(client.clone(), reporter());
        let instruments = Instruments::new(Process::default(), clock, Arc::new(Unobserved), false);
        let probe = Probe::new("default", "test");
        Context::new(
            client,
            settings,
            event_recorder,
            probe,
            instruments,
            leadership,
            CancellationToken::new(),
        )
    }

    fn claimed_for(left: Duration) -> (Context, watch::Sender<Standing>) {
        let clock = Clock::start();
        let (sender, receiver) = watch::channel(Standing::default());
        let context = context(Leadership::elected(clock, receiver), clock);
        let valid_until = clock.now() + left;
        sender.send_replace(Standing { term: Some(Term(1)), valid_until });
        (context, sender)
    }

    fn doing() -> String {
        "write".to_owned()
    }

    #[tokio::test]
    async fn a_write_is_sent_while_the_claim_holds() {
        let (context, _standing) = claimed_for(Duration::from_secs(60));
        assert_eq!(call_write(&context, doing, async { Ok(7) }).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn a_write_is_not_even_begun_without_the_claim_and_a_read_is() {
        let (context, _standing) = claimed_for(Duration::ZERO);
        let mut begun = false;
        let write = async {
            begun = true;
            Ok(())
        };
        let error = call_write(&context, doing, write).await.expect_err("refused");
        assert_eq!(error.to_string(), "cannot write: this replica does not lead");
        assert!(!begun);
        assert_eq!(call(doing, async { Ok(7) }).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn a_write_without_an_answer_is_given_up_when_the_claim_ends() {
        let (context, _standing) = claimed_for(Duration::from_millis(300));
        let write = std::future::pending::<Result<(), kube::Error>>();
        let error = call_write(&context, doing, write).await.expect_err("no answer");
        assert!(matches!(error.cause, Cause::TimedOut(_)), "{error}");
        assert!(!context.leadership.holds());
    }
}
