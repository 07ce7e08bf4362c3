//! The requests of a heart, one after the other: the Lease claimed, renewed and given back.

use std::time::Duration;

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Preconditions;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Claim, Heart, TIMEOUT_UNKNOWN, read_pace};
use crate::event::{Event, How};
use crate::failure::{Cause, Failure, Operation};
use crate::lease::{Existing, Held, Home, Owner, Word, renewed};
use crate::schedule::{Backoff, Pace};

/// How long deregistering may take, all tries together: a Pod that is being deleted has 30 s.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(5);

impl Heart {
    /// The next thing to do. A success always means that a beat was accepted.
    pub(super) async fn step(&mut self) -> Result<Pace, Failure> {
        let pace = match self.pace {
            Some(pace) => pace,
            None => {
                let pace = read_pace(&self.requests, self.wishes, TIMEOUT_UNKNOWN).await?;
                self.wishes.warnings(pace).iter().for_each(|warning| (self.report)(warning));
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
            Claim::Held(held) => {
                let held = held.clone();
                self.beat(held, pace).await?;
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
        let word = self.words.borrow_and_update().clone();
        let existing = self.requests.lease(limit).await?;
        let lease = match existing.map(|lease| self.identity.judge(&lease, owner)) {
            Some(Existing::Ours { held, renewed }) => {
                how = How::TakenOver;
                self.times.advance_past(renewed);
                let at = self.times.next(Timestamp::now());
                let patch = self.identity.take_over_patch(&held, seconds, &word, at);
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
                let that = Preconditions { uid: Some(uid), resource_version: None };
                self.requests.delete(Operation::ReplaceLease, that, limit).await?;
                self.create(owner, seconds, &word, limit).await?
            }
            None => self.create(owner, seconds, &word, limit).await?,
        };
        self.times.advance_past(renewed(&lease));
        self.lease = Claim::Held(Held::of(&lease));
        self.passed_on = false;
        self.lease_duration_sent = seconds;
        self.told = word;
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
        word: &Word,
        limit: Duration,
    ) -> Result<Lease, Failure> {
        let at = self.times.next(Timestamp::now());
        let lease = self.identity.new_lease(owner, seconds, word, at);
        self.lease = Claim::Unsure;
        self.requests.create(&lease, limit).await
    }

    async fn beat(&mut self, held: Held, pace: Pace) -> Result<(), Failure> {
        let at = self.times.next(Timestamp::now());
        let mut patch = heartbeat::beat_patch(at);
        let seconds = pace.lease_duration_seconds();
        if seconds != self.lease_duration_sent {
            patch["spec"]["leaseDurationSeconds"] = seconds.into();
        }
        let word = self.words.borrow_and_update().clone();
        if word != self.told {
            patch["metadata"] = json!({ "annotations": word.annotations() });
        }
        let sent = Instant::now();
        match self.requests.patch(Operation::Beat, &patch, pace.request_timeout()).await {
            Ok(lease) if self.identity.is_ours_still(&lease, &held.uid) => {
                self.lease_duration_sent = seconds;
                let now = Held::of(&lease);
                if held.has_passed_to(&now) && !self.passed_on {
                    self.passed_on = true;
                    (self.report)(&Event::PassedOn { lease: self.requests.lease_object() });
                }
                self.lease = Claim::Held(Held { transitions: held.transitions, ..now });
                (self.report)(&Event::Beat { at, took: sent.elapsed() });
                if word != self.told {
                    (self.report)(&Event::Told(word.clone()));
                    self.told = word;
                }
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
            self.look(limit).await?;
        }
        let lease = self.requests.lease_object();
        let that = match &self.lease {
            Claim::Held(_) if self.passed_on => return Ok(Event::LeftToAnother { lease }),
            Claim::Held(Held { uid, version, .. }) => {
                Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) }
            }
            Claim::None | Claim::Unsure => return Ok(Event::NeverRegistered),
        };
        match self.requests.delete(Operation::Deregister, that, limit).await {
            Ok(true) => Ok(Event::Deregistered { lease }),
            Ok(false) => Ok(Event::NeverRegistered),
            Err(failure) => {
                if failure.cause == Cause::Conflict {
                    // Written since our last beat: by somebody with an annotation, or another process.
                    self.look(limit).await?;
                }
                Err(failure)
            }
        }
    }

    /// Finds out what has become of the Lease since the last answer that came.
    async fn look(&mut self, limit: Duration) -> Result<(), Failure> {
        let owner = self.owner.as_ref().unwrap_or(&Owner::Outside);
        let found = self.requests.lease(limit).await?;
        self.lease = match found.map(|lease| self.identity.judge(&lease, owner)) {
            Some(Existing::Ours { held, renewed }) => {
                self.passed_on = match &self.lease {
                    Claim::Held(before) => before.has_passed_to(&held),
                    // Ours if what we wrote last is in it.
                    Claim::None | Claim::Unsure => renewed != self.times.latest(),
                };
                Claim::Held(held)
            }
            Some(Existing::EarlierPod { .. } | Existing::Occupied(_)) | None => Claim::None,
        };
        Ok(())
    }
}
