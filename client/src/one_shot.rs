//! Single requests for people and scripts: what a heartbeat loop otherwise does by itself.

use std::time::Duration;

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{ResourceExt, api::Preconditions};
use serde_json::json;

use crate::{
    failure::{Cause, Failure, Operation},
    lease::foreign_fields::ONE_SHOT_MANAGER,
    lease::renew_times::RenewTimes,
    lease::{HealthReport, Identity, LeasePatch, Occupant, renewed},
    requests::{Connection, Requests},
};

/// The time limit for an answer of the API server.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An instance for which a person or a script beats. Its place does not matter here, because its Lease exists
/// already and states it.
pub struct OneShot {
    requests: Requests,
    identity: Identity,
}

impl OneShot {
    /// Names the instance; nothing is sent yet.
    pub fn new(connection: Connection, identity: Identity) -> Self {
        Self {
            requests: Requests::new(connection, &identity).written_by(ONE_SHOT_MANAGER),
            identity,
        }
    }

    /// Beats once. The health and the note of the instance stay.
    ///
    /// # Errors
    /// [`Cause::Missing`] if the instance is not registered, [`Cause::Occupied`] if its Lease is no heartbeat
    /// of the registration, and any refusal of the API server.
    pub async fn heartbeat(&self) -> Result<(), Failure> {
        self.beat(None).await
    }

    /// Beats once, and sets the health and the note of the instance.
    ///
    /// # Errors
    /// As [`heartbeat`](Self::heartbeat).
    pub async fn set_health(&self, health_report: &HealthReport) -> Result<(), Failure> {
        self.beat(Some(health_report)).await
    }

    /// Deletes the Lease, and with it the instance. Returns false if there was none.
    ///
    /// # Errors
    /// As [`heartbeat`](Self::heartbeat), except that an instance that is not registered is no error.
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

    async fn beat(&self, health_report: Option<&HealthReport>) -> Result<(), Failure> {
        let lease = self.existing().await?;
        let mut times = RenewTimes::default();
        times.advance_past(renewed(&lease));
        let at = times.next(Timestamp::now());
        let stored = self.send_beat(&lease, at, health_report).await?;
        if stored != renewed(&lease) {
            return Ok(());
        }
        // The new time was truncated to the existing one. So nothing has changed, and the operator has seen
        // no beat.
        times.accepted(at, stored);
        self.send_beat(&lease, times.next(Timestamp::now()), health_report).await.map(drop)
    }

    /// Returns the renewTime that the Lease has afterwards.
    async fn send_beat(
        &self,
        lease: &Lease,
        at: Timestamp,
        health_report: Option<&HealthReport>,
    ) -> Result<Option<Timestamp>, Failure> {
        let mut patch = heartbeat::beat_patch(at);
        // With the uid, a different Lease of the same name causes a conflict.
        patch["metadata"] = json!({ "uid": lease.uid() });
        if let Some(health_report) = health_report {
            patch["metadata"]["annotations"] = health_report.annotations();
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
            return Err(failed(Cause::Occupied(Occupant::Foreign)));
        }
        Ok(lease)
    }
}
