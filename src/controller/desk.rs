//! The desk on which reports lie until their status is written.
//!
//! A status is written beside the reconciliation and not in it. The queue reconciles a registration
//! one run at a time, so a deadline that passed while a status was being written would wait for it:
//! usually for milliseconds, but for seconds when the write is slow, and the dead stay published for
//! that long (P2). A registration's statuses are written one at a time, and of those that came in
//! meanwhile only the latest.

use std::{collections::HashMap, sync::Arc};

use beatkeeper_api::ServiceRegistrationStatus;

use super::{
    context::Context,
    publish::{self, Report},
    reconcile::backoff,
};
use crate::core::{heartbeat::Version, index::Key};

/// The desks of all registrations.
#[derive(Default)]
pub(super) struct Desks(HashMap<Key, Desk>);

#[derive(Default)]
struct Desk {
    /// Of which registration; one made anew under the name begins from nothing.
    uid: String,
    /// What is to be written; kept until it is.
    report: Option<Arc<Report>>,
    /// Whether a task sees to it.
    busy: bool,
    /// The status we wrote last, which the watch may not have brought back yet.
    written: Option<(Version, ServiceRegistrationStatus)>,
}

impl Desks {
    /// The status that we wrote last.
    pub(super) fn written(
        &self,
        key: &Key,
        uid: &str,
    ) -> Option<(Version, ServiceRegistrationStatus)> {
        self.0.get(key).filter(|desk| desk.uid == uid)?.written.clone()
    }

    /// Notes what was written.
    pub(super) fn note_written(
        &mut self,
        key: &Key,
        uid: &str,
        version: Version,
        status: ServiceRegistrationStatus,
    ) {
        if let Some(desk) = self.0.get_mut(key).filter(|desk| desk.uid == uid) {
            desk.written = Some((version, status));
        }
    }

    /// Takes all reports off: a new term reports anew.
    pub(super) fn clear(&mut self) {
        self.0.values_mut().for_each(|desk| desk.report = None);
    }

    /// Forgets a registration that is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        // A task that is under way finds no report any more, and ends.
        if let Some(desk) = self.0.get_mut(key) {
            let busy = desk.busy;
            *desk = Desk { busy, ..Desk::default() };
            if !busy {
                self.0.remove(key);
            }
        }
    }

    /// Lays a report down in the place of an older one. Returns whether somebody must be called to
    /// write it.
    fn lay_down(&mut self, report: Report) -> bool {
        let desk = self.0.entry(report.registration.key.clone()).or_default();
        if desk.uid != report.registration.uid {
            desk.uid.clone_from(&report.registration.uid);
            desk.written = None;
        }
        desk.report = Some(Arc::new(report));
        !std::mem::replace(&mut desk.busy, true)
    }

    /// What is to be written next. `done` is taken off the desk, unless a newer report has replaced
    /// it. None ends the task.
    fn next(&mut self, key: &Key, done: Option<&Arc<Report>>) -> Option<Arc<Report>> {
        let desk = self.0.get_mut(key)?;
        if let (Some(lying), Some(done)) = (&desk.report, done)
            && Arc::ptr_eq(lying, done)
        {
            desk.report = None;
        }
        let next = desk.report.clone();
        desk.busy = next.is_some();
        if next.is_none() && desk.uid.is_empty() {
            self.0.remove(key);
        }
        next
    }
}

/// Has the status of a report written soon.
pub(super) fn hand_in(report: Report, context: &Arc<Context>) {
    let key = report.registration.key.clone();
    if context.desks().lay_down(report) {
        let write = write(key, context.clone());
        context.tasks.spawn(write);
    }
}

/// Writes what lies on a desk until nothing does.
async fn write(key: Key, context: Arc<Context>) {
    let mut failures = 0;
    let mut done = None;
    loop {
        let next = context.desks().next(&key, done.as_ref());
        let Some(report) = next else { return };
        match publish::status(&report, &context).await {
            Ok(()) => {
                failures = 0;
                done = Some(report);
            }
            // Whoever leads next reports anew.
            Err(_) if !context.claim.holds() => {
                failures = 0;
                done = Some(report);
            }
            Err(error) => {
                failures += 1;
                let pause = backoff(failures);
                tracing::warn!(%error, ?pause, "will try again");
                let rest = context.stop.run_until_cancelled(tokio::time::sleep(pause));
                if rest.await.is_none() {
                    return;
                }
            }
        }
    }
}
