//! Reads the registration again and again beside the beats, for the pace and for how the operator treats the
//! instance.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{Carrier, ServiceRegistration};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{options::BeatOptions, state::HeartbeatLoop};
use crate::{
    event::Event,
    failure::{Cause, Failure, Operation},
    panics::catch_panic,
    publication::{FIRST_READ, Publication, PublicationTracker},
    requests::{Requests, TIMEOUT_UNKNOWN},
    schedule::Pace,
    suspend::sleep,
};

/// The registration is read again with every tenth beat, but no more often and no more rarely than these
/// limits.
const REREAD_MIN: Duration = Duration::from_secs(5);
const REREAD_MAX: Duration = Duration::from_secs(30);

/// The pause between two reads while a gateway accepts the beats: its answers tell the pace. So a change of
/// `spec.carrier`, and of how the operator treats the instance, is followed within five minutes.
const REREAD_CARRIED: Duration = Duration::from_secs(300);

/// What the registration asks of its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) pace: Pace,
    pub(super) carrier: Carrier,
}

/// Reads of the registration beside the beats: they continue while this value is kept, and give all new terms.
pub(super) type Rereader = (watch::Receiver<Terms>, AbortOnDropHandle<()>);

impl HeartbeatLoop {
    /// Begins to read the registration again and again. Beats never wait for these reads.
    pub(super) fn reread(&self, pace: Pace) -> Rereader {
        let terms = Terms { pace, carrier: self.carrying.wanted };
        let (sender, receiver) = watch::channel(terms);
        let (requests, options, report) =
            (Arc::clone(&self.requests), self.options, Arc::clone(&self.report));
        let (instance, progress) = (self.identity.instance.clone(), self.progress.clone());
        let mut steady = self.carrying.steady();
        let task = async move {
            let (began, mut tracker, mut soon) =
                (Instant::now(), PublicationTracker::default(), FIRST_READ);
            loop {
                let terms = *sender.borrow();
                let every = (terms.pace.interval() * 10).clamp(REREAD_MIN, REREAD_MAX);
                let early = (!tracker.is_published()).then_some(soon);
                soon = early.map_or(soon, |early| early.saturating_mul(2));
                wait(every, early, &mut steady).await;
                let reading = catch_panic(requests.registration(TIMEOUT_UNKNOWN)).await;
                let read = reading.unwrap_or_else(|panic| {
                    let object = requests.registration_object();
                    Err(Failure::panicked(Operation::ReadRegistration, &object, &panic))
                });
                if let Ok(registration) = &read
                    && let Some(publication) =
                        tracker.update(Publication::of(registration, &instance))
                {
                    progress.send_modify(|now| now.publication = Some(publication.clone()));
                    report(&Event::Publication { publication, after: began.elapsed() });
                }
                match read.and_then(|read| terms_of(&requests, &read, options)) {
                    Ok(new) if new == terms => {}
                    Ok(new) => drop(sender.send(new)),
                    Err(failure) => report(&Event::RereadFailed(failure)),
                }
            }
        };
        (receiver, AbortOnDropHandle::new(tokio::spawn(task)))
    }
}

/// Waits until the next read. `early` is a shorter pause, while it is not known that the instance is published. While a
/// gateway accepts the beats, the pause is long. It ends early when no gateway answers any more: a person may have switched
/// back to the Lease. All instances learn of this at one moment, so the rest of their pauses is random.
async fn wait(every: Duration, early: Option<Duration>, steady: &mut watch::Receiver<bool>) {
    let (began, roll) = (Instant::now(), 0.9 + 0.1 * rand::random::<f64>());
    let due_after =
        |longest: Duration| began + early.map_or(longest, |early| longest.min(early)).mul_f64(roll);
    let carried = due_after(REREAD_CARRIED.max(every));
    let mut due = if *steady.borrow_and_update() { carried } else { due_after(every) };
    loop {
        let changed = async {
            if steady.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep(due.saturating_duration_since(Instant::now())) => return,
            () = changed => {}
        }
        due = match *steady.borrow_and_update() {
            true => carried,
            false => due.min(Instant::now() + every.mul_f64(rand::random())),
        };
    }
}

pub(super) async fn read_terms(
    requests: &Requests,
    options: BeatOptions,
    limit: Duration,
) -> Result<Terms, Failure> {
    let registration = requests.registration(limit).await?;
    terms_of(requests, &registration, options)
}

fn terms_of(
    requests: &Requests,
    registration: &ServiceRegistration,
    options: BeatOptions,
) -> Result<Terms, Failure> {
    let pace = Pace::of(registration, options.wanted()).map_err(|error| {
        let object = requests.registration_object();
        Failure::found(Operation::ReadRegistration, &object, Cause::Pace(error))
    })?;
    Ok(Terms { pace, carrier: registration.spec.carrier })
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn instances_whose_gateways_stop_answering_do_not_read_at_one_moment() {
        let (begun, steady) = (Instant::now(), watch::Sender::new(true));
        let waits = (0..300).map(|_| {
            let mut steady = steady.subscribe();
            async move {
                wait(30 * SECOND, None, &mut steady).await;
                begun.elapsed()
            }
        });
        let outage = async {
            tokio::time::sleep(100 * SECOND).await;
            steady.send_replace(false);
        };
        let (reads, ()) = tokio::join!(join_all(waits), outage);
        let between = |from: u32, until: u32| {
            reads.iter().filter(|at| (from * SECOND..until * SECOND).contains(*at)).count()
        };
        let tens = [between(100, 110), between(110, 120), between(120, 131)];
        assert!(tens.iter().all(|reads| (50..160).contains(reads)), "{tens:?}");
        assert_eq!(tens.iter().sum::<usize>(), 300, "within one pause after the outage");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_makes_no_read_later_than_it_was_due() {
        let (begun, steady) = (Instant::now(), watch::Sender::new(true));
        let mut heard = steady.subscribe();
        let outage = async {
            tokio::time::sleep(SECOND).await;
            steady.send_replace(false);
        };
        tokio::join!(wait(3600 * SECOND, Some(2 * SECOND), &mut heard), outage);
        assert!(begun.elapsed() <= 2 * SECOND + SECOND / 10, "{:?}", begun.elapsed());
    }
}
