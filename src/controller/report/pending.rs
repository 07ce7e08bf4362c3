//! The latest report of each registration, until its status is written and its events are sent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use beatkeeper_api::{ServiceRegistration, ServiceRegistrationStatus};
use tokio::sync::Notify;

use beatkeeper_core::{
    inputs::stall::Stall,
    objects::registration::Registration,
    report::{applied::Applied, summary::DecisionSummary},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// What is to be reported about a registration.
pub(crate) struct Report {
    pub(crate) object: Arc<ServiceRegistration>,
    pub(crate) registration: Registration,
    pub(crate) account: DecisionSummary,
    pub(crate) stall: Option<Stall>,
    pub(crate) applied: Applied,
    /// When it was made.
    pub(crate) at: MonotonicTime,
}

/// The pending reports of all registrations.
#[derive(Default)]
pub(crate) struct PendingReports {
    all: Mutex<HashMap<Key, PendingReport>>,
    /// Whether the last report of each registration is kept after it was written.
    keeps: bool,
}

#[derive(Default)]
struct PendingReport {
    /// The uid of the registration. A new registration of the same name begins with an empty entry.
    uid: String,
    /// The report to be written. It is kept until it has been written.
    report: Option<Arc<Report>>,
    /// The last report, if it is to be kept.
    last: Option<Arc<Report>>,
    /// Whether a task writes the reports of this registration.
    busy: bool,
    /// Notifies that task of a newer report.
    newer: Arc<Notify>,
    written: Option<WrittenStatus>,
}

/// The status that this process wrote last. The watch may not have shown it yet.
#[derive(Clone)]
pub(crate) struct WrittenStatus {
    pub(crate) version: Version,
    pub(crate) status: ServiceRegistrationStatus,
    /// When the API server confirmed the write.
    pub(crate) at: MonotonicTime,
}

impl PendingReports {
    /// No reports. With `keeps`, the last one of each registration is kept for those that ask about it.
    pub(crate) fn new(keeps: bool) -> Self {
        Self { all: Mutex::default(), keeps }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, PendingReport>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status that this process wrote last.
    pub(crate) fn written(&self, key: &Key, uid: &str) -> Option<WrittenStatus> {
        self.all().get(key).filter(|pending| pending.uid == uid)?.written.clone()
    }

    /// Notes a status that was written from a report.
    pub(crate) fn note_written(&self, key: &Key, uid: &str, written: WrittenStatus) {
        if let Some(pending) = self.all().get_mut(key).filter(|pending| pending.uid == uid) {
            pending.written = Some(written);
        }
    }

    /// Notes a status that was written without a report.
    pub(crate) fn note_condition(&self, key: &Key, uid: &str, written: WrittenStatus) {
        let mut all = self.all();
        let pending = all.entry(key.clone()).or_default();
        if pending.uid != uid {
            uid.clone_into(&mut pending.uid);
            pending.report = None;
            pending.last = None;
        }
        pending.written = Some(written);
    }

    /// Forgets the written statuses. After a rollback of the store the API server no longer has them.
    pub(crate) fn forget_written(&self) {
        self.all().values_mut().for_each(|pending| pending.written = None);
    }

    /// Removes all reports, since a new term reports again.
    pub(crate) fn clear(&self) {
        self.all().values_mut().for_each(|pending| {
            pending.report = None;
            pending.last = None;
        });
    }

    /// Forgets a registration that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        let mut all = self.all();
        // A running task finds no report any more and ends.
        if let Some(pending) = all.get_mut(key) {
            let PendingReport { busy, newer, .. } = std::mem::take(pending);
            // A task that waits wakes up and finds that it has nothing to write.
            newer.notify_one();
            *pending = PendingReport { busy, newer, ..PendingReport::default() };
            if !busy {
                all.remove(key);
            }
        }
    }

    /// Replaces the pending report. Returns whether a task must be started to write it.
    pub(crate) fn put(&self, report: Report) -> bool {
        let mut all = self.all();
        let pending = all.entry(report.registration.key.clone()).or_default();
        if pending.uid != report.registration.uid {
            pending.uid.clone_from(&report.registration.uid);
            pending.written = None;
        }
        let report = Arc::new(report);
        pending.last = self.keeps.then(|| report.clone());
        pending.report = Some(report);
        pending.newer.notify_one();
        !std::mem::replace(&mut pending.busy, true)
    }

    /// Notifies of newer reports for this registration.
    pub(crate) fn newer(&self, key: &Key) -> Arc<Notify> {
        self.all().get(key).map(|pending| pending.newer.clone()).unwrap_or_default()
    }

    /// The pending report of a registration.
    pub(crate) fn current(&self, key: &Key) -> Option<Arc<Report>> {
        self.all().get(key)?.report.clone()
    }

    /// The last report of a registration, whether it was written or not.
    pub(crate) fn last(&self, key: &Key, uid: &str) -> Option<Arc<Report>> {
        self.all().get(key).filter(|pending| pending.uid == uid)?.last.clone()
    }

    /// Notes that no task writes the reports of this registration any more.
    pub(crate) fn release(&self, key: &Key) {
        let mut all = self.all();
        if let Some(pending) = all.get_mut(key) {
            pending.busy = false;
            if pending.uid.is_empty() {
                all.remove(key);
            }
        }
    }

    /// The report to be written next. `done` is removed, unless a newer report has replaced it.
    /// Returns None when the task is to end.
    pub(crate) fn next(&self, key: &Key, done: Option<&Arc<Report>>) -> Option<Arc<Report>> {
        let mut all = self.all();
        let pending = all.get_mut(key)?;
        if let (Some(current), Some(done)) = (&pending.report, done)
            && Arc::ptr_eq(current, done)
        {
            pending.report = None;
        }
        let next = pending.report.clone();
        pending.busy = next.is_some();
        if next.is_none() && pending.uid.is_empty() {
            all.remove(key);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        Report { object, registration, account, stall: None, applied, at: MonotonicTime::default() }
    }

    fn key() -> Key {
        Key::new("shop", "greeter")
    }

    #[test]
    fn one_task_writes_the_reports_of_a_registration_until_none_is_left() {
        let reports = PendingReports::default();
        assert!(reports.put(report()), "a task must be started");
        assert!(!reports.put(report()), "the task is there already");
        let first = reports.next(&key(), None).expect("a report");
        assert!(!reports.put(report()));
        let second = reports.next(&key(), Some(&first)).expect("what came in meanwhile");
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(reports.next(&key(), Some(&second)).is_none());
        assert!(reports.put(report()), "the task has ended");
    }

    #[test]
    fn after_a_task_that_ended_early_the_next_report_starts_another() {
        let reports = PendingReports::default();
        reports.put(report());
        assert!(reports.next(&key(), None).is_some());
        reports.release(&key());
        assert!(reports.put(report()));
    }

    #[test]
    fn the_last_report_is_kept_only_if_it_is_wanted_and_until_the_term_ends() {
        for keeps in [false, true] {
            let reports = PendingReports::new(keeps);
            reports.put(report());
            let written = reports.next(&key(), None).expect("a report");
            assert!(reports.next(&key(), Some(&written)).is_none());
            let last = reports.last(&key(), "r-1");
            assert_eq!(last.is_some_and(|last| Arc::ptr_eq(&last, &written)), keeps);
            assert!(reports.last(&key(), "r-2").is_none(), "of another registration");
            reports.clear();
            assert!(reports.last(&key(), "r-1").is_none());
        }
    }

    #[tokio::test]
    async fn a_waiting_status_writer_learns_of_a_newer_report_and_of_its_end() {
        let reports = PendingReports::default();
        reports.put(report());
        let newer = reports.newer(&key());
        newer.notified().await;
        reports.put(report());
        newer.notified().await;
        reports.forget(&key());
        newer.notified().await;
        assert!(reports.next(&key(), None).is_none());
    }
}
