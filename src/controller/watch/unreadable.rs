//! Objects that cannot be read. Each is logged once, and it is counted for as long as it cannot be read.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::{Resource, runtime::watcher::Event};

use crate::controller::telemetry::Telemetry;
use beatkeeper_core::{
    objects::decode::{Decoded, Unreadable},
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// The shortest time between two log lines about the same object.
const LOG_AGAIN: Duration = Duration::from_secs(600);
/// In each such period at most [`LINES`] objects of a kind are logged.
const PERIOD: Duration = Duration::from_secs(60);
const LINES: u32 = 20;

/// The objects of one watch that cannot be read.
pub(crate) struct UnreadableObjects {
    kind: &'static str,
    telemetry: Telemetry,
    known: HashMap<Key, MonotonicTime>,
    /// While a list is being read: the unreadable objects that it has shown.
    listing: Option<HashSet<Key>>,
    /// How many of them the metric includes.
    counted: i64,
    lines: u32,
    period: MonotonicTime,
}

impl UnreadableObjects {
    pub(crate) fn of(kind: &'static str, telemetry: &Telemetry) -> Self {
        let period = telemetry.clock.now();
        let telemetry = telemetry.clone();
        Self { kind, telemetry, known: HashMap::new(), listing: None, counted: 0, lines: 0, period }
    }

    /// Takes in an event.
    pub(crate) fn note<K: Resource>(&mut self, event: &Event<Decoded<K>>) {
        match event {
            Event::Init => self.listing = Some(HashSet::new()),
            Event::InitApply(Err(object)) | Event::Apply(Err(object)) => {
                self.note_unreadable(object)
            }
            Event::InitApply(Ok(object)) | Event::Apply(Ok(object)) | Event::Delete(Ok(object)) => {
                self.note_readable(|| Key::of(object.meta()));
            }
            Event::Delete(Err(object)) => self.note_readable(|| object.key.clone()),
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                self.known.retain(|key, _| listed.contains(key));
                self.count();
            }
        }
    }

    fn note_readable(&mut self, key: impl FnOnce() -> Key) {
        // Usually no object is unreadable, and no key has to be looked up.
        if !self.known.is_empty() && self.known.remove(&key()).is_some() {
            self.count();
        }
    }

    fn note_unreadable(&mut self, object: &Unreadable) {
        if let Some(listing) = &mut self.listing {
            listing.insert(object.key.clone());
        }
        let now = self.telemetry.clock.now();
        let logged = self.known.get(&object.key);
        if logged.is_some_and(|logged| now.since(*logged) < LOG_AGAIN) {
            return;
        }
        self.known.insert(object.key.clone(), now);
        self.count();
        if now.since(self.period) >= PERIOD {
            (self.period, self.lines) = (now, 0);
        }
        self.lines += 1;
        let Unreadable { kind, key: Key { namespace, name }, why, .. } = object;
        match self.lines {
            ..=LINES => tracing::warn!(
                kind,
                ?namespace,
                ?name,
                ?why,
                "an object cannot be read; what was known of it stays, and nothing is decided from the rest"
            ),
            lines if lines == LINES + 1 => {
                tracing::warn!(kind, "more objects cannot be read than are logged here");
            }
            _ => {}
        }
    }

    /// Adds the difference to the metric, since the watches of several namespaces share it.
    fn count(&mut self) {
        let count = i64::try_from(self.known.len()).unwrap_or(i64::MAX);
        self.telemetry.metrics.unreadable_objects(self.kind, count - self.counted);
        self.counted = count;
    }
}
