//! Reads the registration again and again beside the beats, for the pace and for how the operator treats the
//! instance.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{Heart, TIMEOUT_UNKNOWN, Wishes};
use crate::{
    awake::sleep,
    event::Event,
    failure::{Cause, Failure, Operation},
    panics::caught,
    requests::Requests,
    schedule::Pace,
    standing::{FIRST_LOOK, Looks, Standing},
};

/// The registration is read again with every tenth beat, but no more often and no more rarely than these
/// limits.
const REREAD_MIN: Duration = Duration::from_secs(5);
const REREAD_MAX: Duration = Duration::from_secs(30);

impl Heart {
    /// Begins to read the registration again and again. Beats never wait for these reads.
    pub(super) fn reread(&self, pace: Pace) -> (watch::Receiver<Pace>, AbortOnDropHandle<()>) {
        let (sender, receiver) = watch::channel(pace);
        let (requests, wishes, report) =
            (Arc::clone(&self.requests), self.wishes, Arc::clone(&self.report));
        let (instance, progress) = (self.identity.instance.clone(), self.progress.clone());
        let task = async move {
            let (began, mut looks, mut soon) = (Instant::now(), Looks::default(), FIRST_LOOK);
            loop {
                let pace = *sender.borrow();
                let mut every = (pace.interval() * 10).clamp(REREAD_MIN, REREAD_MAX);
                if !looks.is_published() {
                    every = every.min(soon);
                    soon = soon.saturating_mul(2);
                }
                sleep(every.mul_f64(0.9 + 0.1 * rand::random::<f64>())).await;
                let reading = caught(requests.registration(TIMEOUT_UNKNOWN)).await;
                let read = reading.unwrap_or_else(|panic| {
                    let object = requests.registration_object();
                    Err(Failure::panicked(Operation::ReadRegistration, &object, &panic))
                });
                if let Ok(registration) = &read
                    && let Some(standing) = looks.look(Standing::of(registration, &instance))
                {
                    progress.send_modify(|now| now.standing = Some(standing.clone()));
                    report(&Event::Standing { standing, after: began.elapsed() });
                }
                match read.and_then(|read| pace_of(&requests, &read, wishes)) {
                    Ok(new) if new == pace => {}
                    Ok(new) => {
                        report(&Event::PaceChanged(new));
                        wishes.warnings(new).iter().for_each(|warning| report(warning));
                        let _ = sender.send(new);
                    }
                    Err(failure) => report(&Event::NotReread(failure)),
                }
            }
        };
        (receiver, AbortOnDropHandle::new(tokio::spawn(task)))
    }
}

pub(super) async fn read_pace(
    requests: &Requests,
    wishes: Wishes,
    limit: Duration,
) -> Result<Pace, Failure> {
    let registration = requests.registration(limit).await?;
    pace_of(requests, &registration, wishes)
}

fn pace_of(
    requests: &Requests,
    registration: &ServiceRegistration,
    wishes: Wishes,
) -> Result<Pace, Failure> {
    let wanted = wishes.interval.filter(|wanted| !wanted.is_zero());
    Pace::of(registration, wanted).map_err(|error| {
        let object = requests.registration_object();
        Failure::found(Operation::ReadRegistration, &object, Cause::Pace(error))
    })
}
