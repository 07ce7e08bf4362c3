//! The queue: whom somebody woke is reconciled, each registration one run at a time, so many of them
//! side by side, and those that wait in the order in which they came.
//!
//! The order is our own. kube-runtime, told to limit its runs, takes any of those that wait: whoever
//! lies first in a hash table. Under load, when many are woken again before the last ones have had a
//! turn, the same few would be run for ever, and a dead instance of the others stay published for as
//! long as that lasts (P2). So there all begin at once, and wait here.

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

use super::error::Error;

/// Reconciles whom `requests` name, until they end: `places` of them at the same time, each as it is
/// when its turn has come. `retry` says when one is to be tried again.
pub(super) async fn work_off<R: Future<Output = Result<Action, Error>> + Send + 'static>(
    requests: impl Stream<Item = ObjectRef<ServiceRegistration>> + Send + 'static,
    reader: Store<ServiceRegistration>,
    places: u16,
    run: impl Fn(Arc<ServiceRegistration>) -> R + Clone + Send + Sync + 'static,
    retry: impl Fn(&ServiceRegistration, &Error) -> Action + Send + Sync + 'static,
) {
    let requests = requests.map(|object| Ok::<_, watcher::Error>(ReconcileRequest::from(object)));
    // Hands its places out in the order in which they were asked for.
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
            // Told by the retry policy, or woken for one that is gone.
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
    async fn whoever_waits_has_its_turn_however_often_others_are_woken() {
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
                // While one is running, everybody is woken again.
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
