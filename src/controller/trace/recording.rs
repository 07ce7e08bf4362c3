//! Notes what happens in one reconciliation, so that it can become a trace.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry::{
    KeyValue,
    trace::{SpanId, TraceId},
};

use crate::controller::{clock::Clock, states::Pruning};
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;

/// At most this many reads and writes of one reconciliation become spans. Its steps always do.
const MOST_CALLS: usize = 64;
/// At most this many prunes of one reconciliation become spans with the name of the instance.
pub(super) const MOST_PRUNES: usize = 24;
/// A failure is cut after this many characters.
const LONGEST_FAILURE: usize = 500;

/// What is noted of one reconciliation. Nothing without tracing. Clones note in the same place.
#[derive(Clone, Default)]
pub(crate) struct Trace(Option<Arc<Noting>>);

struct Noting {
    clock: Clock,
    recording: Mutex<Recording>,
}

/// All that is noted.
pub(super) struct Recording {
    pub(super) id: TraceId,
    pub(super) root: SpanId,
    pub(super) began: MonotonicTime,
    /// The steps, and the calls in them, in the order in which they ended.
    pub(super) spans: Vec<Noted>,
    /// The step that runs, to which calls belong.
    step: SpanId,
    calls: usize,
    /// How many calls have no span, because there are too many.
    pub(super) calls_left_out: usize,
    /// When the first write of the present plan was sent.
    first_write: Option<MonotonicTime>,
    /// The first prunes.
    pub(super) prunes: Vec<Prune>,
    /// How many instances were pruned.
    pub(super) pruned: usize,
    /// How many instances are held.
    pub(super) held: usize,
    /// Why the reconciliation failed, if it did: the message of the status of its span.
    pub(super) status_message: Option<String>,
    /// Whether something happened for which a trace is sent.
    pub(super) is_of_interest: bool,
}

/// A step or a call that has ended.
pub(super) struct Noted {
    pub(super) id: SpanId,
    pub(super) parent: SpanId,
    pub(super) name: &'static str,
    pub(super) is_call: bool,
    pub(super) began: MonotonicTime,
    pub(super) ended: MonotonicTime,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) status_message: Option<String>,
}

/// A prune that the API server has confirmed.
pub(super) struct Prune {
    pub(super) instance: String,
    pub(super) lease: Arc<str>,
    pub(super) why: Pruning,
    /// When the first write of the plan that removed it was sent.
    pub(super) written: Option<MonotonicTime>,
    pub(super) confirmed: MonotonicTime,
}

/// A number as the value of an attribute.
pub(crate) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn span_id() -> SpanId {
    fastrand::u64(1..).into()
}

impl Trace {
    /// Notes a reconciliation that begins now.
    pub(super) fn begin(clock: Clock) -> Self {
        let root = span_id();
        let recording = Recording {
            id: fastrand::u128(1..).into(),
            root,
            began: clock.now(),
            spans: Vec::new(),
            step: root,
            calls: 0,
            calls_left_out: 0,
            first_write: None,
            prunes: Vec::new(),
            pruned: 0,
            held: 0,
            status_message: None,
            is_of_interest: false,
        };
        Self(Some(Arc::new(Noting { clock, recording: Mutex::new(recording) })))
    }

    /// Whether anything is noted.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The id of the trace, if there may be one.
    pub(crate) fn id(&self) -> Option<TraceId> {
        self.0.as_ref().map(|noting| noting.lock().id)
    }

    /// Notes a step, until the returned value is dropped. The calls from now on belong to it.
    pub(crate) fn step(&self, name: &'static str) -> Underway<'_> {
        Underway(self.0.as_deref().map(|noting| {
            let mut recording = noting.lock();
            let id = span_id();
            recording.step = id;
            if name == "plan" {
                recording.first_write = None;
            }
            (noting, Noted::begin(id, recording.root, name, false, noting.clock.now()))
        }))
    }

    /// Notes a read, until the returned value is dropped.
    pub(crate) fn read(
        &self,
        name: &'static str,
        about: impl FnOnce() -> KeyValue,
    ) -> Underway<'_> {
        Underway(self.0.as_deref().and_then(|noting| noting.call(name, about)))
    }

