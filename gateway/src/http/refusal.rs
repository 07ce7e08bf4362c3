//! Why a request is not a beat.

use std::time::Duration;

use http::StatusCode;

use crate::identity::ports::NotVerified;

/// Why a request is refused before the state machine of the gateway has seen it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Refused {
    #[error(
        "a gateway takes beats only: PATCH /apis/coordination.k8s.io/v1/namespaces/NAMESPACE/leases/NAME, or POST \
         /apis/beatkeeper.dev/v1alpha1/beats; ask the API server for anything else"
    )]
    Path,
    #[error(
        "a gateway does not know {method} here, only {allow}: read and write the Lease through the API server"
    )]
    Method { method: String, allow: &'static str },
    #[error("a beat cannot be a dry run: leave dryRun out")]
    DryRun,
    #[error("{0}")]
    NotVerified(NotVerified),
    #[error(
        "a beat is a merge patch or a strategic merge patch: send the header Content-Type: {expected}"
    )]
    ContentType { expected: &'static str },
    #[error("the body is no JSON: {0}")]
    NoJson(String),
    #[error(
        "a beat through a gateway has only spec.renewTime, and this one has {field}, too: write it to the Lease through \
         the API server"
    )]
    Field { field: String },
    #[error("{field} of the beat is {found:?}, and the path says {expected:?}")]
    Other { field: &'static str, found: String, expected: String },
    #[error("the beat has no spec.renewTime")]
    NoTime,
    #[error(
        "spec.renewTime is no time with six fractional digits, such as 2026-01-02T03:04:05.678901Z"
    )]
    BadTime,
    #[error("the body is not what this request needs: {0}")]
    NoBeats(String),
    #[error("the request has {found} Leases, and may have {max}: send several")]
    TooMany { found: usize, max: usize },
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the body did not come within {0:?}")]
    Slow(Duration),
    #[error("the body broke off")]
    BrokenOff,
    #[error("this identity beats too often: try again in {0:?}")]
    TooOften(Duration),
    #[error(
        "this identity beats for too many Leases that no leader has allowed it to renew: try again in {0:?}"
    )]
    TooManyNew(Duration),
    #[error(
        "this identity sends {0} requests with many beats already, and their bodies have not come: send one after the \
         other"
    )]
    TooManyBodies(usize),
    #[error("too many requests with many beats are read here: try again, at another gateway")]
    BodiesBusy,
    #[error("too many beats wait for their answers here: try again, at another gateway")]
    Busy,
}

impl Refused {
    /// The code, the reason of a `Status`, and the label of the metric.
    pub fn code(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as Code;
        match self {
            Self::Path => (Code::NOT_FOUND, "NotFound", "path"),
            Self::Method { .. } => (Code::METHOD_NOT_ALLOWED, "MethodNotAllowed", "method"),
            Self::NotVerified(NotVerified::CannotCheck(_)) => {
                (Code::SERVICE_UNAVAILABLE, "ServiceUnavailable", "token_unchecked")
            }
            Self::NotVerified(_) => (Code::UNAUTHORIZED, "Unauthorized", "token"),
            Self::ContentType { .. } => {
                (Code::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", "content_type")
            }
            Self::NoJson(_) | Self::NoBeats(_) | Self::BrokenOff => {
                (Code::BAD_REQUEST, "BadRequest", "body")
            }
            Self::DryRun
            | Self::Field { .. }
            | Self::Other { .. }
            | Self::NoTime
            | Self::BadTime
            | Self::TooMany { .. } => (Code::UNPROCESSABLE_ENTITY, "Invalid", "body"),
            Self::TooLong(_) => (Code::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "too_long"),
            Self::Slow(_) => (Code::REQUEST_TIMEOUT, "Timeout", "slow"),
            Self::TooOften(_) | Self::TooManyNew(_) => {
                (Code::TOO_MANY_REQUESTS, "TooManyRequests", "rate")
            }
            Self::TooManyBodies(_) => (Code::TOO_MANY_REQUESTS, "TooManyRequests", "bodies"),
            Self::BodiesBusy => (Code::SERVICE_UNAVAILABLE, "ServiceUnavailable", "bodies"),
            Self::Busy => (Code::SERVICE_UNAVAILABLE, "ServiceUnavailable", "busy"),
        }
    }

    /// The field that is wrong.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Field { field } => Some(field),
            Self::Other { field, .. } => Some(field),
            Self::NoTime | Self::BadTime => Some("spec.renewTime"),
            _ => None,
        }
    }

    /// After how long to try again, if that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften(wait) | Self::TooManyNew(wait) => Some(*wait),
            Self::Busy
            | Self::TooManyBodies(_)
            | Self::BodiesBusy
            | Self::NotVerified(NotVerified::CannotCheck(_)) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether the connection cannot be used any further, because its body was not read to the end.
    pub fn closes(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::Slow(_) | Self::BrokenOff)
    }
}
