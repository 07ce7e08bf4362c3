//! The work queue: reconciles the registrations that were woken. Each registration has at most one run at a
//! time. A limited number of registrations run at once, and the others wait in the order of their arrival.
//!
//! This module implements the order itself. If kube-runtime limits the runs, it takes the waiting ones in the
//! order of a hash table. Under load, with many registrations woken again before the waiting ones have run, the
//! same few would run for ever. Dead instances of the others would stay published for as long as the load lasts
//! (P2). So kube-runtime starts all runs at once, and the runs wait here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use beatkeeper_api::ServiceRegistration;
use futures::{
    Stream, StreamExt,
    channel::mpsc::{self, UnboundedReceiver, UnboundedSender},
};
use kube::runtime::{
    applier,
    controller::{Action, Config, Error as QueueError, ReconcileRequest},
    reflector::{ObjectRef, Store},
    watcher,
};
use tokio::sync::Semaphore;

use crate::controller::clock::Clock;
use beatkeeper_core::vocabulary::{key::Key, monotonic_time::MonotonicTime};

/// The registrations that were woken, for the current term of this process.
pub(crate) struct WorkQueue {
    clock: Clock,
    term: Mutex<Term>,
}

/// The current term of this process, or its last one.
#[derive(Debug, Default)]
struct Term {
    /// When it began.
    began: MonotonicTime,
    /// Set while registrations are reconciled. Before that no registration has to be woken, since a term begins
    /// with all of them. Without this rule every beat would wake its registration.
    requests: Option<UnboundedSender<ObjectRef<ServiceRegistration>>>,
}

impl WorkQueue {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, term: Mutex::default() }
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a term. From now on the returned channel delivers the registrations that are woken.
    pub(crate) fn begin_term(&self) -> UnboundedReceiver<ObjectRef<ServiceRegistration>> {
        let (requests, woken) = mpsc::unbounded();
        *self.term() = Term { began: self.clock.now(), requests: Some(requests) };
        woken
    }

    /// When the current term began, or the last one.
    pub(crate) fn term_began(&self) -> MonotonicTime {
        self.term().began
    }

    /// Since when registrations are reconciled in the current term; None if none are.
    pub(crate) fn publishing_since(&self) -> Option<MonotonicTime> {
        let term = self.term();
        term.requests.is_some().then_some(term.began)
    }

    /// Ends a term. No registration is woken until the next term.
    pub(crate) fn end_term(&self) {
        self.term().requests = None;
    }

    /// Queues these registrations to be reconciled. Registrations that do not exist are ignored.
    pub(crate) fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            // This is the case after nearly every beat.
            return;
        }
        let term = self.term();
        let Some(requests) = &term.requests else { return };
        for key in keys {
            // This fails only when the term is ending. Then no registration has to be woken.
            let _ = requests.unbounded_send(ObjectRef::new(&key.name).within(&key.namespace));
        }
    }
}

/// Reconciles the registrations in `requests` until the stream ends, at most `places` of them at the same time.
/// Each run gets the latest state of its registration when its turn comes. `retry` returns when to retry after
/// an error.
pub(crate) async fn work_off<R, E>(
    requests: impl Stream<Item = ObjectRef<ServiceRegistration>> + Send + 'static,
    reader: Store<ServiceRegistration>,
    places: u16,
    run: impl Fn(Arc<ServiceRegistration>) -> R + Clone + Send + Sync + 'static,
    retry: impl Fn(&ServiceRegistration, &E) -> Action + Send + Sync + 'static,
) where
    R: Future<Output = Result<Action, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let requests = requests.map(|object| Ok::<_, watcher::Error>(ReconcileRequest::from(object)));
    // The semaphore grants permits in the order of the requests.
    let turns = Arc::new(Semaphore::new(usize::from(places)));
    let unlimited = Config::default().concurrency(0);
    let latest = reader.clone();
    let in_turn = move |object: Arc<ServiceRegistration>| {
        let (run, turns, latest) = (run.clone(), turns.clone(), latest.clone());
        async move {
            let _turn = turns.acquire_owned().await;
            match latest.get(&ObjectRef::from_obj(&*object)) {
                Some(object) => run(object).await,
                None => Ok(Action::await_change()),
            }
        }
    };
    applier(
        |object, _| Box::pin(in_turn(object)),
        |object, error, _| retry(&object, error),
        Arc::new(()),
        reader,
        Box::pin(requests),
        unlimited,
    )
    .for_each(|result| async {
        match result {
            // The retry policy has logged the error, or a deleted registration was woken.
            Ok(_) | Err(QueueError::ReconcilerFailed(..) | QueueError::ObjectNotFound(_)) => {}
            Err(error) => tracing::error!(%error, "the queue failed"),
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex, time::Duration};

    use futures::channel::mpsc;
    use kube::{
        ResourceExt,
        runtime::{reflector, watcher::Event},
    };
    use tokio_util::sync::CancellationToken;

    use super::*;

    const REGISTRATIONS: usize = 20;
    const RUNS: u32 = 200;

    fn registration(number: usize) -> ServiceRegistration {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "namespace": "shop", "name": format!("greeter-{number}") },
            "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))
        .expect("a registration")
    }

    #[tokio::test]
    async fn a_waiting_registration_has_its_turn_however_often_others_are_woken() {
        let (reader, mut writer) = reflector::store();
        let all: Vec<_> = (0..REGISTRATIONS).map(registration).collect();
        writer.apply_watcher_event(&Event::Init);
        for object in &all {
            writer.apply_watcher_event(&Event::InitApply(object.clone()));
        }
        writer.apply_watcher_event(&Event::InitDone);

        let (wake, woken) = mpsc::unbounded();
        let refs: Vec<_> = all.iter().map(ObjectRef::from_obj).collect();
        let wake_all = move || {
            for object in &refs {
                let _ = wake.unbounded_send(object.clone());
            }
        };
        wake_all();
        let runs: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let enough = CancellationToken::new();
        let run = {
            let (runs, enough) = (runs.clone(), enough.clone());
            move |object: Arc<ServiceRegistration>| {
                let mut runs = runs.lock().unwrap();
                *runs.entry(object.name_any()).or_default() += 1;
                if runs.values().sum::<u32>() >= RUNS {
                    enough.cancel();
                }
                // During each run, all registrations are woken again.
                wake_all();
                async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok(Action::await_change())
                }
            }
        };
        let requests = woken.take_until(enough.cancelled_owned());
        let retry = |_: &_, _: &std::convert::Infallible| Action::await_change();
        work_off(requests, reader, 2, run, retry).await;
        let runs = runs.lock().unwrap();
        let fewest = runs.values().min().copied().unwrap_or_default();
        assert!(runs.len() == REGISTRATIONS && fewest >= RUNS / 20 - 1, "{runs:?}");
    }
}
