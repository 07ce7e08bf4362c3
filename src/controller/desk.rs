//! The desk on which reports lie until their status is written and their events are sent.
//!
//! A status is written beside the reconciliation and not in it. The queue reconciles a registration
//! one run at a time, so a deadline that passed while a status was being written would wait for it:
//! usually for milliseconds, but for seconds when the write is slow, and the dead stay published for
//! that long (P2). A registration's statuses are written one at a time, and of those that came in
//! meanwhile only the latest. Its events tell of all transitions since the last report that was
//! taken up, so that those who die together are told together, however many decisions it took. One
//! whose only news may wait ([`FLOOR`]) waits on the desk, until its time has come or something
//! urgent takes its place. And after each write the desk rests for a while ([`rest_after`]).
//!
//! [`FLOOR`]: beatkeeper_core::status::FLOOR

use std::{collections::HashMap, sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistrationStatus;
use tokio::sync::Notify;

use super::{
    context::Context,
    metrics::Step,
    publish::{self, Report, Told},
    reconcile::backoff,
};
use beatkeeper_core::{heartbeat::Version, index::Key, moment::Moment};

/// A desk rests no longer than this after a write.
const LONGEST_REST: Duration = Duration::from_secs(5);

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
    /// Tells that task of a newer report.
    news: Arc<Notify>,
    written: Option<Written>,
}

/// The status we wrote last, which the watch may not have brought back yet.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) version: Version,
    pub(super) status: ServiceRegistrationStatus,
    /// When that was confirmed.
    pub(super) at: Moment,
}

impl Desks {
    /// The status that we wrote last.
    pub(super) fn written(&self, key: &Key, uid: &str) -> Option<Written> {
        self.0.get(key).filter(|desk| desk.uid == uid)?.written.clone()
    }

    /// Notes what was written.
    pub(super) fn note_written(&mut self, key: &Key, uid: &str, written: Written) {
        if let Some(desk) = self.0.get_mut(key).filter(|desk| desk.uid == uid) {
            desk.written = Some(written);
        }
    }

    /// Notes what was written without a report.
    pub(super) fn note_said(&mut self, key: &Key, uid: &str, written: Written) {
        let desk = self.0.entry(key.clone()).or_default();
        if desk.uid != uid {
            uid.clone_into(&mut desk.uid);
            desk.report = None;
        }
        desk.written = Some(written);
    }

    /// The store has gone back to an earlier state: what was written is not what is there.
    pub(super) fn forget_written(&mut self) {
        self.0.values_mut().for_each(|desk| desk.written = None);
    }

    /// Takes all reports off: a new term reports anew.
    pub(super) fn clear(&mut self) {
        self.0.values_mut().for_each(|desk| desk.report = None);
    }

    /// Forgets a registration that is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        // A task that is under way finds no report any more, and ends.
        if let Some(desk) = self.0.get_mut(key) {
            let Desk { busy, news, .. } = std::mem::take(desk);
            // One that waits for its time finds that there is nothing to wait for.
            news.notify_one();
            *desk = Desk { busy, news, ..Desk::default() };
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
        desk.news.notify_one();
        !std::mem::replace(&mut desk.busy, true)
    }

    /// What tells of newer reports.
    fn news(&self, key: &Key) -> Arc<Notify> {
        self.0.get(key).map(|desk| desk.news.clone()).unwrap_or_default()
    }

    /// What lies on a desk.
    fn lying(&self, key: &Key) -> Option<Arc<Report>> {
        self.0.get(key)?.report.clone()
    }

    /// Nobody sees to this desk any more.
    fn leave(&mut self, key: &Key) {
        if let Some(desk) = self.0.get_mut(key) {
            desk.busy = false;
            if desk.uid.is_empty() {
                self.0.remove(key);
            }
        }
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
        context.spawn(write);
    }
}

/// Leaves the desk when the task ends before its time, which takes a defect: otherwise the
/// registration's status would never be written again.
struct Seat {
    key: Key,
    context: Arc<Context>,
    done: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.done {
            self.context.desks().leave(&self.key);
        }
    }
}

