//! What went wrong, and what to do about it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use beatkeeper_api::text::{plain_cut, plain_error_chain};
use kube::core::Status;

use crate::lease::Occupant;
use crate::panics::Panic;
use crate::schedule::PaceError;
use crate::timeout::TimedOut;

/// A request to the API server or to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads the ServiceRegistration.
    ReadRegistration,
    /// Reads the Pod, for its uid.
    ReadPod,
    /// Reads the Lease of an earlier run, if there is one.
    ReadLease,
    /// Creates the Lease.
    CreateLease,
    /// Takes over the Lease of an earlier run.
    TakeOverLease,
    /// Deletes the Lease of an earlier Pod.
    ReplaceLease,
    /// Renews the Lease.
    Beat,
    /// Beats through a gateway.
    CarriedBeat,
    /// Deletes the Lease at the end.
    Deregister,
    /// Lists the published instances.
    ListSlices,
}

impl Operation {
    fn doing(self) -> &'static str {
        match self {
            Self::ReadRegistration => "cannot read the ServiceRegistration",
            Self::ReadPod => "cannot read the Pod",
            Self::ReadLease => "cannot read the Lease",
            Self::CreateLease => "cannot create the Lease",
            Self::TakeOverLease => "cannot take over the Lease",
            Self::ReplaceLease => "cannot delete the Lease of the earlier Pod",
            Self::Beat => "beat failed for",
            Self::CarriedBeat => "no gateway has accepted a beat for",
            Self::Deregister => "cannot delete the Lease",
            Self::ListSlices => "cannot list the EndpointSlices of",
        }
    }

    /// The verb that the user lacks if this operation is forbidden.
    fn verb(self) -> &'static str {
        match self {
            Self::ReadRegistration | Self::ReadPod | Self::ReadLease => "get",
            Self::CreateLease => "create",
            Self::TakeOverLease | Self::Beat | Self::CarriedBeat => "patch",
            Self::ReplaceLease | Self::Deregister => "delete",
            Self::ListSlices => "list",
        }
    }

    /// The rule of a Role that allows this operation and all others of the agent on the same resource, so
    /// that an administrator has to add it only once.
    fn rule(self) -> &'static str {
        match self {
            Self::ReadRegistration => {
                r#"{apiGroups: ["beatkeeper.dev"], resources: ["serviceregistrations"], verbs: ["get"]}"#
            }
            Self::ReadPod => r#"{apiGroups: [""], resources: ["pods"], verbs: ["get"]}"#,
            Self::ListSlices => {
                r#"{apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"]}"#
            }
            _ => {
                r#"{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "patch", "delete"]}"#
            }
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::ReadRegistration => "serviceregistrations.beatkeeper.dev",
            Self::ReadPod => "pods",
            Self::ListSlices => "endpointslices.discovery.k8s.io",
            _ => "leases.coordination.k8s.io",
        }
    }
}

/// Why an operation failed, as far as it decides what happens next or what is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The object does not exist.
    Missing,
    /// The cluster does not know the kind at all.
    UnknownKind,
    /// Another writer was faster: the Lease exists already, or has changed meanwhile.
    Conflict,
    /// A test in the beat's patch failed: another writer has changed the Lease.
    Overtaken,
    /// No RBAC rule allows it.
    MissingRule,
    /// The API server does not accept the credentials.
    Unauthenticated,
    /// Too many requests.
    Busy,
    /// The Lease belongs to another instance.
    Occupied(Occupant),
    /// The registration gives no usable pace.
    Pace(PaceError),
    /// No answer came in time.
    Timeout,
    /// No connection, or it ended before the answer.
    NoConnection,
    /// The API server refuses the request, as an admission policy may.
    Refused,
    /// The API server has failed: an HTTP status of 500 or above.
    ServerError,
    /// Our own program panicked.
    Panicked,
    /// Everything else, such as an answer that cannot be read.
    Other,
}

/// An operation that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation.
    pub operation: Operation,
    /// The object of the operation: `namespace/name`.
    pub object: String,
    /// Why the operation failed.
    pub cause: Cause,
    /// How long the API server asks us to wait.
    pub retry_after: Option<Duration>,
    /// The text of the component that reported the failure.
    pub details: String,
}

/// The maximum length of an answer that is shown, in characters. A proxy may answer with a whole page.
const SAID_MAX: usize = 2000;

