//! An instance with a Lease, and what its silence says of it.

use std::sync::Arc;

use beatkeeper_api::heartbeat;

use crate::{
    carriers::silence::Finding,
    decide::facts::Facts,
    liveness::index::Record,
    vocabulary::{instance::InstanceName, monotonic_time::MonotonicTime},
};

/// An instance with a Lease for which a verdict is being made.
pub(super) struct Candidate<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) record: &'a Record,
    pub(super) instance: InstanceName,
    pub(super) named: bool,
    /// What gateways say of its silence; `None` if there are none.
    pub(super) finding: Option<Finding>,
}

impl<'a> Candidate<'a> {
    /// `place` is that of the record among all records of the facts.
    pub(super) fn of(facts: &'a Facts<'a>, place: usize, record: &'a Record) -> Self {
        let (instance, named) = name_of(&record.lease, &facts.registration.key.name);
        Self {
            facts,
            record,
            instance,
            named,
            finding: facts
                .liveness
                .evidence
                .gateways
                .as_ref()
                .and_then(|gateways| gateways.of.get(place).copied()),
        }
    }
}

/// The name of the instance with a Lease, and whether the name of the Lease tells it.
pub(super) fn name_of(lease: &Arc<str>, registration: &str) -> (InstanceName, bool) {
    match heartbeat::instance_of(lease, registration) {
        Some(instance) => (InstanceName::end_of(lease, instance.len()), true),
        // No instance can have this name, so names stay unique, as the status needs.
        None => (format!("lease/{lease}").as_str().into(), false),
    }
}

/// What its silence says of an instance, and when to look again.
pub(super) enum Life {
    /// It beats, or there is still time for its next beat.
    Alive { overdue: bool, requeue_at: MonotonicTime },
    /// It is past its deadline, and evidence of its death is missing.
    Doubted { deadline: MonotonicTime },
    /// It is past its deadline, and the path of the beats is broken (L6).
    Held { requeue_at: MonotonicTime },
    /// It is dead, or may be published only after its next beat.
    Ended { requeue_at: Option<MonotonicTime> },
}

impl Life {
    /// Whether the last beat is late.
    pub(super) fn is_overdue(&self) -> bool {
        !matches!(self, Self::Alive { overdue: false, .. })
    }
}
