//! The watch of the election's Lease by replicas that do not lead.
//!
//! A replica that only reads the Lease, once per retry period, sees a renewal or a release up to one retry
//! period late, and it waits that much longer. A watch shows the change within milliseconds. The watch is only
//! an optimization: the Lease is read in any case. If the Lease cannot be watched, each change is seen up to
//! one retry period later.

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api,
    api::DynamicObject,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use crate::controller::{leader::lease::view, watch::backoff::WatchBackoff};
use beatkeeper_core::{objects::decode::Lenient, replica::leader::LeaderLease};

/// A watch that begins with the first call of [`Self::news`] and lasts until [`Self::rest`].
pub(crate) struct LeaseWatch {
    api: Api<Lenient<DynamicObject>>,
    name: String,
    events: Option<BoxStream<'static, watcher::Result<Event<Lenient<DynamicObject>>>>>,
    /// Whether the last event was an error. So the first failure in a row is logged as a warning, and the next
    /// ones are not.
    failing: bool,
}

impl LeaseWatch {
    pub(crate) fn new(api: &Api<Lenient<DynamicObject>>, name: &str) -> Self {
        Self { api: api.clone(), name: name.to_owned(), events: None, failing: false }
    }

    /// Waits until the Lease changes. Returns its new state, or None if it was deleted. The future may be
    /// dropped and called again; no change is lost.
    pub(crate) async fn news(&mut self) -> Option<LeaderLease> {
        let events = self.events.get_or_insert_with(|| {
            let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
            watcher(self.api.clone(), only).backoff(WatchBackoff::new()).boxed()
        });
        while let Some(event) = events.next().await {
            if matches!(event, Ok(Event::Init)) {
                // This event only announces a list. Whether the list succeeds is not known yet.
                continue;
            }
            let fails = event.is_err();
            let failed = std::mem::replace(&mut self.failing, fails);
            match event {
                Ok(Event::InitApply(lease) | Event::Apply(lease)) => return Some(view(&lease.0)),
                Ok(Event::Delete(_)) => return None,
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) if !failed => {
                    tracing::warn!(%error, "the election's Lease cannot be watched, only read");
                }
                Err(error) => tracing::debug!(%error, "still no watch of the election's Lease"),
            }
        }
        // A watch does not end by itself.
        std::future::pending().await
    }

    /// Ends the watch, since a leader would see only its own writes.
    pub(crate) fn rest(&mut self) {
        self.events = None;
    }
}
