//! What all steps share: the client, what is known, and what is remembered of each registration.

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

use super::{
    access::Accesses,
    anew::Beginnings,
    announcer::Announcer,
    claim::Claim,
    clock::Clock,
    desk::Desks,
    error::{ApiError, Cause},
    host::Process,
    metrics::Metrics,
    probe::{Others, Probe},
    serve::SharedHealth,
    settings::Settings,
};
use crate::kube_client::{self, gate::Gate};
use beatkeeper_core::{
    address::AddressSet,
    bucket::{Bucket, Limit},
    flapping::Flaps,
    flow::Guard,
    frozen::Earlier,
    gates::Gates,
    heartbeat::Version,
    index::{Index, Key},
    moment::Moment,
    notice::Remembered,
    path::Path,
    refusal::Refusals,
    temper::Paces,
    ttl::{Replaced, TtlHistory},
    verdict::Suspect,
    world::World,
};

/// A call to the API server that is not a watch ends after this long. Far above what a healthy one
/// takes (p99 12 ms), and far below any ttl worth having.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What all steps share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// Whether this process may write.
    pub(super) claim: Claim,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: SharedHealth,
    pub(super) announcer: Announcer,
    /// What every task belongs to that is spawned.
    pub(super) process: Process,
    /// What is under way beside the queue; awaited when the controller stops.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the controller is to stop.
    pub(super) stop: CancellationToken,
    /// What the API server lets this scope read.
    pub(super) accesses: Accesses,
    index: Arc<Mutex<Index>>,
    world: Mutex<World>,
    /// Has the watches begun anew.
    pub(super) beginnings: Beginnings,
    /// The probe of this replica.
    pub(super) probe: Probe,
    path: Mutex<Path>,
    other_probes: Mutex<Others>,
    /// The registrations with a decision that waits for a probe.
    unproven: Mutex<HashSet<Key>>,
    guard: Mutex<Guard>,
    memories: Mutex<HashMap<Key, Memory>>,
    replaced: Mutex<Replaced>,
    gates: Mutex<Gates>,
    /// Wakes the task that writes the Pods' conditions when there is something new.
    pub(super) gate_news: Notify,
    paces: Mutex<KeptPaces>,
    desks: Mutex<Desks>,
    /// Turns of those who have something to tell.
    telling: Semaphore,
    term: Mutex<Term>,
}

/// The paces of registrations that are calm are looked for this often.
const KEPT_PACES: Duration = Duration::from_secs(10);

/// How often something is written for each registration.
#[derive(Debug, Default)]
struct KeptPaces {
    of: HashMap<Key, Paces>,
    /// When those that are calm were last forgotten.
    swept: Moment,
}

/// The time in which this process leads, or the last one.
#[derive(Debug, Default)]
struct Term {
    /// When it began.
    began: Moment,
    /// Set while the queue listens. Before, every beat would be a wake, and none is needed: the
    /// queue begins with all registrations.
    wakes: Option<UnboundedSender<ObjectRef<ServiceRegistration>>>,
}

/// What the scopes of one process have in common.
#[derive(Clone)]
pub(super) struct Instruments {
    pub(super) process: Process,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: SharedHealth,
}

impl Instruments {
    pub(super) fn new(process: Process, clock: Clock, metrics_per_registration: bool) -> Self {
        let metrics = Arc::new(Metrics::new(clock, metrics_per_registration));
        Self { process, clock, metrics, health: SharedHealth::new(clock) }
    }
}

/// What is remembered of a registration from one reconciliation to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Of which registration; one made anew under the name begins from nothing.
    uid: String,
    /// The ttls it had.
    pub(super) ttl: Option<TtlHistory>,
    /// Leases that were made anew are not given their cordons back before, after one could not be written.
    pub(super) cordons_rest_until: Moment,
    /// When something that had to wait may be done.
    pub(super) look_again: Option<Moment>,
    /// Whose state changes again and again.
    pub(super) flaps: Flaps,
    /// When events that had to wait are told.
    pub(super) tells_at: Option<Moment>,
    /// When it is to be looked at again because of the time alone.
    pub(super) due: Option<Moment>,
    /// The states that were last told in events; none before the first time after a start.
    pub(super) told: Option<Remembered>,
    /// Its Endpoints are not updated again before.
    pub(super) endpoints_rest_until: Moment,
    /// How often it failed in a row.
    pub(super) failures: u32,
    /// How often in a row some Lease could not be read.
    pub(super) failed_reads: u32,
    /// Who was in doubt at the last decision, or will be from his deadline on.
    pub(super) foreseen: Vec<Suspect>,
    /// Whether the Service was one that a person made when it was last there.
    pub(super) foreign_service: bool,
    /// Since when the Service with this uid has been seen without a selector.
    pub(super) without_selector: Option<(String, Moment)>,
    /// In a dry run: what would be published by now.
    pub(super) rehearsed: Option<AddressSet>,
    /// Where outside instances were when something could last be changed, with the generation of the spec that
    /// said so; none of what a status told.
    pub(super) earlier: Option<(Option<i64>, Arc<Earlier>)>,
    /// The adopted instances as this process wrote them last.
    pub(super) adopted: Option<(Version, Vec<AdoptedInstance>)>,
    /// What the API server refuses to have published.
    pub(super) refusals: Refusals,
    /// Adopted instances that have been seen to beat, until the status says so.
    pub(super) weaned: Vec<AdoptedInstance>,
    /// Since when such a Service is missing.
    pub(super) service_gone: Option<Moment>,
    /// The deadlines of instances that are decided to be pruned, until the write is confirmed; by
    /// the name of the Lease.
    pub(super) pruning: HashMap<Arc<str>, Moment>,
}

