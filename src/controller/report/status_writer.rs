//! The desks: each registration has one, which holds its latest report until the status is written and the
//! events are sent.
//!
//! The status is written beside the reconciliation and not in it. The work queue runs one reconciliation of a
//! registration at a time. A deadline that passes while a status is being written would wait for the write. The
//! wait would take milliseconds normally and seconds when the write is slow, and dead instances would stay
//! published for that long (P2).
//!
//! The statuses of a registration are written one at a time. Of several reports that arrive in the meantime
//! only the latest is written. Its events cover all transitions since the last report that was processed. So
//! instances that die together are reported together, however many decisions it took. A report with only news
//! that may wait ([`FLOOR`]) waits on the desk until its time has come or an urgent report replaces it. After
//! each write the desk pauses ([`pause_after`]).
//!
//! [`FLOOR`]: beatkeeper_core::report::status::FLOOR

use std::{collections::HashMap, sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistrationStatus;
use tokio::sync::Notify;

use crate::controller::{
    context::Context,
    metrics::Step,
    reconcile::pipeline::backoff,
    report::status::{self, Report, Told},
};
use beatkeeper_core::vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version};

/// The longest pause of a desk after a write.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The desks of all registrations.
#[derive(Default)]
pub(crate) struct PendingReports(HashMap<Key, PendingReport>);

#[derive(Default)]
struct PendingReport {
    /// The uid of the registration. A new registration of the same name begins with an empty desk.
    uid: String,
    /// The report to be written. It is kept until it has been written.
    report: Option<Arc<Report>>,
    /// Whether a task processes this desk.
    busy: bool,
    /// Notifies that task of a newer report.
    news: Arc<Notify>,
    written: Option<Written>,
}

/// The status that this process wrote last. The watch may not have shown it yet.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) version: Version,
    pub(crate) status: ServiceRegistrationStatus,
    /// When the API server confirmed the write.
    pub(crate) at: MonotonicTime,
}

impl PendingReports {
    /// The status that this process wrote last.
    pub(crate) fn written(&self, key: &Key, uid: &str) -> Option<Written> {
        self.0.get(key).filter(|pending| pending.uid == uid)?.written.clone()
    }

    /// Notes a status that was written from a report.
    pub(crate) fn note_written(&mut self, key: &Key, uid: &str, written: Written) {
        if let Some(pending) = self.0.get_mut(key).filter(|pending| pending.uid == uid) {
            pending.written = Some(written);
        }
    }

    /// Notes a status that was written without a report.
    pub(crate) fn note_condition(&mut self, key: &Key, uid: &str, written: Written) {
        let pending = self.0.entry(key.clone()).or_default();
        if pending.uid != uid {
            uid.clone_into(&mut pending.uid);
            pending.report = None;
        }
        pending.written = Some(written);
    }

    /// Forgets the written statuses. After a rollback of the store the API server no longer has them.
    pub(crate) fn forget_written(&mut self) {
        self.0.values_mut().for_each(|pending| pending.written = None);
    }

    /// Removes all reports, since a new term reports anew.
    pub(crate) fn clear(&mut self) {
        self.0.values_mut().for_each(|pending| pending.report = None);
    }

    /// Forgets a registration that is gone.
    pub(crate) fn forget(&mut self, key: &Key) {
        // A running task finds no report any more and ends.
        if let Some(pending) = self.0.get_mut(key) {
            let PendingReport { busy, news, .. } = std::mem::take(pending);
            // A task that waits wakes up and finds that it has nothing to write.
            news.notify_one();
            *pending = PendingReport { busy, news, ..PendingReport::default() };
            if !busy {
                self.0.remove(key);
            }
        }
    }

    /// Replaces the report on the desk. Returns whether a task must be started to write it.
    fn put(&mut self, report: Report) -> bool {
        let pending = self.0.entry(report.registration.key.clone()).or_default();
        if pending.uid != report.registration.uid {
            pending.uid.clone_from(&report.registration.uid);
            pending.written = None;
        }
        pending.report = Some(Arc::new(report));
        pending.news.notify_one();
        !std::mem::replace(&mut pending.busy, true)
    }

