//! The status writer: writes the status and sends the events of each registration, beside its reconciliations.
//!
//! The status is not written in the reconciliation, because the work queue runs one reconciliation of a
//! registration at a time. A deadline that passes while a status is being written would wait for the write. The
//! wait would take milliseconds normally and seconds when the write is slow, and dead instances would stay
//! published for that long (P2).
//!
//! The statuses of a registration are written one at a time. Of several reports that arrive in the meantime
//! only the latest is written. Its events cover all transitions since the last report that was processed. So
//! instances that die together are reported together, however many decisions it took. A report with only news
//! that may wait ([`FLOOR`]) waits until its time has come or an urgent report replaces it. After each write the
//! writer pauses ([`backoff::after_write`]).
//!
//! [`FLOOR`]: beatkeeper_core::report::status::FLOOR

use std::{sync::Arc, time::Duration};

use super::{
    pending::{PendingReports, Report},
    status::{Reporter, Written},
};
use crate::controller::{
    backoff, error::ApiError, metrics::groups::Step, queue::WorkQueue,
    registrations::Registrations, states::States, tasks::Tasks, telemetry::Telemetry,
};
use beatkeeper_core::{
    objects::registration::Registration,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// Writes the reports of all registrations of one scope.
pub(crate) struct StatusWriter {
    pub(crate) reporter: Reporter,
    pub(crate) telemetry: Telemetry,
    pub(crate) tasks: Tasks,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) states: Arc<States>,
    pub(crate) reports: Arc<PendingReports>,
    pub(crate) registrations: Arc<Registrations>,
}

/// Marks the reports of a registration as unattended when the task ends early, which is a defect. Otherwise the
/// registration's status would never be written again.
struct Attended {
    key: Key,
    reports: Arc<PendingReports>,
    done: bool,
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !self.done {
            self.reports.release(&self.key);
        }
    }
}

impl StatusWriter {
    /// Replaces the pending report of a registration. Starts a task that writes it, unless one runs.
    pub(crate) fn submit(self: &Arc<Self>, report: Report) {
        let key = report.registration.key.clone();
        if self.reports.put(report) {
            self.tasks.spawn(self.clone().write_all(key));
        }
    }

    /// Writes the reports of a registration until none is left.
    async fn write_all(self: Arc<Self>, key: Key) {
        let mut attended =
            Attended { key: key.clone(), reports: self.reports.clone(), done: false };
        let mut failures = 0;
        let mut done = None;
        loop {
            // `done` is dropped here, so that a finished report does not stay in memory beside the next one.
            let next = self.reports.next(&key, done.take().as_ref());
            let Some(report) = next else {
                // Another task may write the reports of this registration by now.
                attended.done = true;
                self.registrations.forget_if_gone(&key);
                return;
            };
            let began = self.telemetry.clock.now();
            let pause = match self.write(&report).await {
                Ok(Written::All) => {
                    failures = 0;
                    done = Some(report);
                    let pause = backoff::after_write(self.telemetry.clock.now().since(began));
                    // Events are sent during the pause, too. Otherwise transitions that last no longer than the
                    // pause would not be reported. Examples are rejected instances, and Leases that the cluster
                    // deletes at once.
                    self.tasks.stop.run_until_cancelled(self.send_events_for(&key, pause)).await
                }
                // The next leader reports again.
                Err(_) if !self.reporter.api.may_write() => {
                    failures = 0;
                    done = Some(report);
                    Some(())
                }
                Ok(Written::NotBefore(due)) => {
                    let pause = due.since(self.telemetry.clock.now());
                    let newer = self.reports.newer(&key);
                    let newer = tokio::time::timeout(pause, newer.notified());
                    self.tasks.stop.run_until_cancelled(newer).await.map(drop)
                }
                Err(error) => {
                    failures += 1;
                    self.telemetry.metrics.failed(Step::Status);
                    let pause = backoff::after(failures);
                    tracing::warn!(%error, ?pause, "will try again");
                    self.tasks.stop.run_until_cancelled(tokio::time::sleep(pause)).await
                }
            };
            if pause.is_none() {
                // The controller is to stop. The next process reports what is left.
                return;
            }
        }
    }

    /// Writes the status of a report, and sends its events.
    async fn write(&self, report: &Report) -> Result<Written, ApiError> {
        let status = async {
            let _step = self.telemetry.metrics.begin(Step::Status);
            self.reporter.status(report).await
        };
        // These futures take some 30 kB. In a box they use this memory only while they run, and not during the
        // pause of the task. There is one such task for each registration.
        let both = Box::pin(async { tokio::join!(status, self.reporter.events(report)) });
        let (written, later) = both.await;
        self.wake_for_events(&report.registration, later);
        written
    }

    /// Sends the events of new reports until the pause is over. An event that is being sent then is sent to its
    /// end, since a cancelled send would lose it.
    async fn send_events_for(&self, key: &Key, pause: Duration) {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            let newer = self.reports.newer(key);
            tokio::select! {
                biased;
                () = &mut over => return,
                () = newer.notified() => {}
            }
            let report = self.reports.current(key);
            if let Some(report) = report {
                let later = Box::pin(self.reporter.events(&report)).await;
                self.wake_for_events(&report.registration, later);
            }
        }
    }

    /// Wakes the registration at the time when delayed events may be sent. If the state of an instance changes
    /// again and again, only its last state is reported, and it must be reported.
    fn wake_for_events(&self, registration: &Registration, later: Option<MonotonicTime>) {
        let Some(at) = later else { return };
        let now = self.telemetry.clock.now();
        let Registration { key, uid, .. } = registration;
        let is_first = self.states.with(key, uid, |state| {
            let waits = state.events_due.is_some_and(|known| known > now);
            state.events_due = Some(state.events_due.filter(|_| waits).unwrap_or(at));
            !waits
        });
        if is_first {
            let (key, queue, stop) = (key.clone(), self.queue.clone(), self.tasks.stop.clone());
            self.tasks.spawn(async move {
                let pause = tokio::time::sleep(at.since(now));
                if stop.run_until_cancelled(pause).await.is_some() {
                    queue.wake([key]);
                }
            });
        }
    }
}
