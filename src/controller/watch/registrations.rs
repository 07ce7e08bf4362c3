//! The watch of the registrations.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;
use futures::{Stream, StreamExt};
use kube::runtime::{
    reflector::{self, Store},
    watcher::{self, Event},
};

use super::{begin::WatchStarter, unreadable::UnreadableObjects};
use crate::{controller::registrations::Registrations, kube_client::list::Collection};
use beatkeeper_core::{objects::decode::Decoded, vocabulary::key::Key};

const REGISTRATIONS: &str = "ServiceRegistrations";

/// Follows the registrations of one scope.
#[derive(Clone)]
pub(crate) struct RegistrationWatch {
    pub(crate) watches: WatchStarter,
    pub(crate) registrations: Arc<Registrations>,
}

impl RegistrationWatch {
    /// Starts the watch. Returns the store that it keeps up to date.
    pub(crate) fn start(&self) -> Store<ServiceRegistration> {
        let watches = &self.watches;
        let all =
            Collection::of::<ServiceRegistration>(&watches.client, watches.namespace.as_deref());
        let (reader, writer) = reflector::store();
        let unreadable = UnreadableObjects::of(REGISTRATIONS, &watches.telemetry);
        let events = readable(watches.begin(REGISTRATIONS, all), unreadable);
        let events = reflector::reflector(writer, events);
        let follow = self.clone().follow(reader.clone(), events);
        watches.tasks.spawn_for_ever(follow);
        reader
    }

    /// Notes that the registrations have been listed once.
    pub(crate) fn note_first_list(&self) {
        self.watches.note_first_list(REGISTRATIONS);
    }

    /// Keeps the registrations up to date. Wakes each changed registration and those that share a Service with
    /// it.
    async fn follow(
        self,
        reader: Store<ServiceRegistration>,
        events: impl Stream<Item = watcher::Result<Event<ServiceRegistration>>>,
    ) {
        let mut events = std::pin::pin!(events);
        let mut health = self.watches.health(REGISTRATIONS);
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
