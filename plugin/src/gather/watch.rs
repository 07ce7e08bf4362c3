//! Watches what belongs to registrations. Nothing is polled: each kind is listed once and then watched.

use std::time::Duration;

use beatkeeper::kube_client::{list::Collection, observe::observe};
use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::{
    objects::decode::{Decode, Decoded},
    vocabulary::key::Key,
};
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::runtime::watcher::{self, Event};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
    time::sleep,
};

use super::{lease_collection, scope::Wanted, slice_collection};
use crate::{
    error::Problem,
    model::{
        change::{Change, Object},
        kind::Kind,
        lease::SeenLease,
    },
    session::Session,
};

/// How many changes may wait to be taken in.
const WAITING: usize = 4096;
/// The pause before a watch that has failed starts again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The same if the API server has refused it: that changes only when a person changes rights.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The watches of all kinds. They end when this is dropped.
pub struct Watches {
    changes: Receiver<Change>,
    _tasks: JoinSet<()>,
}

impl Watches {
    /// Starts the watches. `service` is the Service of the only registration that is wanted.
    pub fn start(session: &Session, wanted: &Wanted, service: Option<&str>) -> Self {
        let (sender, changes) = channel(WAITING);
        let mut tasks = JoinSet::new();
        let client = &session.client;
        let registrations = wanted.scope.collection::<ServiceRegistration>(client);
        let registrations = match &wanted.labels {
            Some(labels) => registrations.labelled(labels),
            None => registrations,
        };
        tasks.spawn(follow(registrations, Kind::ServiceRegistration, sender.clone(), |it| {
            Object::Registration(Box::new(it))
        }));
        let leases = lease_collection(client, wanted);
        tasks.spawn(follow(leases, Kind::Lease, sender.clone(), |it: SeenLease| {
            Object::Lease(Box::new(it))
        }));
        let slices = slice_collection(client, wanted, service);
        tasks.spawn(follow(slices, Kind::EndpointSlice, sender.clone(), |it: EndpointSlice| {
            Object::Slice(Box::new(it))
        }));
        let pods = wanted.scope.collection::<Pod>(client);
        tasks.spawn(follow(pods, Kind::Pod, sender.clone(), |it: Pod| Object::Pod(Box::new(it))));
        let services = wanted.scope.collection::<Service>(client);
        tasks.spawn(follow(services, Kind::Service, sender.clone(), |it: Service| {
            Object::Service(Box::new(it))
        }));
        let endpoints = wanted.scope.collection::<Endpoints>(client);
        tasks.spawn(follow(endpoints, Kind::Endpoints, sender, |it: Endpoints| {
            Object::Endpoints(Box::new(it))
        }));
        Self { changes, _tasks: tasks }
    }

    /// The next change. It can be awaited again after an attempt that was given up.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }

    /// A change that has already arrived.
    pub fn ready(&mut self) -> Option<Change> {
        self.changes.try_recv().ok()
    }
}

/// Follows one kind until the receiver of its changes is dropped.
async fn follow<K, F>(collection: Collection, kind: Kind, changes: Sender<Change>, wrap: F)
where
    K: Decode + Named + Send + 'static,
    F: Fn(K) -> Object,
{
    let mut events = Box::pin(observe::<K>(collection));
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => Change::ListBegins(kind),
            Ok(Event::InitDone) => Change::ListEnds(kind),
            Ok(Event::InitApply(object)) => read(object, |it| Change::Listed(wrap(it))),
            Ok(Event::Apply(object)) => read(object, |it| Change::Changed(wrap(it))),
            Ok(Event::Delete(Ok(object))) => Change::Gone(kind, object.key()),
            Ok(Event::Delete(Err(unreadable))) => Change::Gone(kind, unreadable.key.clone()),
            Err(error) => {
                if changes.send(Change::Failed(kind, why(&error))).await.is_err() {
                    return;
                }
                sleep(if is_refused(&error) { REFUSED_AGAIN_AFTER } else { AGAIN_AFTER }).await;
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn read<K>(object: Decoded<K>, change: impl FnOnce(K) -> Change) -> Change {
    match object {
        Ok(object) => change(object),
        Err(unreadable) => Change::Unreadable {
            what: format!("{} {}", unreadable.kind, unreadable.key),
            why: unreadable.why,
        },
    }
}

fn why(error: &watcher::Error) -> String {
    match problem(error) {
        Some(problem) => problem.brief(),
        None => beatkeeper_api::text::plain_error_chain(error),
    }
}

fn is_refused(error: &watcher::Error) -> bool {
    matches!(problem(error), Some(Problem::Unknown | Problem::Forbidden(_)))
}

/// What the API server says of a request.
fn problem(error: &watcher::Error) -> Option<Problem> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(Problem::of(error)),
        _ => None,
    }
}

/// An object that has a name.
trait Named {
    fn key(&self) -> Key;
}

impl Named for SeenLease {
    fn key(&self) -> Key {
        self.key.clone()
    }
}

macro_rules! named_by_metadata {
    ($($kind:ty),*) => {
        $(impl Named for $kind {
            fn key(&self) -> Key {
                Key::of(&self.metadata)
            }
        })*
    };
}

named_by_metadata!(ServiceRegistration, Pod, Service, EndpointSlice, Endpoints);
