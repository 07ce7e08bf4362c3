//! Tests of leader election.

use std::time::Duration;

use crate::{
    replica::leader::{Candidate, Draft, Durations, LeaderLease, Move},
    vocabulary::monotonic_time::MonotonicTime,
};

mod alone;
mod numbers;
mod rivals;

/// Milliseconds after the start of the clock.
fn at(millis: u64) -> MonotonicTime {
    MonotonicTime::from_millis(millis)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lease 5 s, renew deadline 3 s, retry period 500 ms.
fn durations() -> Durations {
    Durations::new(millis(5000), millis(3000), millis(500)).expect("valid")
}

fn candidate(identity: &str) -> Candidate {
    Candidate::new(identity.to_owned(), durations())
}

fn lease(version: u64, holder: &str) -> LeaderLease {
    LeaderLease {
        version: version.to_string(),
        holder: holder.to_owned(),
        duration: millis(5000),
        transitions: 2,
    }
}

/// The Lease that the API server makes of a draft.
fn written(draft: &Draft, version: u64) -> LeaderLease {
    LeaderLease {
        version: version.to_string(),
        holder: draft.holder.clone(),
        duration: Duration::from_secs(draft.seconds.unsigned_abs().into()),
        transitions: draft.transitions,
    }
}
