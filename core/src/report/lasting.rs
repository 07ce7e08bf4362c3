//! What a report keeps of the one before it.

use jiff::Timestamp;

use crate::vocabulary::{reason::ConditionReason, server_message};

/// The message of a failure that continues, as it was first reported. Each retry may bring other times and ids, which
/// are not worth a write.
pub(super) fn steady(reason: &str, before: &str, now: &str) -> String {
    let lasts = [ConditionReason::WriteFailed, ConditionReason::PublishFailed]
        .map(ConditionReason::as_str)
        .contains(&reason);
    if lasts && server_message::agree(before, now) { before.to_owned() } else { now.to_owned() }
}

/// A time as a status has it.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