/// Writes what lies on a desk until nothing does.
async fn write(key: Key, context: Arc<Context>) {
    let mut seat = Seat { key: key.clone(), context: context.clone(), done: false };
    let mut failures = 0;
    let mut done = None;
    loop {
        // What is done is not kept beside what waits.
        let next = context.desks().next(&key, done.take().as_ref());
        let Some(report) = next else {
            // Somebody else may sit there by now.
            seat.done = true;
            if !context.world().has_registration(&key) {
                // It was deleted meanwhile: what this task remembered of it nobody would forget.
                context.forget(&key);
            }
            return;
        };
        let began = context.clock.now();
        let status = async {
            let _step = context.metrics.begin(Step::Status);
            publish::status(&report, &context).await
        };
        // These futures are some 30 kB. Boxed, they are there while they are under way, and not for as long
        // as the task rests, of which there is one for each registration.
        let told = Box::pin(async { tokio::join!(status, publish::events(&report, &context)) });
        let (told, later) = told.await;
        tell_later(&key, &report.registration.uid, later, &context);
        match told {
            Ok(Told::All) => {
                failures = 0;
                done = Some(report);
                let pause = rest_after(context.clock.now().since(began));
                // What lasts no longer than the rest is told all the same: who is rejected, and whose
                // Lease the cluster deletes at once.
                let rest = tell_events(&key, pause, &context);
                if context.stop.run_until_cancelled(rest).await.is_none() {
                    return;
                }
            }
            // Whoever leads next reports anew.
            Err(_) if !context.claim.holds() => {
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

/// Sends the events of the reports that come in, until the pause is over. One that is being sent by
/// then is sent to its end: cut off, it would be lost.
async fn tell_events(key: &Key, pause: Duration, context: &Arc<Context>) {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        let news = context.desks().news(key);
        tokio::select! {
            biased;
            () = &mut over => return,
            () = news.notified() => {}
        }
        let report = context.desks().lying(key);
        if let Some(report) = report {
            let later = Box::pin(publish::events(&report, context)).await;
            tell_later(key, &report.registration.uid, later, context);
        }
    }
}

/// Wakes the registration when events that had to wait may be sent. Of an instance that changes again and
/// again only the last state is reported, and it must be reported.
fn tell_later(key: &Key, uid: &str, later: Option<Moment>, context: &Arc<Context>) {
    let Some(at) = later else { return };
    let now = context.clock.now();
    let is_first = context.remember(key, uid, |memory| {
        let waits = memory.tells_at.is_some_and(|known| known > now);
        memory.tells_at = Some(memory.tells_at.filter(|_| waits).unwrap_or(at));
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

/// How long a desk rests after what it wrote took so long. A status is the most expensive thing that
/// is written, and while many die one after the other each would have it written anew. It takes a
/// fifth of the time at most: the API server has the rest for what prunes, and when a status is
/// written at all it is the latest. The same goes for Endpoints.
pub(super) fn rest_after(took: Duration) -> Duration {
    (took * 4).min(LONGEST_REST)
}

/// Waits until the time has come, or there is a newer report. Returns false when the controller is
/// to stop: what is left unsaid the next process says.
async fn rest(key: &Key, pause: Duration, context: &Context) -> bool {
    let news = context.desks().news(key);
    let news = tokio::time::timeout(pause, news.notified());
    context.stop.run_until_cancelled(news).await.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_api::ServiceRegistration;
    use beatkeeper_core::{account::Account, registration::Registration, status::Applied};

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
        let (account, applied) = (Account::default(), Applied::default());
        Report { object, registration, account, stall: None, applied }
    }

    fn key() -> Key {
        Key::new("shop", "greeter")
    }

    #[test]
    fn one_task_sees_to_a_desk_until_nothing_lies_on_it() {
        let mut desks = Desks::default();
        assert!(desks.lay_down(report()), "a task must be started");
        assert!(!desks.lay_down(report()), "the task is there already");
        let first = desks.next(&key(), None).expect("a report");
        assert!(!desks.lay_down(report()));
        let second = desks.next(&key(), Some(&first)).expect("what came in meanwhile");
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(desks.next(&key(), Some(&second)).is_none());
        assert!(desks.lay_down(report()), "he has left");
    }

    #[test]
    fn after_a_task_that_ended_before_its_time_the_next_report_calls_another() {
        let mut desks = Desks::default();
        desks.lay_down(report());
        assert!(desks.next(&key(), None).is_some());
        desks.leave(&key());
        assert!(desks.lay_down(report()));
    }

    #[test]
    fn writing_takes_a_desk_a_fifth_of_the_time_at_most_but_where_that_would_be_a_long_rest() {
        let rest = |millis| rest_after(Duration::from_millis(millis)).as_millis();
        assert_eq!((rest(0), rest(10), rest(1_000), rest(60_000)), (0, 40, 4_000, 5_000));
    }

    #[tokio::test]
    async fn whoever_waits_at_a_desk_hears_of_a_newer_report_and_of_its_end() {
        let mut desks = Desks::default();
        desks.lay_down(report());
        let news = desks.news(&key());
        news.notified().await;
        desks.lay_down(report());
        news.notified().await;
        desks.forget(&key());
        news.notified().await;
        assert!(desks.next(&key(), None).is_none());
    }
}