/// How long to wait for an API server that is too busy and does not say for how long.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

impl Failure {
    /// A failure that was found without a request to the API server.
    pub fn found(operation: Operation, object: &str, cause: Cause) -> Self {
        let details = match &cause {
            Cause::Occupied(occupant) => plain_cut(&occupant.to_string(), SAID_MAX),
            Cause::Pace(error) => plain_cut(&error.to_string(), SAID_MAX),
            _ => String::new(),
        };
        Self { operation, object: object.to_owned(), cause, retry_after: None, details }
    }

    /// A request got no answer in time.
    pub fn timeout(operation: Operation, object: &str, error: TimedOut) -> Self {
        Self { details: error.to_string(), ..Self::found(operation, object, Cause::Timeout) }
    }

    /// Our own program panicked in the operation.
    pub fn panicked(operation: Operation, object: &str, panic: &Panic) -> Self {
        Self { details: panic.to_string(), ..Self::found(operation, object, Cause::Panicked) }
    }

    /// Makes a failure of an error of kube.
    pub fn of(operation: Operation, object: &str, error: &kube::Error) -> Self {
        let found = |cause| Self::found(operation, object, cause);
        match error {
            kube::Error::Api(status) => Self {
                retry_after: retry_after(status),
                details: said(status),
                ..found(cause(operation, status))
            },
            // The texts of these errors only name the layer, hyper or tower, that found the error below.
            kube::Error::Service(error) => {
                Self { details: plain_error_chain(error.as_ref()), ..found(Cause::NoConnection) }
            }
            kube::Error::HyperError(error) => {
                Self { details: plain_error_chain(error), ..found(Cause::NoConnection) }
            }
            error => Self { details: plain_error_chain(error), ..found(Cause::Other) },
        }
    }
}

fn cause(operation: Operation, status: &Status) -> Cause {
    match status.code {
        // The registry names the object that is missing. The router, which does not know the kind, names no
        // object.
        404 if operation == Operation::ReadRegistration
            && status.details.as_ref().is_none_or(|details| details.name.is_empty()) =>
        {
            Cause::UnknownKind
        }
        404 => Cause::Missing,
        409 => Cause::Conflict,
        // A test of the JSON Patch failed, or the patch is invalid. A read of the Lease shows which.
        422 if operation == Operation::Beat => Cause::Overtaken,
        // Admission refuses with 403 as well, and no RBAC rule helps in that case.
        403 if status.message.contains(&format!(" cannot {} resource ", operation.verb())) => {
            Cause::MissingRule
        }
        401 => Cause::Unauthenticated,
        429 => Cause::Busy,
        400..=499 => Cause::Refused,
        500.. => Cause::ServerError,
        _ => Cause::Other,
    }
}

fn retry_after(status: &Status) -> Option<Duration> {
    let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    match (asked, status.code) {
        (0, 429) => Some(RETRY_AFTER_DEFAULT),
        (0, _) => None,
        (seconds, _) => Some(Duration::from_secs(seconds.into())),
    }
}

