//! What all steps share: the client, what is known, and what is remembered of each registration.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use beatkeeper_api::ServiceRegistration;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use kube::{
    Client,
    runtime::{events::Recorder, reflector::ObjectRef},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    clock::Clock, desk::Desks, error::ApiError, metrics::Metrics, outage::Outages,
    serve::SharedHealth, settings::Settings,
};
use crate::{
    core::{
        index::{Index, Key},
        moment::Moment,
        status::Remembered,
        ttl::TtlHistory,
        world::World,
    },
    kube_client,
};

/// A call to the API server that is not a watch ends after this long. Far above what a healthy one
/// takes (p99 12 ms), and far below any ttl worth having.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What all steps share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: SharedHealth,
    pub(super) recorder: Recorder,
    /// What is under way beside the queue; awaited when the controller stops.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the controller is to stop.
    pub(super) stop: CancellationToken,
    index: Mutex<Index>,
    world: Mutex<World>,
    outages: Mutex<Outages>,
    memories: Mutex<HashMap<Key, Memory>>,
    desks: Mutex<Desks>,
    /// Set once the queue listens. Until then every beat would be a wake, and none is needed: the
    /// queue begins with all registrations.
    wakes: OnceLock<UnboundedSender<ObjectRef<ServiceRegistration>>>,
}

/// What the scopes of one process have in common.
#[derive(Clone)]
pub(super) struct Instruments {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: SharedHealth,
}

/// What is remembered of a registration from one reconciliation to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Of which registration; one made anew under the name begins from nothing.
    uid: String,
    /// The ttls it had.
    pub(super) ttl: Option<TtlHistory>,
    /// The states that were last told in events; none before the first time after a start.
    pub(super) told: Option<Remembered>,
    /// How often it failed in a row.
    pub(super) failures: u32,
    /// How often in a row some Lease could not be read.
    pub(super) failed_reads: u32,
    /// Whether the Service was one that a person made when it was last there.
    pub(super) foreign_service: bool,
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
        recorder: Recorder,
        Instruments { clock, metrics, health }: Instruments,
        stop: CancellationToken,
    ) -> Self {
        Self {
            client,
            settings,
            clock,
            metrics,
            health,
            recorder,
            tasks: TaskTracker::new(),
            stop,
            index: Mutex::default(),
            world: Mutex::default(),
            outages: Mutex::default(),
            memories: Mutex::default(),
            desks: Mutex::default(),
            wakes: OnceLock::new(),
        }
    }

    /// The liveness index; never held across an await.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster; never held across an await.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is seen of outages; never held across an await.
    pub(super) fn outages(&self) -> MutexGuard<'_, Outages> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reports that wait to be written; never held across an await.
    pub(super) fn desks(&self) -> MutexGuard<'_, Desks> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
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
            *memory = Memory { uid: uid.to_owned(), ..Memory::default() };
        }
        change(memory)
    }

    /// Forgets a registration that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.desks().forget(key);
        self.metrics.forget(key);
    }

    /// From now on whoever is woken comes out here.
    pub(super) fn listen(&self) -> UnboundedReceiver<ObjectRef<ServiceRegistration>> {
        let (wakes, woken) = mpsc::unbounded();
        // There is one queue, so this is the first time.
        let _ = self.wakes.set(wakes);
        woken
    }

    /// Runs what is to run until the controller stops. When it ends by itself, which takes a defect,
    /// the controller stops: it must not go on deciding from what nobody keeps up to date.
    pub(super) fn spawn_for_ever(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // Dropped on a panic, too.
            let _ended = stop.clone().drop_guard();
            stop.run_until_cancelled(task).await;
        });
    }

    /// Has these registrations reconciled soon. Those that do not exist are passed over.
    pub(super) fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        let Some(wakes) = self.wakes.get() else { return };
        for key in keys {
            // Fails only when the controller is stopping, and then nobody needs to be woken.
            let _ = wakes.unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    }
}

/// Bounds a call and names it.
pub(super) async fn call<T>(
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    match kube_client::within(CALL_TIMEOUT, call).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => {
            Err(ApiError { doing: doing(), cause: super::error::Cause::Kube(Box::new(error)) })
        }
        Err(late) => Err(ApiError { doing: doing(), cause: late.into() }),
    }
}