impl Context {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        announcer: Announcer,
        probe: Probe,
        Instruments { process, clock, metrics, health }: Instruments,
        claim: Claim,
        stop: CancellationToken,
    ) -> Self {
        let tellers = Gate::background(settings.max_parallel_api_calls.into());
        let index = Arc::<Mutex<Index>>::default();
        metrics.count_leases_of(index.clone());
        Self {
            client,
            settings,
            clock,
            accesses: Accesses::default(),
            beginnings: Beginnings::default(),
            probe,
            path: Mutex::new(Path::new(clock.now())),
            other_probes: Mutex::default(),
            unproven: Mutex::default(),
            guard: Mutex::default(),
            claim,
            metrics,
            health,
            announcer,
            process,
            tasks: TaskTracker::new(),
            stop,
            index,
            world: Mutex::default(),
            memories: Mutex::default(),
            replaced: Mutex::default(),
            gates: Mutex::default(),
            gate_news: Notify::new(),
            paces: Mutex::default(),
            desks: Mutex::default(),
            telling: Semaphore::new(tellers),
            term: Mutex::default(),
        }
    }

    /// Waits for a turn to tell something. There are as many as the gate has places for that, but who waits
    /// here is not timed yet: a thousand may have something to tell at once. None once the controller is
    /// to stop.
    pub(super) async fn turn_to_tell(&self) -> Option<SemaphorePermit<'_>> {
        self.stop.run_until_cancelled(self.telling.acquire()).await?.ok()
    }

    /// The liveness index; never held across an await.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster; never held across an await.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way of the beats; never held across an await.
    pub(super) fn path(&self) -> MutexGuard<'_, Path> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The probes of other replicas; never held across an await.
    pub(super) fn other_probes(&self) -> MutexGuard<'_, Others> {
        self.other_probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who waits for a probe to come back; never held across an await.
    pub(super) fn unproven(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.unproven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard against a broken path; never held across an await.
    pub(super) fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the probe renewed at the pace that the registrations ask for now.
    pub(super) fn suit_pace(&self) {
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

    /// The reports that wait to be written; never held across an await.
    pub(super) fn desks(&self) -> MutexGuard<'_, Desks> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ttls of registrations that have just gone; never held across an await.
    fn replaced(&self) -> MutexGuard<'_, Replaced> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Pods with our readiness gate are told; never held across an await.
    pub(super) fn gates(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these Pods looked at, those that ask for our readiness gate.
    pub(super) fn look_at_gates(&self, pods: impl IntoIterator<Item = Key>) {
        let now = self.clock.now();
        let mut any = false;
        for pod in pods {
            self.gates().look_at(&pod, now);
            any = true;
        }
        if any {
            self.gate_news.notify_one();
        }
    }

    /// How often something is written for a registration.
    pub(super) fn paces<T>(&self, key: &Key, ask: impl FnOnce(&mut Paces) -> T) -> T {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        ask(paces.of.entry(key.clone()).or_default())
    }

    /// Takes one of a limit that is kept for a registration; else, when there will be one.
    pub(super) fn may(
        &self,
        key: &Key,
        limit: Limit,
        which: impl FnOnce(&mut Paces) -> &mut Bucket,
    ) -> Result<(), Moment> {
        let now = self.clock.now();
        self.paces(key, |paces| which(paces).take(limit, now))
    }

    /// Looks at, or changes, what is remembered of a registration.
    pub(super) fn remember<T>(
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

    /// Forgets what was known by versions.
    pub(super) fn forget_versions(&self) {
        self.other_probes().forget_all();
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.values_mut().for_each(|memory| memory.adopted = None);
        drop(memories);
        self.desks().forget_written();
    }

    /// Forgets a registration that is gone. It may be about to be replaced: then its instances keep the
    /// pace that they read last.
    pub(super) fn forget(&self, key: &Key) {
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
        // Its own is kept until it is calm: it may be made anew. Those of all are not gone through for each that goes.
        if now.since(paces.swept) >= KEPT_PACES {
            paces.of.retain(|_, paces| !paces.are_calm(now));
            paces.swept = now;
        }
        self.metrics.forget(key);
    }

    /// Notes the ttl that a registration has now, as the watch shows it. A standby does so too, so that
    /// the next leader knows of the edits (L8). `told` is the former ttl
    /// that the status tells of, for a process that has just started.
    pub(super) fn note_ttl(&self, key: &Key, uid: &str, ttl: Duration, told: Option<Duration>) {
        let now = self.clock.now();
        // One that was replaced while no watch told of it is noticed here.
        self.remember(key, uid, |_| ());
        let replaced = self.replaced().take(key, now);
        self.remember(key, uid, |memory| match &mut memory.ttl {
            Some(history) => history.set(ttl, now),
            none => *none = Some(TtlHistory::after(told.max(replaced), ttl, now)),
        });
    }

    /// A term begins: from now on whoever is woken comes out here.
    ///
    /// What another replica did meanwhile this one does not know. What was told is found in the
    /// status, as after a start.
    pub(super) fn begin_term(&self) -> UnboundedReceiver<ObjectRef<ServiceRegistration>> {
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
        let (wakes, woken) = mpsc::unbounded();
        let began = self.clock.now();
        *self.term() = Term { began, wakes: Some(wakes) };
        woken
    }

    /// When the present term began.
    pub(super) fn term_began(&self) -> Moment {
        self.term().began
    }

    /// A term is over: nobody has to be woken until the next one, and what was decided last is not what is.
    pub(super) fn end_term(&self) {
        self.term().wakes = None;
        let memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        // Of this scope: another one may lead again already.
        memories.keys().for_each(|key| self.metrics.forget(key));
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what is to run until the controller stops. When it ends by itself, which takes a defect,
    /// the controller stops: it must not go on deciding from what nobody keeps up to date.
    pub(super) fn spawn_for_ever(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            // Dropped on a panic, too.
            let _ended = stop.clone().drop_guard();
            stop.run_until_cancelled(task).await;
        });
    }

    /// Runs something beside the queue, to its end.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.process.task(task));
    }

    /// Has these registrations reconciled soon. Those that do not exist are passed over.
    pub(super) fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            // As after nearly every beat.
            return;
        }
        let term = self.term();
        let Some(wakes) = &term.wakes else { return };
        for key in keys {
            // Fails only when the term is ending, and then nobody needs to be woken.
            let _ = wakes.unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    }
}

