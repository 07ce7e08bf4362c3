//! The health of a watch. It is logged on change and not on every attempt.

use std::sync::Arc;

use kube::runtime::watcher::{self, Event};

use super::access::ReadAccess;
use crate::controller::{metrics::ages::LastSeen, telemetry::Telemetry};

/// The health of one watch.
pub(crate) struct WatchHealth {
    kind: &'static str,
    broken: bool,
    telemetry: Telemetry,
    read_access: Arc<ReadAccess>,
    last_seen: Arc<LastSeen>,
}

impl WatchHealth {
    pub(crate) fn of(
        kind: &'static str,
        telemetry: &Telemetry,
        read_access: &Arc<ReadAccess>,
    ) -> Self {
        let last_seen = telemetry.metrics.watch(kind);
        let (telemetry, read_access) = (telemetry.clone(), read_access.clone());
        Self { kind, broken: false, telemetry, read_access, last_seen }
    }

    /// Passes on an event and notes that the watch works. If it is an error, logs the reason and returns None.
    pub(crate) fn take<K>(&mut self, event: watcher::Result<Event<K>>) -> Option<Event<K>> {
        let kind = self.kind;
        // A change of an object, such as a beat, says nothing new about the right to read while the watch works.
        let refused = (self.broken || !matches!(event, Ok(Event::Apply(_))))
            && self.read_access.take(kind, &event);
        match event {
            // This event only announces a list. Whether the list succeeds is not known yet.
            Ok(Event::Init) => Some(Event::Init),
            Ok(event) => {
                let now = self.telemetry.clock.now();
                self.last_seen.note(now);
                self.telemetry.health.lock().api_answered(now);
                if std::mem::take(&mut self.broken) {
                    tracing::info!(kind, "the watch works again");
                }
                Some(event)
            }
            Err(error) => {
                self.telemetry.metrics.watch_broke(kind);
                let error = in_one_line(&error, kind);
                if std::mem::replace(&mut self.broken, true) {
                    tracing::debug!(kind, error, "the watch is still broken");
                } else if refused {
                    // The refusal is logged once for all kinds.
                    tracing::debug!(kind, error, "the watch is refused");
                } else if may_be_ordinary(&error) {
                    tracing::info!(kind, error, "the watch is begun again");
                } else {
                    tracing::warn!(kind, error, "the watch broke; it is tried again and again");
                }
                None
            }
        }
    }
}

/// The name of the cache of a kind, as people read it.
pub(crate) fn cache_name(kind: &str, namespace: Option<&str>) -> String {
    namespace.map_or_else(|| kind.to_owned(), |namespace| format!("{kind} of {namespace}"))
}

/// The API server ends a watch if it no longer has the watch's history. A new list fixes that.
fn may_be_ordinary(error: &str) -> bool {
    error.contains("too old resource version")
}

/// The error in one line, and what can be done about it.
fn in_one_line(error: &watcher::Error, kind: &str) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        other => return other.to_string(),
    };
    match status.code {
        404 => format!(
            "the API server does not know {kind}; is the CRD installed? \
             beatkeeper crd | kubectl apply --server-side -f -"
        ),
        403 => format!("{}; the operator's ServiceAccount lacks this permission", status.message),
        code => format!("{} ({code})", status.message),
    }
}
