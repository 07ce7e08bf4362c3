//! What comes of one probe.

use super::failure::ProbeFailure;

/// The outcome of one probe: a success, perhaps with a warning for a person, or a failure with the reason.
pub type Outcome = Result<Option<String>, ProbeFailure>;

/// The user agent that servers see in their logs.
pub(super) const USER_AGENT: &str = concat!("beatkeeper-agent/", env!("CARGO_PKG_VERSION"));