/// Bounds a call that reads, and names it.
pub(super) async fn call<T>(
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    call_within(CALL_TIMEOUT, doing, call).await
}

/// Bounds a call that writes, and names it. It is sent only while the claim to lead holds, and given
/// up when that ends.
pub(super) async fn call_write<T>(
    context: &Context,
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    match context.claim.left() {
        Some(left) => call_within(left.min(CALL_TIMEOUT), doing, call).await,
        None => Err(ApiError { doing: doing(), cause: Cause::NotLeading }),
    }
}

/// Bounds any call, and names it.
pub(super) async fn call_within<T>(
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
        claim::{Standing, Term},
        run::reporter,
    };
    use clap::Parser;
    use tokio::sync::watch;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn context(claim: Claim, clock: Clock) -> Context {
        // Nobody is asked.
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        let client = kube_client::connect(config, &kube_client::Options::of("test")).expect("one");
        let settings = Flags::parse_from(["beatkeeper"]).args.try_into().expect("the defaults");
        let announcer = Announcer::new(client.clone(), reporter());
        let instruments = Instruments::new(Process::default(), clock, false);
        let probe = Probe::new("default", "test");
        Context::new(
            client,
            settings,
            announcer,
            probe,
            instruments,
            claim,
            CancellationToken::new(),
        )
    }

    fn claimed_for(left: Duration) -> (Context, watch::Sender<Standing>) {
        let clock = Clock::start();
        let (sender, receiver) = watch::channel(Standing::default());
        let context = context(Claim::elected(clock, receiver), clock);
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
        assert!(matches!(error.cause, Cause::TookTooLong(_)), "{error}");
        assert!(!context.claim.holds());
    }
}
