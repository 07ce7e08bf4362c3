//! Reads the registration again and again beside the beats, for the pace and for how the operator treats the
//! instance.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
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

/// Reads of the registration beside the beats: they continue while this value is kept, and give each new pace.
pub(super) type Rereader = (watch::Receiver<Pace>, AbortOnDropHandle<()>);

impl HeartbeatLoop {
    /// Begins to read the registration again and again. Beats never wait for these reads.
    pub(super) fn reread(&self, pace: Pace) -> Rereader {
        let (sender, receiver) = watch::channel(pace);
        let (requests, options, report) =
            (Arc::clone(&self.requests), self.options, Arc::clone(&self.report));
        let (instance, progress) = (self.identity.instance.clone(), self.progress.clone());
        let task = async move {
            let (began, mut tracker, mut soon) =
                (Instant::now(), PublicationTracker::default(), FIRST_READ);
            loop {
                let pace = *sender.borrow();
                let mut every = (pace.interval() * 10).clamp(REREAD_MIN, REREAD_MAX);
                if !tracker.is_published() {
                    every = every.min(soon);
                    soon = soon.saturating_mul(2);
                }
                sleep(every.mul_f64(0.9 + 0.1 * rand::random::<f64>())).await;
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
                match read.and_then(|read| pace_of(&requests, &read, options)) {
                    Ok(new) if new == pace => {}
                    Ok(new) => {
                        report(&Event::PaceChanged(new));
                        options.warnings(new).iter().for_each(|warning| report(warning));
                        let _ = sender.send(new);
                    }
                    Err(failure) => report(&Event::RereadFailed(failure)),
                }
            }
        };
        (receiver, AbortOnDropHandle::new(tokio::spawn(task)))
    }
}

pub(super) async fn read_pace(
    requests: &Requests,
    options: BeatOptions,
    limit: Duration,
) -> Result<Pace, Failure> {
    let registration = requests.registration(limit).await?;
    pace_of(requests, &registration, options)
}

fn pace_of(
    requests: &Requests,
    registration: &ServiceRegistration,
    options: BeatOptions,
) -> Result<Pace, Failure> {
    let wanted = options.interval.filter(|wanted| !wanted.is_zero());
    Pace::of(registration, wanted).map_err(|error| {
        let object = requests.registration_object();
        Failure::found(Operation::ReadRegistration, &object, Cause::Pace(error))
    })
}
