//! Counts, logs and reports the events of a service.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tracing::dispatcher;

use super::background::BackgroundThread;
use crate::{
    event::{Event, Severity},
    heartbeat_loop::Report,
};

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Beats that were accepted, without the first one.
    pub beats: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Beats that were sent late, because this process did not run.
    pub late: u64,
    /// How often no beat was accepted for longer than the ttl.
    pub out: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    beats: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    out: AtomicU64,
}

impl Counters {
    fn note(&self, event: &Event) {
        let counter = match event {
            Event::Beat { .. } => &self.beats,
            Event::Failed { .. } => &self.failed,
            Event::Late { .. } => &self.late,
            Event::SilentForTtl { .. } => &self.out,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            beats: self.beats.load(Relaxed),
            failed: self.failed.load(Relaxed),
            late: self.late.load(Relaxed),
            out: self.out.load(Relaxed),
        }
    }
}

/// Counts an event at once, and has another thread log and report it: a log and a handler may block.
pub(crate) fn reporter(
    report: Option<Report>,
    counters: Arc<Counters>,
    background: Arc<BackgroundThread>,
) -> Report {
    Arc::new(move |event| {
        counters.note(event);
        let (event, report) = (event.clone(), report.clone());
        let log = dispatcher::get_default(Clone::clone);
        background.ask(move || {
            dispatcher::with_default(&log, || match event.weight() {
                Severity::Detail => tracing::trace!("{event}"),
                Severity::Change => tracing::info!("{event}"),
                Severity::Warning => tracing::warn!("{event}"),
            });
            if let Some(report) = &report {
                report(&event);
            }
        });
    })
}
