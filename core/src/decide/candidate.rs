//! An instance with a Lease, and what its silence says of it.

use beatkeeper_api::heartbeat;

use crate::{
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
}

impl<'a> Candidate<'a> {
    pub(super) fn of(facts: &'a Facts<'a>, record: &'a Record) -> Self {
        let instance = heartbeat::instance_of(&record.lease, &facts.registration.key.name);
        Self {
            facts,
            record,
            // No instance can have this name, so names stay unique, as the status needs.
            instance: match instance {
                Some(instance) => InstanceName::end_of(&record.lease, instance.len()),
                None => format!("lease/{}", record.lease).as_str().into(),
            },
            named: instance.is_some(),
        }
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
