//! The engine: claims the Lease, keeps it renewed, gives it back.

use std::sync::Arc;
use std::time::Duration;

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::api::Requests;
use super::clock::RenewTimes;
use super::event::{Event, How};
use super::failure::{Cause, Failure, Operation};
use super::lease::{Existing, Home, Identity, Owner, renewed};
use super::schedule::{Backoff, Pace};

/// A request that was sent before the ttl was known.
const TIMEOUT_UNKNOWN: Duration = Duration::from_secs(10);
/// How long deregistering may take, all tries together: a Pod that is being deleted has 30 s.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(5);
/// A request that is under way when we are stopped may come to its end for so long. Dropped, a
/// Lease that is just being created would stay behind without our knowing.
const LET_FINISH: Duration = Duration::from_millis(500);
/// The registration is read again with every tenth beat, but at least and at most so often.
const REREAD_MIN: Duration = Duration::from_secs(5);
const REREAD_MAX: Duration = Duration::from_secs(30);

/// Hears what happens. Called from the heart itself: it must not block.
pub type Report = Arc<dyn Fn(&Event) + Send + Sync>;

/// One beating instance.
pub struct Heart {
    requests: Arc<Requests>,
    identity: Identity,
    wanted: Option<Duration>,
    report: Report,
    times: RenewTimes,
    pace: Option<Pace>,
    owner: Option<Owner>,
    lease: Claim,
    last_success: Option<Instant>,
    lease_duration_sent: i32,
}

/// How far we are with the Lease.
enum Claim {
    /// Nothing was written yet.
    None,
    /// Something was written, and whether it arrived is unknown.
    Unsure,
    /// Ours, with this uid.
    Held(String),
}

impl Heart {
    /// A heart that has not begun to beat. `wanted` is an interval that may be faster than the
    /// registration's; a slower one is reported and not followed.
    pub fn new(
        client: Client,
        identity: Identity,
        wanted: Option<Duration>,
        report: Report,
    ) -> Self {
        Self {
            requests: Arc::new(Requests::new(client, &identity)),
            identity,
            wanted,
            report,
            times: RenewTimes::default(),
            pace: None,
            owner: None,
            lease: Claim::None,
            last_success: None,
            lease_duration_sent: 0,
        }
    }