    /// Notifies of newer reports for this registration.
    fn news(&self, key: &Key) -> Arc<Notify> {
        self.0.get(key).map(|pending| pending.news.clone()).unwrap_or_default()
    }

    /// The report on a desk.
    fn current(&self, key: &Key) -> Option<Arc<Report>> {
        self.0.get(key)?.report.clone()
    }

    /// Notes that no task processes this desk any more.
    fn leave(&mut self, key: &Key) {
        if let Some(pending) = self.0.get_mut(key) {
            pending.busy = false;
            if pending.uid.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// The report to be written next. `done` is removed from the desk, unless a newer report has replaced it.
    /// Returns None when the task is to end.
    fn next(&mut self, key: &Key, done: Option<&Arc<Report>>) -> Option<Arc<Report>> {
        let pending = self.0.get_mut(key)?;
        if let (Some(current), Some(done)) = (&pending.report, done)
            && Arc::ptr_eq(current, done)
        {
            pending.report = None;
        }
        let next = pending.report.clone();
        pending.busy = next.is_some();
        if next.is_none() && pending.uid.is_empty() {
            self.0.remove(key);
        }
        next
    }
}

/// Puts a report on the desk of its registration. Starts a task that writes it, unless one runs.
pub(crate) fn submit(report: Report, context: &Arc<Context>) {
    let key = report.registration.key.clone();
    if context.desks().put(report) {
        let write = write(key, context.clone());
        context.spawn(write);
    }
}

/// Marks the desk as free when the task ends early, which is a defect. Otherwise the registration's status
/// would never be written again.
struct WriterTask {
    key: Key,
    context: Arc<Context>,
    done: bool,
}

impl Drop for WriterTask {
    fn drop(&mut self) {
        if !self.done {
            self.context.desks().leave(&self.key);
        }
    }
}

/// Writes the reports of a desk until none is left.
async fn write(key: Key, context: Arc<Context>) {
    let mut seat = WriterTask { key: key.clone(), context: context.clone(), done: false };
    let mut failures = 0;
    let mut done = None;
    loop {
        // `done` is dropped here, so that a finished report does not stay in memory beside the next one.
        let next = context.desks().next(&key, done.take().as_ref());
        let Some(report) = next else {
            // Another task may process this desk by now.
            seat.done = true;
            if !context.world().has_registration(&key) {
                // The registration was deleted in the meantime. No other code would remove what this task has
                // added to its memory.
                context.forget(&key);
            }
            return;
        };
        let began = context.clock.now();
        let status = async {
            let _step = context.metrics.begin(Step::Status);
            status::status(&report, &context).await
        };
        // These futures take some 30 kB. In a box they use this memory only while they run, and not during the
        // pause of the task. There is one such task for each registration.
        let told = Box::pin(async { tokio::join!(status, status::events(&report, &context)) });
        let (told, later) = told.await;
        wake_for_events(&key, &report.registration.uid, later, &context);
        match told {
            Ok(Told::All) => {
                failures = 0;
                done = Some(report);
                let pause = pause_after(context.clock.now().since(began));
                // Events are sent during the pause, too. Otherwise transitions that last no longer than the pause
                // would not be reported. Examples are rejected instances, and Leases that the cluster deletes at
                // once.
                let rest = send_events_until(&key, pause, &context);
                if context.stop.run_until_cancelled(rest).await.is_none() {
                    return;
                }
            }
            // The next leader reports anew.
            Err(_) if !context.leadership.holds() => {
                failures = 0;
                done = Some(report);
            }
            Ok(Told::NotBefore(due)) => {
                let pause = due.since(context.clock.now());
                if !rest(&key, pause, &context).await {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                context.metrics.failed(Step::Status);
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

/// Sends the events of new reports until the pause is over. An event that is being sent then is sent to its
/// end, since a cancelled send would lose it.
async fn send_events_until(key: &Key, pause: Duration, context: &Arc<Context>) {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        let news = context.desks().news(key);
        tokio::select! {
            biased;
            () = &mut over => return,
            () = news.notified() => {}
        }
        let report = context.desks().current(key);
        if let Some(report) = report {
            let later = Box::pin(status::events(&report, context)).await;
            wake_for_events(key, &report.registration.uid, later, context);
        }
    }
}

/// Wakes the registration at the time when delayed events may be sent. If the state of an instance changes
/// again and again, only its last state is reported, and it must be reported.
fn wake_for_events(key: &Key, uid: &str, later: Option<MonotonicTime>, context: &Arc<Context>) {
    let Some(at) = later else { return };
    let now = context.clock.now();
    let is_first = context.remember(key, uid, |memory| {
        let waits = memory.events_due.is_some_and(|known| known > now);
        memory.events_due = Some(memory.events_due.filter(|_| waits).unwrap_or(at));
        !waits
    });
    if is_first {
        let (key, waiting) = (key.clone(), context.clone());
        context.spawn(async move {
            let pause = tokio::time::sleep(at.since(now));
            if waiting.stop.run_until_cancelled(pause).await.is_some() {
                waiting.wake([key]);
            }
        });
    }
}

/// The pause of a desk after a write that took `took`: four times as long, at most 5 s. So status writes take
/// at most a fifth of the time, except where the longest pause applies. A status is the most expensive object
/// to write, and a series of deaths would cause one write per death. The pause leaves the API server free for
/// the writes that prune, and each status that is written is the latest. The same rule applies to Endpoints.
pub(crate) fn pause_after(took: Duration) -> Duration {
    (took * 4).min(LONGEST_PAUSE)
}

/// Waits until the pause is over or a newer report arrives. Returns false when the controller is to stop. Then
/// the next process reports what is left.
async fn rest(key: &Key, pause: Duration, context: &Context) -> bool {
    let news = context.desks().news(key);
    let news = tokio::time::timeout(pause, news.notified());
    context.stop.run_until_cancelled(news).await.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_api::ServiceRegistration;
    use beatkeeper_core::{
        objects::registration::Registration,
        report::{applied::Applied, summary::DecisionSummary},
    };

    fn report() -> Report {
        let object: ServiceRegistration = serde_json::from_value(serde_json::json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "namespace": "shop", "name": "greeter", "uid": "r-1" },
            "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))
        .expect("a registration");
        let registration = Registration::validate(&object);
        let object = Arc::new(object);
        let (account, applied) = (DecisionSummary::default(), Applied::default());
        Report { object, registration, account, stall: None, applied }
    }

    fn key() -> Key {
        Key::new("shop", "greeter")
    }

    #[test]
    fn one_task_writes_a_status_until_no_report_is_pending() {
        let mut desks = PendingReports::default();
        assert!(desks.put(report()), "a task must be started");
        assert!(!desks.put(report()), "the task is there already");
        let first = desks.next(&key(), None).expect("a report");
        assert!(!desks.put(report()));
        let second = desks.next(&key(), Some(&first)).expect("what came in meanwhile");
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(desks.next(&key(), Some(&second)).is_none());
        assert!(desks.put(report()), "he has left");
    }

    #[test]
    fn after_a_task_that_ended_early_the_next_report_starts_another() {
        let mut desks = PendingReports::default();
        desks.put(report());
        assert!(desks.next(&key(), None).is_some());
        desks.leave(&key());
        assert!(desks.put(report()));
    }

    #[test]
    fn status_writes_take_at_most_a_fifth_of_the_time_with_a_bounded_pause() {
        let rest = |millis| pause_after(Duration::from_millis(millis)).as_millis();
        assert_eq!((rest(0), rest(10), rest(1_000), rest(60_000)), (0, 40, 4_000, 5_000));
    }

    #[tokio::test]
    async fn a_waiting_status_writer_learns_of_a_newer_report_and_of_its_end() {
        let mut desks = PendingReports::default();
        desks.put(report());
        let news = desks.news(&key());
        news.notified().await;
        desks.put(report());
        news.notified().await;
        desks.forget(&key());
        news.notified().await;
        assert!(desks.next(&key(), None).is_none());
    }
}
