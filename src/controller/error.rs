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

    /// The operator may not do that.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The API server does not know the resource, or a proxy on the way answered: nothing is said about the
    /// object.
    pub(super) fn is_of_unknown_kind(&self) -> bool {
        self.code() == Some(404) && !self.is_absent()
    }

    /// There is no such object: the API server itself says so, and names it. A 404 without that comes
    /// from a proxy on the way, or from a server that does not know the resource, and says nothing
    /// about the object.
    pub(super) fn is_absent(&self) -> bool {
        self.status().is_some_and(|status| {
            let named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
            status.code == 404 && status.reason == "NotFound" && named
        })
    }

    /// What was sent is refused as it is, by the API server's rules or by an admission plugin: another content may
    /// be accepted. Rights and quotas know nothing of the content.
    pub(super) fn is_refusal(&self) -> bool {
        let by_content = |status: &Status| {
            let message = &status.message;
            let others = message.contains(" cannot ") && message.contains("User ")
                || message.contains("exceeded quota");
            matches!(status.code, 400 | 403 | 406 | 413 | 422) && !others
        };
        self.status().is_some_and(by_content) && !self.is_namespace_ending()
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
        registration: beatkeeper_core::index::Key,
        /// What failed.
        failure: String,
        /// How long until time alone changes the decision: the dead do not wait for a backoff.
        next: Duration,
    },
    /// The task ended without a result.
    #[error("reconciling {0} panicked; see the log above, and please report it")]
    Panicked(beatkeeper_core::index::Key),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(status: Value) -> ApiError {
        let status: Status = serde_json::from_value(status).expect("a Status");
        let cause = Cause::Kube(Box::new(kube::Error::Api(status.boxed())));
        ApiError { doing: "read Lease shop/greeter.vm-1".to_owned(), cause }
    }

    #[test]
    fn an_object_is_absent_when_the_api_server_names_it_as_not_found() {
        let status = json!({
            "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "leases.coordination.k8s.io \"greeter.vm-1\" not found",
            "details": { "name": "greeter.vm-1", "group": "coordination.k8s.io", "kind": "leases" },
        });
        assert!(refused(status).is_absent());
    }

    #[test]
    fn a_read_error_is_never_taken_for_absence() {
        // As kube makes them of what a proxy answers.
        let proxy = json!({
            "status": "Failure", "code": 404,
            "message": "<html>404 page not found</html>", "reason": "Failed to parse error data",
        });
        let unknown_resource = json!({
            "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "the server could not find the requested resource", "details": {},
        });
        let others = [401, 403, 410, 429, 500, 503, 504].map(|code| {
            json!({ "status": "Failure", "code": code, "details": { "name": "greeter.vm-1" } })
        });
        for status in [&proxy, &unknown_resource] {
            assert!(refused(status.clone()).is_of_unknown_kind(), "{status}");
        }
        for status in [proxy, unknown_resource].into_iter().chain(others) {
            assert!(!refused(status.clone()).is_absent(), "{status}");
        }
        let late = ApiError {
            doing: "read Lease shop/greeter.vm-1".to_owned(),
            cause: Cause::TookTooLong(TookTooLong(Duration::from_secs(5))),
        };
        assert!(!late.is_absent());
    }
}
