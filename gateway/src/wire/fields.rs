//! Fields of messages that need a look.

use std::time::Duration;

use beatkeeper_core::{
    carriers::{frames::InstanceId, rights::Identity},
    vocabulary::pace::Pace,
};

use crate::wire::messages;

/// The longest name of an object of Kubernetes.
pub(crate) const NAME_MAX: usize = 253;
/// The longest name of a user: a prefix, a namespace and a name.
pub(crate) const USER_MAX: usize = 512;

/// A field of a message has a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum FieldError {
    #[error("a message of the kind {kind} has no {field}")]
    Missing { kind: &'static str, field: &'static str },
    #[error(
        "a message of the kind {kind} has a {field} that is no name: at most {max} bytes, and no control characters"
    )]
    NoName { kind: &'static str, field: &'static str, max: usize },
    #[error(
        "a message of the kind {kind} has a ttl of {ttl} ms and an interval of {interval} ms: the ttl has to be longer"
    )]
    Pace { kind: &'static str, ttl: u64, interval: u64 },
}

fn at_most<'a>(
    kind: &'static str,
    field: &'static str,
    max: usize,
    text: &'a str,
) -> Result<&'a str, FieldError> {
    if text.is_empty() {
        return Err(FieldError::Missing { kind, field });
    }
    if text.len() > max || text.contains(char::is_control) {
        return Err(FieldError::NoName { kind, field, max });
    }
    Ok(text)
}

pub(super) fn name<'a>(
    kind: &'static str,
    field: &'static str,
    text: &'a str,
) -> Result<&'a str, FieldError> {
    at_most(kind, field, NAME_MAX, text)
}

pub(super) fn user<'a>(kind: &'static str, text: &'a str) -> Result<&'a str, FieldError> {
    at_most(kind, "user", USER_MAX, text)
}

/// Whether the other end of a stream would take the name and the Pod of this identity. What it does not take would cost
/// the gateway the stream.
pub fn can_be_sent(identity: &Identity) -> bool {
    let fits = |text: &str| at_most("", "", NAME_MAX, text).is_ok();
    at_most("", "", USER_MAX, &identity.user).is_ok()
        && identity.pod.as_ref().is_none_or(|pod| fits(&pod.name) && fits(&pod.uid))
}

pub(super) fn numbers(ids: &[InstanceId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

pub(super) fn ids(numbers: Vec<u32>) -> impl Iterator<Item = InstanceId> {
    numbers.into_iter().map(InstanceId)
}

/// A pace, which is told to instances: an interval of zero would let them beat without a pause.
pub(super) fn pace(kind: &'static str, pace: &messages::Pace) -> Result<Pace, FieldError> {
    let messages::Pace { ttl, interval } = *pace;
    if interval == 0 || ttl <= interval {
        return Err(FieldError::Pace { kind, ttl, interval });
    }
    Ok(Pace { ttl: Duration::from_millis(ttl), interval: Duration::from_millis(interval) })
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
