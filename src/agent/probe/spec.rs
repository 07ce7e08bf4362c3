//! What a probe checks, how often, and how many results count.
//!
//! A [`Probe`] is read from the kubelet's fields (YAML or JSON), or from a short text, which leaves the times
//! and thresholds at the kubelet's defaults:
//!
//! ```text
//! http://:8080/healthz         https://db.internal:8443/ready?deep=1
//! tcp://:5432                  grpc://:9000/my.package.Service
//! exec:pg_isready --quiet      (split into words as a shell does; no shell runs)
//! ```
//!
//! Differences from the kubelet: `host` defaults to 127.0.0.1. grpc has a `host` too. A port is a number,
//! because there is no container whose ports could have names. 0 is refused where the API server takes it for
//! the default. `terminationGracePeriodSeconds` is refused, because the agent terminates nothing.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::uri::PathAndQuery;

use super::text;

/// The host of a probe that names none.
pub const DEFAULT_HOST: &str = "127.0.0.1";

/// A probe as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is checked.
    pub check: Check,
    /// When to check, and how many results count.
    pub timing: Timing,
}

/// Times and thresholds. In YAML the times are whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// `initialDelaySeconds`, from 0: the time before the first probe.
    pub initial_delay: Duration,
    /// `timeoutSeconds`, from 1: how long one probe may take.
    pub timeout: Duration,
    /// `periodSeconds`, from 1: the time from the start of one probe to the start of the next. In the first
    /// minute, until the first success, it is one second.
    pub period: Duration,
    /// `successThreshold`, from 1: this many successes in a row make the target healthy.
    pub success_threshold: u32,
    /// `failureThreshold`, from 1: this many failures in a row make the target unhealthy.
    pub failure_threshold: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }
}

/// What is checked. It is read from the short text, and displayed as that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `httpGet`: a GET, answered with 2xx or 3xx.
    Http(Http),
    /// `tcpSocket`: a connection is accepted.
    Tcp(Target),
    /// `grpc`: `grpc.health.v1.Health/Check` answers SERVING; without TLS.
    Grpc(Grpc),
    /// `exec`: a command ends with 0.
    Exec(Exec),
}

/// The host and port that are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// From 1.
    pub port: u16,
}

/// With TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// With TLS. Certificates are not verified, as by the kubelet.
    Https,
}

/// The URL of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `scheme`
    pub scheme: Scheme,
    /// `host` and `port`
    pub target: Target,
    /// `path`, with the query.
    pub path: PathAndQuery,
}

/// `httpGet`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The page to get.
    pub url: Url,
    /// `httpHeaders`. `Host`, `User-Agent` and `Accept` replace ours.
    pub headers: HeaderMap,
}

/// `grpc`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// `host` and `port`
    pub target: Target,
    /// `service`; empty for the server as a whole.
    pub service: String,
}

/// `exec`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The first word of `command`: a path, or a name that is looked for in $PATH.
    pub program: String,
    /// The others.
    pub args: Vec<String>,
}

impl From<Check> for Probe {
    fn from(check: Check) -> Self {
        Self { check, timing: Timing::default() }
    }
}

impl std::str::FromStr for Probe {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        text.parse().map(Check::into)
    }
}

impl Check {
    /// The name of the check in messages: kind and target. It contains neither the query of a URL nor the
    /// arguments of a command: these may hold secrets, and messages are public.
    pub fn subject(&self) -> String {
        match self {
            Self::Http(Http { url: Url { scheme, target, path }, .. }) => {
                format!("{scheme} probe of {target}{}", path.path())
            }
            Self::Tcp(target) => format!("tcp probe of {target}"),
            Self::Grpc(Grpc { target, service }) if service.is_empty() => {
                format!("grpc probe of {target}")
            }
            Self::Grpc(Grpc { target, service }) => format!("grpc probe of {target}/{service}"),
            Self::Exec(exec) => format!("exec probe {}", text::line(&exec.program)),
        }
    }
}

impl Scheme {
    /// The default port of a URL.
    pub(super) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.target, self.path)
    }
}

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub(super) String);

/// A field that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Refused {
    /// Its path, such as `probe.httpGet.port`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}
