//! The decision about an instance and its reason. Events, conditions, status and metrics are all rendered from these
//! values, so that each decision can be read (P7).

use std::sync::Arc;

use beatkeeper_api::InstanceState;

use crate::{
    liveness::index::LeaseDecision,
    vocabulary::{
        address::AddressSet, instance::InstanceName, monotonic_time::MonotonicTime,
        placement::Placement, reason::Reason,
    },
};

/// A ruling on an instance: state, reason and message.
pub(super) type Ruling = (InstanceState, Reason, String);

/// The decision about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the instance, unique in its registration. If the Lease does not tell the name, it is `lease/` and the
    /// name of the Lease.
    pub instance: InstanceName,
    /// Its state.
    pub state: InstanceState,
    /// The reason for the state.
    pub reason: Reason,
    /// The reason in words, and what the user can do about it, if anything.
    pub message: String,
    /// Where the instance can be reached, as far as that is known.
    pub placement: Option<Placement>,
    /// When the last beat was seen, by the monotonic clock; `None` if there was none.
    pub last_beat: Option<MonotonicTime>,
    /// Its Lease, if it has one.
    pub lease: Option<JudgedLease>,
    /// The processes that claim its name, if there are several.
    pub rival: Option<String>,
    /// When the passing of time alone may change this verdict.
    pub requeue_at: Option<MonotonicTime>,
}

/// The Lease behind a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedLease {
    /// The decision as the index records it.
    pub decision: LeaseDecision,
    /// The evidence that is missing before the verdict is final. It is boxed because few instances are ever in doubt.
    pub suspect: Option<Box<Suspect>>,
    /// When the ttl passes. Set only while the beat is late.
    pub deadline: Option<MonotonicTime>,
}

/// A Lease that needs a live read before its instance is pruned (L2, L4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Name of the Lease.
    pub lease: Arc<str>,
    /// The live read must be sent after this moment. `None` if the doubt is not about the silence, but about whether
    /// the Lease exists.
    pub deadline: Option<MonotonicTime>,
}

impl Suspect {
    /// The suspects. Their Leases must be read before these verdicts are final.
    pub fn of(verdicts: &[Verdict]) -> Vec<Self> {
        let suspect = |verdict: &Verdict| verdict.lease.as_ref()?.suspect.as_deref().cloned();
        verdicts.iter().filter_map(suspect).collect()
    }

    /// The instances that are past their deadline, or will be if no beat arrives until then.
    pub fn expected_expiries(verdicts: &[Verdict]) -> Vec<Self> {
        let expected_expiries = |verdict: &Verdict| {
            let JudgedLease { decision, suspect, deadline } = verdict.lease.as_ref()?;
            let deadline = suspect.as_ref().map_or(*deadline, |suspect| suspect.deadline)?;
            Some(Self { lease: decision.lease.clone(), deadline: Some(deadline) })
        };
        verdicts.iter().filter_map(expected_expiries).collect()
    }
}

impl Verdict {
    /// A verdict about an instance without a Lease.
    pub fn without_lease(
        instance: &str,
        state: InstanceState,
        reason: Reason,
        message: String,
        placement: Option<Placement>,
    ) -> Self {
        Self {
            instance: instance.into(),
            state,
            reason,
            message,
            placement,
            last_beat: None,
            lease: None,
            rival: None,
            requeue_at: None,
        }
    }

    /// The decision as the index records it, if there is a Lease.
    pub fn lease_decision(&self) -> Option<&LeaseDecision> {
        self.lease.as_ref().map(|lease| &lease.decision)
    }

    /// Whether one of its addresses is in `addresses`.
    pub fn is_at(&self, addresses: &AddressSet) -> bool {
        self.placement.as_ref().is_some_and(|placement| placement.is_at(addresses))
    }

    /// Whether a person should look at this state.
    pub fn is_troubled(&self) -> bool {
        if self.rival.is_some() {
            return true;
        }
        match self.state {
            InstanceState::Ready => self.reason == Reason::BeatOverdue,
            InstanceState::Draining => false,
            InstanceState::Waiting
            | InstanceState::NotReady
            | InstanceState::Cordoned
            | InstanceState::Expired
            | InstanceState::Held
            | InstanceState::Rejected => true,
        }
    }

    /// When the instance is pruned unless it beats before. Set only while its beat is late.
    pub fn deadline(&self) -> Option<MonotonicTime> {
        self.lease.as_ref().and_then(|lease| lease.deadline)
    }

    /// Whether the instance is in the Service's slices.
    pub fn is_published(&self) -> bool {
        self.state.is_published()
    }
}
