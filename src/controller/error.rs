//! Why a step failed, and whether trying again helps.

use std::time::Duration;

use kube::core::Status;

use crate::kube_client::TookTooLong;

/// A call to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {cause}")]
pub(super) struct ApiError {
    /// What was being done, to which object: "update EndpointSlice shop/greeter-x7k2p".
    pub(super) doing: String,
    /// What came back.
    pub(super) cause: Cause,
}

/// What came back instead of a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// The API server refused, or could not be reached.
    #[error("{}", told(.0))]
    Kube(Box<kube::Error>),
    /// No answer in time. Whether the API server has done what was asked is not known.
    #[error(transparent)]
    TookTooLong(#[from] TookTooLong),
    /// Nothing was sent.
    #[error("this replica does not lead")]
    NotLeading,
}

/// The message of the API server, without the debugging output around it.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

impl ApiError {
    /// What the API server answered, if it did.
    fn status(&self) -> Option<&Status> {
        match &self.cause {
            Cause::Kube(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Cause::TookTooLong(_) | Cause::NotLeading => None,
        }
    }

    fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// The object is not as it was planned from: it has changed, appeared or gone.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }

    /// There is no such object.
    pub(super) fn is_absent(&self) -> bool {
        self.code() == Some(404)
    }

    /// The namespace is being deleted: nothing can be created in it, and nothing needs to be.
    pub(super) fn is_namespace_ending(&self) -> bool {
        self.status()
            .is_some_and(|status| status.code == 403 && status.message.contains("being terminated"))
    }
}

/// Why a reconciliation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A write, or the establishing of the Service, failed.
    #[error("cannot publish {registration}: {failure}")]
    Publish {
        /// The registration.
        registration: crate::core::index::Key,
        /// What failed.
        failure: String,
        /// How long until time alone changes the decision: the dead do not wait for a backoff.
        next: Duration,
    },
    /// The task ended without a result.
    #[error("reconciling {0} panicked; see the log above, and please report it")]
    Panicked(crate::core::index::Key),
}
