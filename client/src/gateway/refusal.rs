//! Why a beat was not carried.

use std::time::Duration;

use beatkeeper_api::{
    beats::BeatAnswer,
    text::{plain_cut, plain_error_chain},
};
use http::StatusCode;
use tower::BoxError;

use crate::{failure::Cause, timeout::TimedOut};

/// The maximum length of a message that is shown, in characters.
const SAID_MAX: usize = 500;

/// Why a gateway has not accepted a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub cause: Cause,
    /// How long the gateway asks to wait.
    pub retry_after: Option<Duration>,
    /// The words of the gateway, or of the part that found the failure.
    pub details: String,
}

impl Refusal {
    pub(super) fn found(cause: Cause, details: impl Into<String>) -> Self {
        Self { cause, retry_after: None, details: details.into() }
    }

    pub(super) fn timeout(error: TimedOut) -> Self {
        Self::found(Cause::Timeout, error.to_string())
    }

    pub(super) fn no_connection(error: &BoxError) -> Self {
        Self::found(Cause::NoConnection, plain_error_chain(error.as_ref()))
    }

    /// An answer to the beat of one instance, which is not 200.
    pub(super) fn to_beat(answer: &BeatAnswer) -> Self {
        let retry_after = answer.retry_after_seconds.map(Duration::from_secs);
        Self::of(answer.code, answer.message.as_deref(), retry_after)
    }

    /// An answer to a whole request, which is not 200.
    pub(super) fn of(code: u16, message: Option<&str>, retry_after: Option<Duration>) -> Self {
        let cause = match code {
            401 => Cause::Unauthenticated,
            404 => Cause::Missing,
            408 => Cause::Timeout,
            409 => Cause::Conflict,
            422 => Cause::Overtaken,
            429 => Cause::Busy,
            400..=499 => Cause::Refused,
            500..=599 => Cause::ServerError,
            _ => Cause::Other,
        };
        let message = message.map(str::trim).filter(|message| !message.is_empty());
        let details = message
            .map_or_else(|| format!("HTTP status {code}"), |message| plain_cut(message, SAID_MAX));
        Self { cause, retry_after, details }
    }

    /// Whether the gateway refuses this instance or this process. Other instances may beat there, so waiting does not
    /// help: the Lease has to be read. Otherwise no gateway could answer yet.
    pub fn is_final(&self) -> bool {
        matches!(
            self.cause,
            Cause::Missing
                | Cause::Conflict
                | Cause::Overtaken
                | Cause::Refused
                | Cause::Unauthenticated
        )
    }
}

/// Whether another gateway may answer better.
pub(super) fn is_elsewhere_better(code: StatusCode) -> bool {
    code.is_server_error() || code == StatusCode::REQUEST_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_refuses_is_told_from_one_that_cannot_answer_yet() {
        for (code, is_final) in [
            (400, true),
            (401, true),
            (403, true),
            (404, true),
            (408, false),
            (409, true),
            (415, true),
            (422, true),
            (429, false),
            (500, false),
            (503, false),
            (302, false),
        ] {
            assert_eq!(Refusal::of(code, None, None).is_final(), is_final, "{code}");
        }
        let away = Refusal::no_connection(&"refused".into());
        assert!(!away.is_final());
        assert!(!Refusal::timeout(TimedOut(Duration::from_secs(1))).is_final());
    }

    #[test]
    fn the_words_of_a_gateway_are_fit_to_be_printed() {
        let said = format!("no\n\u{1b}[2J{}", "x".repeat(10_000));
        let refusal = Refusal::of(503, Some(&said), None);
        assert!(refusal.details.starts_with("no\\n\\u{1b}[2Jxxx"), "{}", refusal.details);
        assert!(refusal.details.chars().count() <= SAID_MAX);
        assert_eq!(Refusal::of(503, Some(" "), None).details, "HTTP status 503");
    }
}
