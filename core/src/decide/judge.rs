//! The verdict on one instance that has a Lease.
//!
//! Four questions are answered in this order, each by a function that returns a ruling if it decides: Is the Lease
//! well-formed? Where is the instance? Is it alive? What health does it report? [`Candidate::verdict`] then derives
//! everything else from the answers.

use beatkeeper_api::{InstanceState, heartbeat};

use super::{
    candidate::{Candidate, Life},
    verdict::Ruling,
};
use crate::{
    decide::{
        cordons, locate,
        unplaced::Unplaced,
        verdict::{JudgedLease, Suspect, Verdict},
    },
    liveness::{
        index::{Basis, LeaseDecision, NextBeat, Outcome, Presence, Provenance, Record, Removal},
        rhythm::Wanted,
    },
    objects::heartbeat::{LeaseContent, Origin},
    vocabulary::{monotonic_time::MonotonicTime, placement::Placement, reason::Reason},
};

/// What a verdict follows from.
struct Conclusion {
    ruling: Ruling,
    placement: Option<Placement>,
    /// Whether the registration publishes an address of the instance now.
    found: bool,
    /// What its silence says of the instance. `None` if this was not asked, because it is refused or cordoned.
    life: Option<Life>,
}

impl Conclusion {
    /// The conclusion on an instance that is refused or cordoned, whether it is alive or not.
    fn without_life(ruling: Ruling, placement: Option<Placement>) -> Self {
        Self { ruling, placement, found: false, life: None }
    }
}

