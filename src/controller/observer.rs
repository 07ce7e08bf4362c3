//! The observer of a process. The simulation checks by it what the process decides, and leaves out single rules to show
//! that its checks notice it. In production nothing observes.

use std::sync::{Arc, Mutex};

use beatkeeper_core::{
    decide::{
        evidence::Evidence,
        verdict::{Suspect, Verdict},
    },
    liveness::{
        index::{Index, Record},
        ttl::TtlHistory,
    },
    objects::registration::Registration,
    plan::{kept::ChangedPlan, write::Plan},
    vocabulary::{address::AddressSet, monotonic_time::MonotonicTime},
};

/// A decision that stands.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// What was known of its Leases.
    pub records: &'a [Record],
    /// The decision about each instance.
    pub verdicts: &'a [Verdict],
    /// When it was taken.
    pub at: MonotonicTime,
}

/// What a decision is about to be made of.
pub struct Undecided<'a, 'm> {
    /// The registration.
    pub registration: &'a Registration,
    /// What is known of its Leases.
    pub records: &'m mut [Record],
    /// The evidence.
    pub evidence: &'m mut Evidence,
    /// The ttls that it has had.
    pub ttl: &'a TtlHistory,
    /// The addresses that the slices show.
    pub published: &'a AddressSet,
    /// The present.
    pub now: MonotonicTime,
}

/// From so many instances on a decision is kept: one about fewer costs less than a millisecond in any case.
const KEPT_FROM: usize = 500;

/// Two decisions of one moment: one of what has changed, and one about all instances.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The verdicts of the kept decision.
    pub kept: &'a [Verdict],
    /// The evidence of the kept decision.
    pub evidence: &'a Evidence,
    /// When time alone may change a verdict that stands.
    pub late_at: Option<MonotonicTime>,
    /// The verdicts about all instances.
    pub all: &'a [Verdict],
    /// Their evidence.
    pub evidence_of_all: &'a Evidence,
}

/// Two plans of one moment: one of what has changed, and one for everything.
#[derive(Debug, Clone, Copy)]
pub struct ComparedPlans<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The plan of what has changed.
    pub changed: &'a ChangedPlan,
    /// The plan for everything.
    pub all: &'a Plan,
}

/// Sees what a process does. No method does anything unless a simulation overrides it.
pub trait Observer: Send + Sync {
    /// The process keeps what it knows of the Leases here.
    fn keeps(&self, _index: &Arc<Mutex<Index>>) {}
    /// A term begins or ends.
    fn leads(&self, _leads: bool) {}
    /// These Leases are to be read live before a decision.
    fn suspects(&self, _suspects: &mut Vec<Suspect>) {}
    /// A decision is about to be made.
    fn decides(&self, _inputs: &mut Undecided<'_, '_>) {}
    /// From how many instances on a decision about a registration is kept. It saves little for fewer.
    fn keeps_from(&self) -> usize {
        KEPT_FROM
    }
    /// Whether each decision that was made of a kept one is compared with a decision about all instances, and each plan
    /// that was made of a kept one with a plan for everything.
    fn compares(&self) -> bool {
        false
    }
    /// Both decisions of the same moment.
    fn compared(&self, _kept: &Compared<'_>) {}
    /// Both plans of the same moment.
    fn compared_plans(&self, _plans: &ComparedPlans<'_>) {}
    /// A decision stands.
    fn decided(&self, _decided: &Decided<'_>) {}
    /// Whether the process notices that the store went back to an earlier state.
    fn notices_rollbacks(&self) -> bool {
        true
    }
}

/// The observer in production, which does nothing.
pub struct Unobserved;

impl Observer for Unobserved {}
