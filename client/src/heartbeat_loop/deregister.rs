//! Deletes the Lease at the end.

use std::time::Duration;

use kube::api::Preconditions;
use tokio::time::{Instant, sleep};

use super::{
    other_holder::OtherHolder,
    state::{ClaimState, HeartbeatLoop},
};
use crate::{
    event::Event,
    failure::{Cause, Failure, Operation},
    lease::{Existing, LeaseVersion, Owner},
    requests::TIMEOUT_UNKNOWN,
    schedule::{Backoff, RetryLimits},
};

/// How long all tries of deregistering together may take: a Pod that is being deleted has 30 s.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(5);
impl HeartbeatLoop {
    /// Deletes the Lease, with retries, within [`DEREGISTER_WITHIN`].
    pub(super) async fn deregister(&mut self) -> Result<Event, Failure> {
        let end = Instant::now() + DEREGISTER_WITHIN;
        let mut backoff = Backoff::default();
        loop {
            let limit = self.pace.map_or(TIMEOUT_UNKNOWN, |pace| pace.request_timeout());
            let left = end.saturating_duration_since(Instant::now());
            match self.try_deregister(limit.min(left)).await {
                Ok(event) => return Ok(event),
                Err(failure) => {
                    let left = end.saturating_duration_since(Instant::now());
                    let room = RetryLimits::until(left, self.pace.as_ref());
                    let pause = backoff.pause(room, failure.retry_after, rand::random());
                    // A missing permission will not be added within five seconds.
                    if failure.cause == Cause::MissingRule || Instant::now() + pause >= end {
                        return Err(failure);
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    async fn try_deregister(&mut self, limit: Duration) -> Result<Event, Failure> {
        if let ClaimState::Unknown = self.lease {
            self.look(limit).await?;
        }
        let lease = self.requests.lease_object();
        let that = match &self.lease {
            ClaimState::TakenOver(holder) => {
                let holder = holder.clone();
                self.remove_note(&holder, limit).await;
                return Ok(Event::LeaseLeft { lease });
            }
            ClaimState::Held(LeaseVersion { uid, version, .. }) => {
                Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) }
            }
            ClaimState::None | ClaimState::Unknown => return Ok(Event::NeverRegistered),
        };
        match self.requests.delete(Operation::Deregister, that, limit).await {
            Ok(true) => Ok(Event::Deregistered { lease }),
            Ok(false) => Ok(Event::NeverRegistered),
            Err(failure) => {
                if failure.cause == Cause::Conflict {
                    // The Lease was written since our last beat, by another process or by a person who set an
                    // annotation.
                    self.look(limit).await?;
                }
                Err(failure)
            }
        }
    }

    /// Finds out what has become of the Lease since the last answer that we received.
    async fn look(&mut self, limit: Duration) -> Result<(), Failure> {
        let owner = self.owner.as_ref().unwrap_or(&Owner::Outside);
        let found = self.requests.lease(limit).await?;
        let judged = found.as_ref().map(|lease| self.identity.classify(lease, owner));
        let (Some(lease), Some(Existing::Ours { held, renewed })) = (found, judged) else {
            self.lease = ClaimState::None;
            return Ok(());
        };
        let holder = match &self.lease {
            ClaimState::Held(before) => before.was_taken_over_by(&held),
            // The Lease is ours if it holds our last write.
            ClaimState::None | ClaimState::Unknown | ClaimState::TakenOver(_) => {
                !self.written.contains(renewed)
            }
        };
        self.lease = match holder {
            false => ClaimState::Held(held),
            true => ClaimState::TakenOver(Box::new(OtherHolder::to(&self.identity, &lease))),
        };
        Ok(())
    }
}
