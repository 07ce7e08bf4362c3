//! The work queue: reconciles the registrations that were woken. Each registration has at most one run at a
//! time. A limited number of registrations run at once, and the others wait in the order of their arrival.
//!
//! This module implements the order itself. If kube-runtime limits the runs, it takes the waiting ones in the
//! order of a hash table. Under load, with many registrations woken again before the waiting ones have run, the
//! same few would run for ever. Dead instances of the others would stay published for as long as the load lasts
//! (P2). So kube-runtime starts all runs at once, and the runs wait here.

use std::{future::Future, sync::Arc};

use beatkeeper_api::ServiceRegistration;
use futures::{Stream, StreamExt};
use kube::runtime::{
    applier,
    controller::{Action, Config, Error as QueueError, ReconcileRequest},
    reflector::{ObjectRef, Store},
    watcher,
};
use tokio::sync::Semaphore;

use crate::controller::error::Error;

/// Reconciles the registrations in `requests` until the stream ends, at most `places` of them at the same time.
/// Each run gets the latest state of its registration when its turn comes. `retry` returns when to retry after
/// an error.
pub(crate) async fn work_off<R: Future<Output = Result<Action, Error>> + Send + 'static>(
    requests: impl Stream<Item = ObjectRef<ServiceRegistration>> + Send + 'static,
    reader: Store<ServiceRegistration>,
    places: u16,
    run: impl Fn(Arc<ServiceRegistration>) -> R + Clone + Send + Sync + 'static,
    retry: impl Fn(&ServiceRegistration, &Error) -> Action + Send + Sync + 'static,
) {
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
        work_off(requests, reader, 2, run, |_, _| Action::await_change()).await;
        let runs = runs.lock().unwrap();
        let fewest = runs.values().min().copied().unwrap_or_default();
        assert!(runs.len() == REGISTRATIONS && fewest >= RUNS / 20 - 1, "{runs:?}");
    }
}