impl Candidate<'_> {
    /// The verdict; `None` if the instance is gone for good and only its Lease has not been collected yet.
    pub(super) fn judge(self) -> Option<Verdict> {
        if self.is_gone() {
            return None;
        }
        let conclusion = self.conclude();
        Some(self.verdict(conclusion))
    }

    /// Answers the four questions.
    fn conclude(&self) -> Conclusion {
        if let Some(ruling) = self.form() {
            return Conclusion::without_life(ruling, None);
        }
        let placement = match self.placement() {
            Ok(placement) => placement,
            Err(why) => {
                let ruling = (why.state(), why.reason(), why.to_string());
                return Conclusion::without_life(ruling, None);
            }
        };
        if let Some(message) = self.cordon(&placement) {
            let ruling = (InstanceState::Cordoned, Reason::Cordoned, message);
            return Conclusion::without_life(ruling, Some(placement));
        }
        let found = placement.is_at(self.facts.published.addresses);
        let (life, ruling) = self.life(found);
        // An instance that lives or is held has the state that its health gives it. A held instance that is healthy
        // is published as ready. But if it is draining or not able to serve, it keeps that state.
        let ruling = match (&life, ruling) {
            (Life::Ended { .. }, Some(ruling)) => ruling,
            (_, Some(ruling)) if ruling.0 != InstanceState::Held => ruling,
            (_, ruling) => {
                let health = self.health(&placement, life.is_overdue());
                ruling.filter(|_| health.0 == InstanceState::Ready).unwrap_or(health)
            }
        };
        Conclusion { ruling, placement: Some(placement), found, life: Some(life) }
    }

    /// Whether the instance is gone. A Lease that is being deleted deregisters its instance at once. So does a Pod
    /// that has terminated, or that existed and is gone. The garbage collector will then delete the Lease.
    fn is_gone(&self) -> bool {
        let Origin::Pod { name, uid } = &self.record.content.origin else {
            return self.record.content.deleting;
        };
        let pod_is_gone = match self.facts.cluster.pods.get(name) {
            Some(pod) => pod.uid == *uid && pod.terminal,
            None => self.record.placed,
        };
        self.record.content.deleting || pod_is_gone
    }

    /// Is the Lease well-formed? Returns a ruling if it is not.
    fn form(&self) -> Option<Ruling> {
        let lease = &self.record.lease;
        let registration = &self.facts.registration.key.name;
        let rejected = |reason, message| Some((InstanceState::Rejected, reason, message));
        if !self.named {
            return rejected(
                Reason::NameMismatch,
                format!(
                    "Lease {lease} carries the label of registration {registration}, so its name must be \
                     {registration}.<instance>, with at most {} characters for the instance; create it \
                     anew under that name",
                    heartbeat::INSTANCE_NAME_MAX
                ),
            );
        }
        match &self.record.content.holder {
            None => rejected(
                Reason::HolderMissing,
                format!("Lease {lease}: set spec.holderIdentity to {}", self.instance),
            ),
            Some(holder) if **holder != *self.instance => rejected(
                Reason::HolderMismatch,
                format!(
                    "Lease {lease}: spec.holderIdentity is {:?}, but the name says {}; make them agree",
                    holder.chars().take(64).collect::<String>(),
                    self.instance
                ),
            ),
            Some(_) => None,
        }
    }

    /// Is the instance cordoned? Returns the message if it is.
    fn cordon(&self, placement: &Placement) -> Option<String> {
        let LeaseContent { cordoned, origin, .. } = &*self.record.content;
        let pod = match origin {
            Origin::Pod { name, .. } => Some(&**name),
            Origin::Outside => None,
        };
        let covering =
            || cordons::covering(self.facts.instances.cordons, &self.instance, pod, placement);
        cordoned.as_deref().map(cordons::told).or_else(covering)
    }

    /// Where is the instance?
    fn placement(&self) -> Result<Placement, Unplaced> {
        match &self.record.content.origin {
            Origin::Pod { name, uid } => locate::in_pod(self.facts, name, uid),
            Origin::Outside => {
                locate::outside(self.facts, &self.instance, &self.record.content.addresses)
            }
        }
    }

    /// Everything that is decided, derived from the conclusion.
    fn verdict(&self, conclusion: Conclusion) -> Verdict {
        let Conclusion { ruling: (state, reason, message), placement, found, life } = conclusion;
        let Record { lease, token, presence, provenance, seen, content, .. } = self.record;
        let interval = self.facts.registration.interval;
        let awaits = self.facts.liveness.ttl.awaits(self.record, interval);
        let (deadline, suspected) = match life {
            Some(Life::Alive { overdue, requeue_at }) => (overdue.then_some(requeue_at), None),
            Some(Life::Doubted { deadline }) => (None, Some(Some(deadline))),
            _ => (None, None),
        };
        let suspected = suspected.or((*presence == Presence::Missing).then_some(None));
        let suspect = |deadline| Box::new(Suspect { lease: lease.clone(), deadline });
        Verdict {
            instance: self.instance.clone(),
            state,
            reason,
            message,
            last_beat: (*provenance == Provenance::Changed && token.renewed.is_some())
                .then_some(*seen),
            lease: Some(JudgedLease {
                decision: LeaseDecision {
                    lease: lease.clone(),
                    token: token.clone(),
                    carried_at: self.record.carried_at(),
                    outcome: self.outcome(state, life.as_ref(), found),
                    next_beat: self.next_beat(life.as_ref()),
                    wanted: Wanted::at(self.facts.registration.pace(), awaits),
                    placed: placement.is_some(),
                },
                suspect: suspected.map(suspect),
                deadline,
            }),
            placement,
            rival: content.rival.clone(),
            requeue_at: life.and_then(|life| self.requeue_at(&life)),
        }
    }

    /// What becomes of the instance. `found` says whether it is published now.
    fn outcome(&self, state: InstanceState, life: Option<&Life>, found: bool) -> Outcome {
        let removal = match life {
            Some(Life::Ended { .. }) if found => Removal::ForSilence,
            _ => Removal::None,
        };
        let is_expired = match life {
            Some(_) => state == InstanceState::Expired,
            None => self.record.expired_at.is_some(),
        };
        match state.is_published() {
            true if found && life.is_some() => Outcome::Published(Basis::FoundPublished),
            true => Outcome::Published(Basis::Beats),
            false if is_expired => Outcome::Expired(removal),
            false => Outcome::Unpublished(removal),
        }
    }

    /// What a further beat does. It changes nothing while the beats come in time, or if they play no part.
    fn next_beat(&self, life: Option<&Life>) -> NextBeat {
        let presence = self.record.presence;
        let is_no_op = match life {
            None => presence != Presence::Missing,
            Some(Life::Alive { overdue, .. }) => !overdue && presence == Presence::Watched,
            Some(Life::Doubted { .. } | Life::Held { .. } | Life::Ended { .. }) => false,
        };
        if is_no_op { NextBeat::IsNoOp } else { NextBeat::Wakes }
    }

    /// When to look at the instance again, although nothing has changed.
    fn requeue_at(&self, life: &Life) -> Option<MonotonicTime> {
        match *life {
            Life::Alive { requeue_at, .. } | Life::Held { requeue_at } => Some(requeue_at),
            // The Lease is read again at once, or after the pause that the caller keeps after a failed read.
            Life::Doubted { .. } => Some(self.facts.now),
            Life::Ended { requeue_at } => requeue_at,
        }
    }
}
