//! Beats of many instances in one request, as an agent sends them to a gateway (docs/adr/0036).
//!
//! One request carries up to [`BEATS_MAX`] instances. Each is answered for itself. The token of the request has to be
//! allowed to renew each of the Leases.

use serde::{Deserialize, Serialize};

/// The path to which the beats are posted.
pub const BEATS_PATH: &str = "/apis/beatkeeper.dev/v1alpha1/beats";
/// The `apiVersion` of request and answer.
pub const BEATS_VERSION: &str = "beatkeeper.dev/v1alpha1";
/// The `kind` of request and answer.
pub const BEATS_KIND: &str = "Beats";
/// The most instances of one request.
pub const BEATS_MAX: usize = 1000;
/// The audience of the tokens that a gateway accepts. Such a token is worth nothing at the API server.
pub const BEATS_AUDIENCE: &str = "beatkeeper";

/// The request: the Leases of the instances that beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Beats {
    /// [`BEATS_VERSION`].
    pub api_version: String,
    /// [`BEATS_KIND`].
    pub kind: String,
    /// The Leases, at most [`BEATS_MAX`].
    pub leases: Vec<BeatLease>,
}

impl Beats {
    /// The beats of these Leases.
    pub fn of(leases: Vec<BeatLease>) -> Self {
        Self { api_version: BEATS_VERSION.to_owned(), kind: BEATS_KIND.to_owned(), leases }
    }
}

/// The Lease of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeatLease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The answer. It has one entry for each Lease of the request, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BeatAnswers {
    /// [`BEATS_VERSION`].
    pub api_version: String,
    /// [`BEATS_KIND`].
    pub kind: String,
    /// The answers.
    pub items: Vec<BeatAnswer>,
}

impl BeatAnswers {
    /// These answers.
    pub fn of(items: Vec<BeatAnswer>) -> Self {
        Self { api_version: BEATS_VERSION.to_owned(), kind: BEATS_KIND.to_owned(), items }
    }
}

/// The answer to the beat of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BeatAnswer {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The code that the same beat would have in a request of its own: 200 if it is accepted.
    pub code: u16,
    /// The ttl of the registration, as [`crate::duration`] writes it. Only with 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The interval of the registration. Only with 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// The reason, as in a `Status` of Kubernetes. Not with 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is wrong, and what to do. Not with 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// After how many seconds to try again, if that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}
