//! What gateways say about the instances of a registration, for a decision.

use std::time::Duration;

use beatkeeper_core::{
    decide::gateways::Findings,
    liveness::index::Record,
    vocabulary::{monotonic_time::MonotonicTime, pace::Pace},
};

use super::state::CarrierState;

/// The findings on these records, of which each has its own ttl.
pub(crate) fn of(
    state: &CarrierState,
    records: &[Record],
    interval: Duration,
    ttl: impl Fn(&Record) -> Duration,
    now: MonotonicTime,
) -> Findings {
    let mut findings = Findings { of: Vec::with_capacity(records.len()), ..Findings::default() };
    for record in records {
        let pace = Pace { ttl: ttl(record), interval };
        findings.of.push(state.finding(record, pace, now));
        if let Some(carrier) = record.carrier {
            let name = || state.name_of(state.set.pod_of(carrier));
            findings.names.entry(carrier).or_insert_with(name);
        }
    }
    findings
}
