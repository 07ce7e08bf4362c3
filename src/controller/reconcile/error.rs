//! Why a reconciliation failed, by step.

use std::{sync::Arc, time::Duration};

use crate::controller::error::ApiError;
use beatkeeper_core::vocabulary::key::Key;

/// Why the inputs are not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputsError {
    /// The Service could not be created or changed.
    #[error(transparent)]
    Service(ApiError),
    /// What others have left could not be taken over.
    #[error(transparent)]
    Adoption(TakeoverError),
}

/// Why a takeover is not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The status does not list an instance that has been recorded there, as after a rollback of the store.
    #[error(
        "the status of ServiceRegistration {registration} does not list {instance} any more; it is recorded again"
    )]
    NotRecorded {
        registration: Key,
        /// The name of the instance.
        instance: String,
    },
}

/// Why a plan was not carried out completely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server refused a write, or did not answer it.
    #[error("{message}")]
    Write {
        /// The error as people read it, which is the same for each generated name of an object.
        message: String,
        source: ApiError,
    },
    /// The adoption could not be completed.
    #[error(transparent)]
    Adoption(TakeoverError),
    /// Each plan met another state than it was made from.
    #[error(transparent)]
    Overtaken(PlanAgain),
}

/// Why a new plan is needed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanAgain {
    /// The state differs from the one that was planned from. It has been read again.
    #[error(transparent)]
    Conflict(ApiError),
    /// Some addresses are refused, and others of the same object may be accepted.
    #[error("{0}")]
    Refused(String),
    /// The last of what others had left has been taken over.
    #[error("the last of it has just been taken over")]
    TakenOver,
}

/// Why a registration could not be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// The inputs are not complete.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// The plan was not carried out completely.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The registration could not be published.
    #[error("cannot publish {registration}: {source}")]
    Publish {
        registration: Key,
        /// The reason, which the status reports, too.
        source: Arc<PublishError>,
        /// The time until time alone changes the decision. A retry must not come later, so that a prune does
        /// not wait for a backoff.
        next: Duration,
    },
    /// The task ended without a result.
    #[error("reconciling {0} panicked; see the log above, and please report it")]
    Panicked(Key),
}
