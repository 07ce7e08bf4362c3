//! A failed call to the API server, and what it says about the object.

use kube::core::Status;

use crate::kube_client::TimedOut;

/// A call to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {cause}")]
pub(crate) struct ApiError {
    /// The action and its object, such as "update EndpointSlice shop/greeter-x7k2p".
    pub(crate) doing: String,
    /// The reason of the failure.
    pub(crate) cause: Cause,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// The API server refused the call, or it could not be reached.
    #[error("{}", message(.0))]
    Kube(#[source] Box<kube::Error>),
    /// No answer arrived in time. Whether the API server has carried out the call is not known.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The call was not sent.
    #[error("this replica does not lead")]
    NotLeading,
}

/// The message of the API server, without debugging output.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

impl ApiError {
    /// The error status in the API server's answer, if it answered.
    fn status(&self) -> Option<&Status> {
        match &self.cause {
            Cause::Kube(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Cause::TimedOut(_) | Cause::NotLeading => None,
        }
    }

    fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// The object differs from the state that was planned from: it has changed, appeared or gone.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }

    /// The operator has no right to do this.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The API server does not know the resource, or a proxy answered. This says nothing about the object.
    pub(crate) fn is_of_unknown_kind(&self) -> bool {
        self.code() == Some(404) && !self.is_absent()
    }

    /// The object does not exist: the API server itself says so and names it. A 404 without the name comes from
    /// a proxy or from a server that does not know the resource. It says nothing about the object.
    pub(crate) fn is_absent(&self) -> bool {
        self.status().is_some_and(|status| {
            let named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
            status.code == 404 && status.reason == "NotFound" && named
        })
    }

    /// The rules of the API server or an admission plugin refuse the content of the object. Other content may
    /// be accepted. Refusals because of rights or quotas are not included, since they do not depend on the
    /// content.
    pub(crate) fn is_refusal(&self) -> bool {
        let by_content = |status: &Status| {
            let message = &status.message;
            let others = message.contains(" cannot ") && message.contains("User ")
                || message.contains("exceeded quota");
            matches!(status.code, 400 | 403 | 406 | 413 | 422) && !others
        };
        self.status().is_some_and(by_content) && !self.is_namespace_ending()
    }

    /// The namespace is being deleted. Nothing can be created in it, and nothing needs to be.
    pub(crate) fn is_namespace_ending(&self) -> bool {
        self.status()
            .is_some_and(|status| status.code == 403 && status.message.contains("being terminated"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

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
        // The status that kube makes from the answer of a proxy.
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
            cause: Cause::TimedOut(TimedOut(Duration::from_secs(5))),
        };
        assert!(!late.is_absent());
    }
}