fn said(status: &Status) -> String {
    let message = status.message.trim();
    // The API server repeats text of users, and an admission plugin may answer with any text.
    if message.is_empty() {
        format!("HTTP status {}", status.code)
    } else {
        plain_cut(message, SAID_MAX)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, object, cause, retry_after: _, details } = self;
        let doing = operation.doing();
        match cause {
            Cause::Missing if *operation == Operation::ReadRegistration => {
                write!(f, "ServiceRegistration {object} does not exist yet")
            }
            Cause::Missing if *operation == Operation::ReadLease => {
                write!(f, "not registered: there is no Lease {object}; register the instance first")
            }
            Cause::UnknownKind => write!(
                f,
                "{doing} {object}: the cluster has no such kind; \
                 install it with: beatkeeper crd | kubectl apply --server-side -f -"
            ),
            Cause::MissingRule => write!(
                f,
                "{doing} {object}: not allowed to {} {}; add to a Role in namespace {}, \
                 and bind it: {} ({details})",
                operation.verb(),
                operation.resource(),
                object.split('/').next().unwrap_or_default(),
                operation.rule(),
            ),
            Cause::Unauthenticated if *operation == Operation::CarriedBeat => {
                write!(f, "{doing} {object}: the gateway does not accept the token: {details}")
            }
            Cause::Unauthenticated => write!(
                f,
                "{doing} {object}: the API server does not accept the credentials ({details}); \
                 a token may have expired"
            ),
            Cause::Occupied(_) => write!(
                f,
                "{doing} {object}: {details}; delete that Lease if it is a leftover, \
                 or choose another name for the instance"
            ),
            _ => write!(f, "{doing} {object}: {details}"),
        }
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::StatusDetails;

    fn status(code: u16, message: &str, details: Option<StatusDetails>) -> kube::Error {
        let mut status = Status::failure(message, "").with_code(code);
        status.details = details;
        kube::Error::Api(status.boxed())
    }

    fn failure(operation: Operation, error: &kube::Error) -> Failure {
        Failure::of(operation, "shop/greeter.vm-1", error)
    }

    fn named(name: &str, retry_after_seconds: u32) -> Option<StatusDetails> {
        Some(StatusDetails {
            name: name.to_owned(),
            retry_after_seconds,
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![],
        })
    }

    #[test]
    fn a_missing_permission_is_told_with_the_rule_to_add() {
        let said = "leases.coordination.k8s.io \"greeter.vm-1\" is forbidden: User \"u\" cannot patch resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"shop\"";
        let failure = failure(Operation::Beat, &status(403, said, None));
        assert_eq!(failure.cause, Cause::MissingRule);
        assert_eq!(
            failure.to_string(),
            format!(
                "beat failed for shop/greeter.vm-1: not allowed to patch leases.coordination.k8s.io; add to a Role in namespace shop, and bind it: {{apiGroups: [\"coordination.k8s.io\"], resources: [\"leases\"], verbs: [\"get\", \"create\", \"patch\", \"delete\"]}} ({said})"
            )
        );
    }

    #[test]
    fn what_admission_refuses_is_not_blamed_on_rbac() {
        let said = "leases \"greeter.vm-1\" is forbidden: ValidatingAdmissionPolicy 'beats' denied request: not your Pod";
        let failure = failure(Operation::CreateLease, &status(403, said, None));
        assert_eq!(failure.cause, Cause::Refused);
        assert_eq!(
            failure.to_string(),
            format!("cannot create the Lease shop/greeter.vm-1: {said}")
        );
    }

    #[test]
    fn a_registration_that_is_missing_is_told_from_a_kind_that_is() {
        let read = |error| failure(Operation::ReadRegistration, &error);
        let missing = read(status(404, "not found", named("greeter", 0)));
        assert_eq!(missing.to_string(), "ServiceRegistration shop/greeter.vm-1 does not exist yet");
        for unknown in [status(404, "404 page not found", None), status(404, "x", named("", 0))] {
            let unknown = read(unknown).to_string();
            assert!(unknown.ends_with("beatkeeper crd | kubectl apply --server-side -f -"));
        }
        assert_eq!(failure(Operation::Beat, &status(404, "x", None)).cause, Cause::Missing);
    }

    #[test]
    fn the_api_server_can_ask_for_a_pause() {
        for (error, pause) in [
            (status(429, "", None), Some(Duration::from_secs(1))),
            (status(429, "", named("", 7)), Some(Duration::from_secs(7))),
            (status(503, "", named("", 2)), Some(Duration::from_secs(2))),
            (status(500, "", named("", 0)), None),
        ] {
            assert_eq!(failure(Operation::Beat, &error).retry_after, pause);
        }
    }

    #[test]
    fn an_error_of_the_connection_is_told_with_all_its_causes() {
        let refused = std::io::Error::other(std::io::Error::from_raw_os_error(111));
        let failure = failure(Operation::Beat, &kube::Error::Service(Box::new(refused)));
        assert_eq!(
            failure.to_string(),
            "beat failed for shop/greeter.vm-1: Connection refused (os error 111)"
        );
    }

    #[test]
    fn a_page_that_a_proxy_sends_is_cut_and_on_one_line() {
        let page = format!("<html>\n{}", "x".repeat(100_000));
        let failure = failure(Operation::Beat, &status(502, &page, None)).to_string();
        assert!(failure.contains("<html>\\nxxx") && failure.len() < 3000, "{}", failure.len());
    }

    #[test]
    fn an_answer_without_a_message_shows_its_code() {
        let failure = failure(Operation::Deregister, &status(500, "", None)).to_string();
        assert_eq!(failure, "cannot delete the Lease shop/greeter.vm-1: HTTP status 500");
    }
}
