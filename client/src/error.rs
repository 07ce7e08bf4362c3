//! Why a service did not start, or did not stop properly.

use std::{fmt, time::Duration};

use beatkeeper_api::duration::{self, ParseDurationError};

use crate::{
    failure::Failure,
    gateway::{GATEWAY_VARIABLE, GatewayError, GatewayUrlError},
    names::NameError,
    transport::{ConnectError, NoConfiguration},
};

/// Any error of a hook or a check.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a service could not be built or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that Kubernetes does not accept.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Both a Pod and addresses are given.
    #[error(
        "a Pod's address is known to the API server: leave out the addresses, or give an empty Pod name \
         for an instance outside the cluster"
    )]
    AddressOfPod,
    /// An environment variable with a malformed value.
    #[error("${variable}: {source}")]
    Environment {
        /// The name of the variable.
        variable: &'static str,
        /// What is wrong with its value.
        source: ParseDurationError,
    },
    /// A malformed URL of a gateway.
    #[error("the gateway {url:?}: {source} (${GATEWAY_VARIABLE})")]
    GatewayUrl {
        /// The value that was given.
        url: String,
        /// What is wrong with it.
        source: GatewayUrlError,
    },
    /// The settings of the gateway cannot be used.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// An interval below the minimum.
    #[error("{what} {} is too short: choose 100ms or more", duration::format(*interval))]
    TooShort {
        /// The name of the interval.
        what: &'static str,
        /// The value that was given.
        interval: Duration,
    },
    /// There is neither a kubeconfig nor a ServiceAccount of a Pod.
    #[error(
        "found no way to the API server: set KUBECONFIG, or run in a Pod with a ServiceAccount token: {0}"
    )]
    NoConfiguration(#[from] NoConfiguration),
    /// The configuration cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A hook has failed; the start was undone.
    #[error("{hook}: {source}")]
    Hook {
        /// `before_start` or `after_start`.
        hook: &'static str,
        /// The error that the hook returned.
        source: BoxError,
    },
    /// No beat was accepted in time; the start was undone.
    #[error("no beat was accepted within {}: {}", duration::format(*within), Why(failure.as_ref()))]
    NotRegistered {
        /// The time within which no beat was accepted.
        within: Duration,
        /// Why the last try failed; `None` if no try had a result by then.
        failure: Option<Failure>,
    },
    /// The system provides no thread or no signal handling.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The service ran, and did not stop properly.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// What went wrong at the stop. All steps of the stop were tried nevertheless.
#[derive(Debug, Default, thiserror::Error)]
pub struct StopError {
    /// The hooks that failed: their names and what they returned.
    pub hooks: Vec<(&'static str, BoxError)>,
    /// Why the instance could not be deregistered: it stays until its ttl has passed.
    pub deregister: Option<Box<Failure>>,
}

impl StopError {
    pub(crate) fn nothing_or(self) -> Result<(), Self> {
        if self.hooks.is_empty() && self.deregister.is_none() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for StopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks = self.hooks.iter().map(|(name, error)| format!("{name}: {error}"));
        let stays = |failure: &Failure| {
            format!("not deregistered, so the instance stays until its ttl is over: {failure}")
        };
        let all: Vec<String> = hooks.chain(self.deregister.as_deref().map(stays)).collect();
        f.write_str(&all.join("; "))
    }
}

struct Why<'a>(Option<&'a Failure>);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(failure) => failure.fmt(f),
            None => f.write_str("the API server does not answer"),
        }
    }
}
