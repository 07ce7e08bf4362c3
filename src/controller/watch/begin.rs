//! How each watch of a scope is begun.

use std::sync::Arc;

use futures::Stream;
use kube::{
    Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};

use super::{
    access::{ReadAccess, relist_after_refusal},
    backoff::WatchBackoff,
    health::{WatchHealth, cache_name},
    relist::Relists,
};
use crate::{
    controller::{tasks::Tasks, telemetry::Telemetry},
    kube_client::{list::Collection, observe::observe},
};
use beatkeeper_core::objects::decode::{Decode, Decoded};

/// Begins the watches of one scope.
#[derive(Clone)]
pub(crate) struct WatchStarter {
    pub(crate) namespace: Option<String>,
    pub(crate) client: Client,
    pub(crate) tasks: Tasks,
    pub(crate) telemetry: Telemetry,
    pub(crate) read_access: Arc<ReadAccess>,
    pub(crate) relists: Arc<Relists>,
}

impl WatchStarter {
    /// Begins a watch, and makes readiness wait for its first list. The watch is begun again after each failure and
    /// each request for a new list.
    pub(crate) fn begin<K: Decode + Resource<DynamicType = ()> + Send + 'static>(
        &self,
        kind: &'static str,
        collection: Collection,
    ) -> impl Stream<Item = watcher::Result<Event<Decoded<K>>>> + Send + 'static {
        self.telemetry.health.lock().await_cache(&self.cache(kind));
        self.read_access.expect(kind);
        self.relists.of(kind, move || {
            let collection = collection.clone();
            relist_after_refusal(move || observe::<K>(collection.clone()))
                .backoff(WatchBackoff::new())
        })
    }

    /// The health of a watch that is begun.
    pub(crate) fn health(&self, kind: &'static str) -> WatchHealth {
        WatchHealth::of(kind, &self.telemetry, &self.read_access)
    }

    /// Notes that the objects of a kind have been listed once.
    pub(crate) fn note_first_list(&self, kind: &str) {
        self.telemetry.health.lock().cache_read(&self.cache(kind));
    }

    fn cache(&self, kind: &str) -> String {
        cache_name(kind, self.namespace.as_deref())
    }
}
