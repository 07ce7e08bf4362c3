//! The watch of the registrations.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;
use futures::{Stream, StreamExt};
use kube::{
    Client,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event},
    },
};

use super::{
    access::{ReadAccess, relist_after_refusal},
    backoff::WatchBackoff,
    health::{WatchHealth, cache_name},
    relist::Relists,
    unreadable::UnreadableObjects,
};
use crate::{
    controller::{registrations::Registrations, tasks::Tasks, telemetry::Telemetry},
    kube_client::{list::Collection, observe::observe},
};
use beatkeeper_core::{objects::decode::Decoded, vocabulary::key::Key};

const REGISTRATIONS: &str = "ServiceRegistrations";

/// Follows the registrations of one scope.
#[derive(Clone)]
pub(crate) struct RegistrationWatch {
    pub(crate) namespace: Option<String>,
    pub(crate) client: Client,
    pub(crate) tasks: Tasks,
    pub(crate) telemetry: Telemetry,
    pub(crate) read_access: Arc<ReadAccess>,
    pub(crate) relists: Arc<Relists>,
    pub(crate) registrations: Arc<Registrations>,
}

impl RegistrationWatch {
    /// Starts the watch. Returns the store that it keeps up to date.
    pub(crate) fn start(&self) -> Store<ServiceRegistration> {
        let namespace = self.namespace.as_deref();
        let all = Collection::of::<ServiceRegistration>(&self.client, namespace);
        let (reader, writer) = reflector::store();
        let unreadable = UnreadableObjects::of(REGISTRATIONS, &self.telemetry);
        let events = self.relists.of(REGISTRATIONS, move || {
            let all = all.clone();
            relist_after_refusal(move || observe(all.clone())).backoff(WatchBackoff::new())
        });
        let events = reflector::reflector(writer, readable(events, unreadable));
        self.telemetry.health.lock().await_cache(&cache_name(REGISTRATIONS, namespace));
        self.read_access.expect(REGISTRATIONS);
        let follow = self.clone().follow(reader.clone(), events);
        self.tasks.spawn_for_ever(follow);
        reader
    }

    /// Notes that the registrations have been listed once.
    pub(crate) fn note_first_list(&self) {
        let cache = cache_name(REGISTRATIONS, self.namespace.as_deref());
        self.telemetry.health.lock().cache_read(&cache);
    }

    /// Keeps the registrations up to date. Wakes each changed registration and those that share a Service with
    /// it.
    async fn follow(
        self,
        reader: Store<ServiceRegistration>,
        events: impl Stream<Item = watcher::Result<Event<ServiceRegistration>>>,
    ) {
        let mut events = std::pin::pin!(events);
        let mut health = WatchHealth::of(REGISTRATIONS, &self.telemetry, &self.read_access);
        while let Some(event) = events.next().await {
            let Some(event) = health.take(event) else { continue };
            match event {
                Event::Apply(object) => self.registrations.put(&object),
                Event::Delete(object) => self.registrations.remove(&Key::of(&object.metadata)),
                Event::Init | Event::InitApply(_) => {}
                Event::InitDone => self.registrations.put_all(&reader.state()),
            }
        }
    }
}

/// Passes on the registrations of which at least the name can be read. Nearly all registrations are readable
/// ([`lenient`](beatkeeper_core::objects::salvage)). Others are skipped and reported.
fn readable(
    events: impl Stream<Item = watcher::Result<Event<Decoded<ServiceRegistration>>>>,
    mut unreadable: UnreadableObjects,
) -> impl Stream<Item = watcher::Result<Event<ServiceRegistration>>> {
    events.filter_map(move |event| {
        if let Ok(event) = &event {
            unreadable.note(event);
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