    /// Notes a write, until the returned value is dropped.
    pub(crate) fn write(
        &self,
        name: &'static str,
        about: impl FnOnce() -> KeyValue,
    ) -> Underway<'_> {
        Underway(self.0.as_deref().and_then(|noting| {
            let now = noting.clock.now();
            noting.lock().first_write.get_or_insert(now);
            noting.call(name, about)
        }))
    }

    /// Notes that the API server has confirmed a prune. `instance` gives the name of the instance.
    pub(crate) fn pruned(
        &self,
        lease: &Arc<str>,
        instance: impl FnOnce() -> String,
        why: &Pruning,
        confirmed: MonotonicTime,
    ) {
        let Some(noting) = &self.0 else { return };
        let mut recording = noting.lock();
        recording.pruned += 1;
        recording.is_of_interest = true;
        if recording.prunes.len() < MOST_PRUNES {
            let (lease, written) = (lease.clone(), recording.first_write);
            let prune = Prune { instance: instance(), lease, why: *why, written, confirmed };
            recording.prunes.push(prune);
        }
    }

    /// Notes how many instances are held. `more` says that they were fewer before.
    pub(crate) fn held(&self, count: usize, more: bool) {
        let Some(noting) = &self.0 else { return };
        let mut recording = noting.lock();
        recording.held = count;
        recording.is_of_interest |= more;
    }

    /// Notes that the reconciliation failed. `first` says that the one before did not.
    pub(crate) fn failed(&self, why: &dyn Display, first: bool) {
        let Some(noting) = &self.0 else { return };
        let mut recording = noting.lock();
        recording.status_message = Some(cut(why));
        recording.is_of_interest |= first;
    }

    /// Reads what was noted.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Recording) -> T) -> Option<T> {
        self.0.as_ref().map(|noting| look(&mut noting.lock()))
    }
}

#[cfg(test)]
impl Recording {
    /// When the first write of the present plan was sent.
    pub(super) fn first_write(&self) -> Option<MonotonicTime> {
        self.first_write
    }
}

impl Noting {
    /// The guard is never held across an await.
    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, name: &'static str, about: impl FnOnce() -> KeyValue) -> Option<(&Self, Noted)> {
        let mut recording = self.lock();
        if recording.calls == MOST_CALLS {
            recording.calls_left_out += 1;
            return None;
        }
        recording.calls += 1;
        let mut noted = Noted::begin(span_id(), recording.step, name, true, self.clock.now());
        noted.attributes.push(about());
        Some((self, noted))
    }
}

impl Noted {
    fn begin(
        id: SpanId,
        parent: SpanId,
        name: &'static str,
        is_call: bool,
        began: MonotonicTime,
    ) -> Self {
        let (ended, attributes, status_message) = (began, Vec::new(), None);
        Self { id, parent, name, is_call, began, ended, attributes, status_message }
    }
}

/// A step or a call that is under way, if it is noted.
#[must_use = "it ends when this is dropped"]
pub(crate) struct Underway<'a>(Option<(&'a Noting, Noted)>);

impl Underway<'_> {
    /// Notes something about it.
    pub(crate) fn note(&mut self, about: impl FnOnce() -> KeyValue) {
        if let Some((_, noted)) = &mut self.0 {
            noted.attributes.push(about());
        }
    }

    /// Ends with this result.
    pub(crate) fn end<T, E: Display>(mut self, result: &Result<T, E>) {
        if let Err(why) = result {
            self.failed(why);
        }
    }

    /// Notes that it failed.
    pub(crate) fn failed(&mut self, why: &dyn Display) {
        if let Some((_, noted)) = &mut self.0 {
            noted.status_message = Some(cut(why));
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some((noting, mut noted)) = self.0.take() {
            noted.ended = noting.clock.now();
            noting.lock().spans.push(noted);
        }
    }
}

fn cut(why: &dyn Display) -> String {
    why.to_string().chars().take(LONGEST_FAILURE).collect()
}