    /// Beats until `stop` is cancelled, whatever happens; then deregisters.
    ///
    /// # Errors
    /// Only when deregistering failed. The Lease stays then, and the instance is pruned when its ttl
    /// is over.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        self.beat_until(&stop).await;
        let last_words = self.deregister().await?;
        (self.report)(&last_words);
        Ok(())
    }

    async fn beat_until(&mut self, stop: &CancellationToken) {
        let mut backoff = Backoff::default();
        let mut failing = false;
        let mut due = Instant::now();
        let mut anchor = due;
        let mut rereader: Option<(watch::Receiver<Pace>, AbortOnDropHandle<()>)> = None;
        loop {
            let sent = Instant::now();
            let Some(result) = unless_stopped(stop, self.step()).await else { return };
            match result {
                Ok(pace) => {
                    if failing && let Some(last) = self.last_success {
                        (self.report)(&Event::Recovered { after: last.elapsed() });
                    }
                    self.last_success = Some(Instant::now());
                    failing = false;
                    backoff.reset();
                    // Counted from when it was due, the time that requests take does not add up. A
                    // beat that came late starts a new count: those that were missed are not made
                    // up for.
                    anchor = if sent - due > pace.interval() / 10 { sent } else { due };
                    due = anchor + pace.pause(rand::random());
                    if rereader.is_none() {
                        rereader = Some(self.reread(pace));
                    }
                }
                Err(failure) => {
                    failing = self.last_success.is_some();
                    let retry_in =
                        backoff.pause(self.pace.as_ref(), failure.retry_after, rand::random());
                    due = Instant::now() + retry_in;
                    (self.report)(&Event::Failed { failure, retry_in });
                }
            }
            let Some((paces, _)) = &mut rereader else {
                if wait_until(due, stop).await { return } else { continue }
            };
            while tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(due) => false,
                Ok(()) = paces.changed() => true,
            } {
                let pace = *paces.borrow_and_update();
                self.pace = Some(pace);
                if !failing {
                    due = due.min(anchor + pace.pause(rand::random()));
                }
            }
        }
    }

    /// The next thing to do. A success always means that a beat was accepted.
    async fn step(&mut self) -> Result<Pace, Failure> {
        let pace = match self.pace {
            Some(pace) => pace,
            None => {
                let (pace, warning) =
                    read_pace(&self.requests, self.wanted, TIMEOUT_UNKNOWN).await?;
                if let Some(warning) = warning {
                    (self.report)(&warning);
                }
                *self.pace.insert(pace)
            }
        };
        let owner = match &self.owner {
            Some(owner) => owner.clone(),
            None => {
                let owner = self.read_owner(pace).await?;
                self.owner.insert(owner).clone()
            }
        };
        match &self.lease {
            Claim::Held(uid) => {
                let uid = uid.clone();
                self.beat(&uid, pace).await?;
            }
            Claim::None | Claim::Unsure => self.claim(&owner, pace).await?,
        }
        Ok(pace)
    }

    async fn read_owner(&self, pace: Pace) -> Result<Owner, Failure> {
        Ok(match &self.identity.home {
            Home::Outside(_) => Owner::Outside,
            Home::Pod(name) => Owner::Pod {
                uid: self.requests.pod_uid(name, pace.request_timeout()).await?,
                name: name.clone(),
            },
        })
    }

    async fn claim(&mut self, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let limit = pace.request_timeout();
        let seconds = pace.lease_duration_seconds();
        let mut how = How::Created;
        let existing = self.requests.lease(limit).await?;
        let lease = match existing.map(|lease| self.identity.judge(&lease, owner)) {
            Some(Existing::Ours { uid, renewed }) => {
                how = How::TakenOver;
                self.times.advance_past(renewed);
                let at = self.times.next(Timestamp::now());
                let patch = self.identity.take_over_patch(&uid, seconds, at);
                self.lease = Claim::Unsure;
                self.requests.patch(Operation::TakeOverLease, &patch, limit).await?
            }
            Some(Existing::Occupied(occupant)) => {
                let lease = self.requests.lease_object();
                let cause = Cause::Occupied(occupant);
                return Err(Failure::found(Operation::CreateLease, &lease, cause));
            }
            Some(Existing::EarlierPod { uid }) => {
                how = How::Replaced;
                self.requests.delete(Operation::ReplaceLease, &uid, limit).await?;
                self.create(owner, seconds, limit).await?
            }
            None => self.create(owner, seconds, limit).await?,
        };
        self.times.advance_past(renewed(&lease));
        self.lease = Claim::Held(lease.metadata.uid.unwrap_or_default());
        self.lease_duration_sent = seconds;
        (self.report)(&Event::Claimed {
            registration: self.requests.registration_object(),
            instance: self.identity.instance.clone(),
            pace,
            how,
        });
        Ok(())
    }

    async fn create(
        &mut self,
        owner: &Owner,
        seconds: i32,
        limit: Duration,
    ) -> Result<k8s_openapi::api::coordination::v1::Lease, Failure> {
        let at = self.times.next(Timestamp::now());
        let lease = self.identity.new_lease(owner, seconds, at);
        self.lease = Claim::Unsure;
        self.requests.create(&lease, limit).await
    }

    async fn beat(&mut self, uid: &str, pace: Pace) -> Result<(), Failure> {
        let at = self.times.next(Timestamp::now());
        let mut patch = heartbeat::beat_patch(at);
        let seconds = pace.lease_duration_seconds();
        if seconds != self.lease_duration_sent {
            patch["spec"]["leaseDurationSeconds"] = seconds.into();
        }
        let sent = Instant::now();
        match self.requests.patch(Operation::Beat, &patch, pace.request_timeout()).await {
            Ok(lease) if self.identity.is_ours_still(&lease, uid) => {
                self.lease_duration_sent = seconds;
                (self.report)(&Event::Beat { at, took: sent.elapsed() });
                return Ok(());
            }
            Ok(_) => {}
            Err(failure) if failure.cause == Cause::Missing => {}
            Err(failure) => return Err(failure),
        }
        self.lease = Claim::Unsure;
        (self.report)(&Event::Lost { lease: self.requests.lease_object() });
        let owner = self.owner.clone().unwrap_or(Owner::Outside);
        self.claim(&owner, pace).await
    }

    /// Reads the registration again and again, beside the beats: they never wait for it.
    fn reread(&self, pace: Pace) -> (watch::Receiver<Pace>, AbortOnDropHandle<()>) {
        let (sender, receiver) = watch::channel(pace);
        let (requests, wanted, report) =
            (Arc::clone(&self.requests), self.wanted, Arc::clone(&self.report));
        let task = async move {
            loop {
                let pace = *sender.borrow();
                let every = (pace.interval() * 10).clamp(REREAD_MIN, REREAD_MAX);
                sleep(every.mul_f64(0.9 + 0.1 * rand::random::<f64>())).await;
                match read_pace(&requests, wanted, TIMEOUT_UNKNOWN).await {
                    Ok((new, _)) if new == pace => {}
                    Ok((new, warning)) => {
                        report(&Event::PaceChanged(new));
                        if let Some(warning) = warning {
                            report(&warning);
                        }
                        let _ = sender.send(new);
                    }
                    Err(failure) => report(&Event::NotReread(failure)),
                }
            }
        };
        (receiver, AbortOnDropHandle::new(tokio::spawn(task)))
    }

    /// Deletes the Lease, with retries, within [`DEREGISTER_WITHIN`].
    async fn deregister(&mut self) -> Result<Event, Failure> {
        let end = Instant::now() + DEREGISTER_WITHIN;
        let mut backoff = Backoff::default();
        loop {
            let limit = self.pace.map_or(TIMEOUT_UNKNOWN, |pace| pace.request_timeout());
            let left = end.saturating_duration_since(Instant::now());
            match self.try_deregister(limit.min(left)).await {
                Ok(event) => return Ok(event),
                Err(failure) => {
                    let roll = rand::random();
                    let pause = backoff.pause(self.pace.as_ref(), failure.retry_after, roll);
                    // No permission will be added in five seconds.
                    if failure.cause == Cause::MissingRule || Instant::now() + pause >= end {
                        return Err(failure);
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    async fn try_deregister(&mut self, limit: Duration) -> Result<Event, Failure> {
        if let Claim::Unsure = self.lease {
            let owner = self.owner.as_ref().unwrap_or(&Owner::Outside);
            let found = self.requests.lease(limit).await?;
            self.lease = match found.map(|lease| self.identity.judge(&lease, owner)) {
                Some(Existing::Ours { uid, .. }) => Claim::Held(uid),
                _ => Claim::None,
            };
        }
        if let Claim::Held(uid) = &self.lease
            && self.requests.delete(Operation::Deregister, uid, limit).await?
        {
            return Ok(Event::Deregistered { lease: self.requests.lease_object() });
        }
        Ok(Event::NeverRegistered)
    }
}

async fn read_pace(
    requests: &Requests,
    wanted: Option<Duration>,
    limit: Duration,
) -> Result<(Pace, Option<Event>), Failure> {
    let registration = requests.registration(limit).await?;
    let pace = Pace::of(&registration, wanted).map_err(|error| {
        let object = requests.registration_object();
        Failure::found(Operation::ReadRegistration, &object, Cause::Pace(error))
    })?;
    let warning = wanted
        .filter(|wanted| *wanted > pace.interval())
        .map(|wanted| Event::TooSlow { wanted, pace });
    Ok((pace, warning))
}

/// Waits; true when stopped.
async fn wait_until(due: Instant, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = sleep_until(due) => false,
    }
}

/// The outcome, unless we are stopped and it does not come soon after.
async fn unless_stopped<T>(stop: &CancellationToken, step: impl Future<Output = T>) -> Option<T> {
    let stopped = async {
        stop.cancelled().await;
        sleep(LET_FINISH).await;
    };
    tokio::select! {
        biased;
        outcome = step => Some(outcome),
        () = stopped => None,
    }
}
