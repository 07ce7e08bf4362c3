//! One request at a time, for people and scripts: what a heart otherwise does by itself.

use std::time::Duration;

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{ResourceExt, api::Preconditions};
use serde_json::json;

use crate::{
    clock::RenewTimes,
    failure::{Cause, Failure, Operation},
    fence::LeasePatch,
    lease::{Identity, Occupant, Word, renewed},
    others::BY_HAND,
    requests::{Connection, Requests},
};

/// How long the API server may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An instance that somebody beats for by hand. Where it lives does not matter here: its Lease is there
/// already, and says so.
pub struct ByHand {
    requests: Requests,
    identity: Identity,
}

impl ByHand {
    /// The instance of that name; nothing is sent yet.
    pub fn new(connection: Connection, identity: Identity) -> Self {
        Self { requests: Requests::new(connection, &identity).written_by(BY_HAND), identity }
    }

    /// Beats once. What the instance said of itself stays.
    ///
    /// # Errors
    /// [`Cause::Missing`] when it is not registered, [`Cause::Occupied`] when its Lease is no heartbeat of the
    /// registration, and whatever the API server refuses.
    pub async fn heartbeat(&self) -> Result<(), Failure> {
        self.beat(None).await
    }

    /// Beats once, and says how the instance is.
    ///
    /// # Errors
    /// As [`heartbeat`](Self::heartbeat).
    pub async fn tell(&self, word: &Word) -> Result<(), Failure> {
        self.beat(Some(word)).await
    }

    /// Deletes the Lease, and with it the instance. False: there was none.
    ///
    /// # Errors
    /// As [`heartbeat`](Self::heartbeat), but for one that is not registered.
    pub async fn deregister(&self) -> Result<bool, Failure> {
        match self.existing().await {
            Ok(lease) => {
                let that = Preconditions { uid: lease.uid(), resource_version: None };
                self.requests.delete(Operation::Deregister, that, ANSWER_WITHIN).await
            }
            Err(failure) if failure.cause == Cause::Missing => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn beat(&self, word: Option<&Word>) -> Result<(), Failure> {
        let lease = self.existing().await?;
        let mut times = RenewTimes::default();
        times.advance_past(renewed(&lease));
        let at = times.next(Timestamp::now());
        let stored = self.send_beat(&lease, at, word).await?;
        if stored != renewed(&lease) {
            return Ok(());
        }
        // It was cut to the time that was there, so nothing has changed, and nobody has seen a beat.
        times.accepted(at, stored);
        self.send_beat(&lease, times.next(Timestamp::now()), word).await.map(drop)
    }

    /// Returns the time that the Lease has then.
    async fn send_beat(
        &self,
        lease: &Lease,
        at: Timestamp,
        word: Option<&Word>,
    ) -> Result<Option<Timestamp>, Failure> {
        let mut patch = heartbeat::beat_patch(at);
        // Another Lease of the same name is not meant: the uid makes that a conflict.
        patch["metadata"] = json!({ "uid": lease.uid() });
        if let Some(word) = word {
            patch["metadata"]["annotations"] = word.annotations();
        }
        let patch = LeasePatch::Merge(patch);
        let lease = self.requests.patch(Operation::Beat, &patch, ANSWER_WITHIN).await?;
        Ok(renewed(&lease))
    }

    async fn existing(&self) -> Result<Lease, Failure> {
        let failed =
            |cause| Failure::found(Operation::ReadLease, &self.requests.lease_object(), cause);
        let lease = self.requests.lease(ANSWER_WITHIN).await?;
        let lease = lease.ok_or_else(|| failed(Cause::Missing))?;
        if heartbeat::registration_of(&lease) != Some(&self.identity.registration) {
            return Err(failed(Cause::Occupied(Occupant::Stranger)));
        }
        Ok(lease)
    }
}
