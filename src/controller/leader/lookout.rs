//! The watch of the election's Lease by those who do not lead.
//!
//! Whoever reads every retry period sees a renewal, or a release, up to that much late, and waits so
//! much longer. A watch brings it within milliseconds. It is no more than that: the Lease is read all
//! the same, so where it cannot be watched everything takes the retry period longer.

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api,
    api::DynamicObject,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use super::view;
use crate::controller::pauses::Pauses;
use beatkeeper_core::{leader::ClaimLease, reading::Lenient};

/// A watch that is there from a question on, until it may rest.
pub(super) struct Lookout {
    api: Api<Lenient<DynamicObject>>,
    name: String,
    events: Option<BoxStream<'static, watcher::Result<Event<Lenient<DynamicObject>>>>>,
    /// Whether the last answer was an error, so that each trouble is told once.
    troubled: bool,
}

impl Lookout {
    pub(super) fn new(api: &Api<Lenient<DynamicObject>>, name: &str) -> Self {
        Self { api: api.clone(), name: name.to_owned(), events: None, troubled: false }
    }

    /// What the Lease is by now, once it changes; none where it was deleted. May be dropped and asked
    /// again, nothing is lost.
    pub(super) async fn news(&mut self) -> Option<ClaimLease> {
        let events = self.events.get_or_insert_with(|| {
            let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
            watcher(self.api.clone(), only).backoff(Pauses::new()).boxed()
        });
        while let Some(event) = events.next().await {
            if matches!(event, Ok(Event::Init)) {
                // Only the announcement of a list: whether it can be had is not known yet.
                continue;
            }
            let fails = event.is_err();
            let failed = std::mem::replace(&mut self.troubled, fails);
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

    /// Ends the watch: who leads would see its own writes only.
    pub(super) fn rest(&mut self) {
        self.events = None;
    }
}
