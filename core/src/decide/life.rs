//! Whether an instance with a Lease is alive, and the health that it reports.

use std::time::Duration;

use beatkeeper_api::{InstanceState, duration, heartbeat::Health};

use super::{
    candidate::{Candidate, Life},
    verdict::Ruling,
};
use crate::{
    carriers::silence::{Finding, Held},
    decide::facts::{Facts, Liveness},
    liveness::{
        index::Provenance,
        outage_guard::{BrokenPath, OutageArea},
        probe_tracker,
    },
    objects::heartbeat::Origin,
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, held_for},
        placement::Placement,
        reason::Reason,
    },
};

/// How soon to check again while a path is broken.
const RECHECK_MIN: Duration = Duration::from_millis(250);
const RECHECK_MAX: Duration = Duration::from_secs(5);

/// After which time a held instance is looked at again.
fn recheck_after(pace: Pace) -> Duration {
    (pace.slack() / 4).clamp(RECHECK_MIN, RECHECK_MAX)
}

impl Candidate<'_> {
    /// Is it alive? (L1, L2, L5)
    pub(super) fn life(&self, published: bool) -> (Life, Option<Ruling>) {
        let Facts { registration, now, .. } = *self.facts;
        if self.record.token.renewed.is_none() && self.record.carrier.is_none() {
            let ruling = (
                InstanceState::Waiting,
                Reason::NeverBeat,
                format!(
                    "Lease {} has no spec.renewTime: no beat has been written",
                    self.record.lease
                ),
            );
            return (Life::Ended { requeue_at: None }, Some(ruling));
        }
        if self.record.expired_at.is_some() {
            return self.ended();
        }
        let seen = self.record.seen;
        let ttl = self.facts.liveness.ttl.at(self.record, registration.interval);
        let pace = Pace { ttl, interval: registration.interval };
        let evidence = self.facts.liveness.evidence;
        let deadline = match (self.finding, evidence.deadline_by(self.finding, self.record, pace)) {
            (Some(Finding::Held(held)), _) => {
                let by_lease = evidence.deadline(self.record.silence(), pace);
                if now >= by_lease || !self.record.may_beat_by_lease(ttl) {
                    return self.held_by_gateways(held, pace, published);
                }
                by_lease
            }
            (_, Some(deadline)) => deadline,
            (_, None) => now,
        };
        if now >= deadline {
            return self.past(deadline, pace, published);
        }
        // An instance that was published when the store went back may be missing in the slices of the earlier state.
        let published = published || self.record.stays_published();
        if self.record.provenance.awaits_beat() && !published {
            let message = match self.record.provenance {
                Provenance::Restored => {
                    "its Lease was put back with a beat that is older than itself; the next beat \
                     publishes it"
                }
                _ => "its Lease was there when the controller started; the next beat publishes it",
            };
            let ruling = (InstanceState::Waiting, Reason::AwaitingBeat, message.to_owned());
            return (Life::Ended { requeue_at: Some(deadline) }, Some(ruling));
        }
        let overdue_at = seen + registration.overdue_after(ttl);
        let overdue = now >= overdue_at;
        // An earlier leader may have pruned the instance, because it saw other gaps, or because the ttl has become
        // longer since. Or a gap has moved its deadline after it was pruned. No gap, edit (L8) or failover revives an
        // instance.
        let edited =
            seen < self.facts.liveness.term_began && self.facts.liveness.ttl.may_have_passed(seen);
        if (overdue || edited) && !published {
            let message =
                "it is not published and its last beat is late; the next beat publishes it";
            let ruling = (InstanceState::Waiting, Reason::AwaitingBeat, message.to_owned());
            return (Life::Ended { requeue_at: Some(deadline) }, Some(ruling));
        }
        let requeue_at = if overdue { deadline } else { overdue_at.min(deadline) };
        (Life::Alive { overdue, requeue_at }, None)
    }

    /// What follows for an instance that is past its deadline (L2, L3, L6).
    fn past(&self, deadline: MonotonicTime, pace: Pace, published: bool) -> (Life, Option<Ruling>) {
        let Facts { now, liveness: Liveness { evidence, .. }, .. } = *self.facts;
        let read = self.record.silent_at.is_some_and(|silent_at| silent_at >= deadline);
        let probed =
            evidence.probed.is_some_and(|sent| probe_tracker::reaches(sent, deadline, now));
        let needs_probe = self.finding.is_none() || self.record.may_beat_by_lease(pace.ttl);
        let gateways_agree = matches!(self.finding, None | Some(Finding::Silent { .. }));
        if !(read && (probed || !needs_probe) && gateways_agree) {
            return (Life::Doubted { deadline }, self.doubted(published));
        }
        let held_until = evidence.held_until(self.record.silence(), pace);
        match &evidence.broken {
            Some(broken) if published && now < held_until => {
                let requeue_at = (now + recheck_after(pace)).min(held_until);
                (Life::Held { requeue_at }, Some(self.held(broken, pace.ttl)))
            }
            _ => self.ended(),
        }
    }

    /// What follows for an instance that is past its deadline, and that gateways hold (G4, G5). If it is not published,
    /// it stays out.
    fn held_by_gateways(&self, held: Held, pace: Pace, published: bool) -> (Life, Option<Ruling>) {
        let Facts { now, liveness: Liveness { evidence, .. }, .. } = *self.facts;
        // A round ends within a second.
        let is_short = held == Held::RoundIsOpen;
        let requeue_at = now + if is_short { RECHECK_MIN } else { recheck_after(pace) };
        let ruling = evidence.gateways.as_ref().map(|gateways| gateways.held(held, self.record));
        match published || self.record.stays_published() {
            true => (Life::Held { requeue_at }, ruling),
            false => {
                (Life::Ended { requeue_at: Some(requeue_at) }, Some(Self::out_until_it_beats()))
            }
        }
    }

    /// The instance is dead. A Lease that was lost when the store went back is forgotten by the next read of the missing
    /// Leases.
    fn ended(&self) -> (Life, Option<Ruling>) {
        let requeue_at = self.record.is_unshown().then_some(self.facts.now);
        (Life::Ended { requeue_at }, Some(self.expired()))
    }

    fn expired(&self) -> Ruling {
        let Facts { registration, liveness: Liveness { ttl, .. }, .. } = *self.facts;
        let ttl = duration::format(ttl.at(self.record, registration.interval));
        let gateways = self.facts.liveness.evidence.gateways.as_ref();
        let carried = gateways.and_then(|gateways| gateways.gateway_of(self.record));
        let carried = carried.map(|gateway| format!("; {gateway} carried its last one"));
        let told = self.record.content.note.as_ref().map(|note| format!("; it last said: {note}"));
        let (carried, told) = (carried.unwrap_or_default(), told.unwrap_or_default());
        let message = format!("no beat for its ttl of {ttl}{carried}{told}");
        (InstanceState::Expired, Reason::TTLPassed, message)
    }

    /// The ruling for an instance that is past its deadline while almost no beats arrive (L6).
    fn held(&self, broken: &BrokenPath, ttl: Duration) -> Ruling {
        let BrokenPath { place, flow, weighed, window } = broken;
        let window = duration::format(*window);
        let found = match place {
            OutageArea::Namespace(name) => format!(
                "of {} beats due in namespace {name} in the last {window} only {} arrived{}",
                flow.due,
                flow.arrived,
                if *weighed { " (of other registrations ten count at most)" } else { "" },
            ),
            OutageArea::Cluster => format!(
                "of the beats due in {} namespaces in the last {window} hardly any arrived",
                flow.due
            ),
        };
        let message = format!(
            "its ttl has passed, but {found}, so the way of the beats is taken to be broken: look for what \
             keeps instances from writing their Leases; held until {} after its deadline at most",
            // The remaining time is not in the message, because it would cause a write of the status at each check.
            duration::format(held_for(ttl)),
        );
        (InstanceState::Held, Reason::PathBroken, message)
    }

    /// The ruling for an instance that is past its deadline without evidence. If it is published, it stays so; if not,
    /// it stays out.
    fn doubted(&self, published: bool) -> Option<Ruling> {
        let error = self.facts.liveness.unreadable.get(&self.record.lease);
        if !published {
            // A dead instance must not be published again, not even until the read that proves its death. It may have
            // been found at a cold start, or have just been uncordoned.
            let (reason, message) = match error {
                Some(error) => {
                    (Reason::LeaseUnreadable, format!("its Lease cannot be read: {error}"))
                }
                None => return Some(Self::out_until_it_beats()),
            };
            return Some((InstanceState::Waiting, reason, message));
        }
        if let Some(error) = error {
            let message =
                format!("its ttl has passed, but its Lease cannot be read to make sure: {error}");
            return Some((InstanceState::Held, Reason::LeaseUnreadable, message));
        }
        let evidence = self.facts.liveness.evidence;
        let gateways = evidence.gateways.as_ref().filter(|gateways| gateways.unanswered);
        if let (Some(gateways), Some(Finding::NeedsProof { .. })) = (gateways, self.finding) {
            return Some(gateways.unproven(self.record));
        }
        let ttl = self.facts.liveness.ttl.at(self.record, self.facts.registration.interval);
        let why = evidence.unproven.as_ref().filter(|_| self.record.may_beat_by_lease(ttl))?;
        let message = format!(
            "its ttl has passed, but the operator's own probe does not come back, so beats might not \
             either: {why}"
        );
        Some((InstanceState::Held, Reason::PathUnproven, message))
    }

    fn out_until_it_beats() -> Ruling {
        let message = "its ttl has passed without a beat; the next beat publishes it".to_owned();
        (InstanceState::Waiting, Reason::AwaitingBeat, message)
    }

    /// What health do the instance and its Pod report?
    pub(super) fn health(&self, placement: &Placement, overdue: bool) -> Ruling {
        let claim = &self.record.content;
        let note = claim.note.clone().unwrap_or_default();
        let pod = match &claim.origin {
            Origin::Pod { name, .. } => self.facts.cluster.pods.get(name),
            Origin::Outside => None,
        };
        if pod.is_some_and(|pod| pod.deleting) {
            let message = "its Pod is being deleted".to_owned();
            return (InstanceState::Draining, Reason::PodTerminating, message);
        }
        match &claim.health {
            Err(error) => {
                return (InstanceState::NotReady, Reason::HealthUnknown, error.to_string());
            }
            Ok(Health::Draining) => {
                return (InstanceState::Draining, Reason::HealthDraining, note);
            }
            Ok(Health::Failing) => {
                return (InstanceState::NotReady, Reason::HealthFailing, note);
            }
            Ok(Health::Passing) => {}
        }
        if !placement.kubelet_ready {
            let message =
                "its Pod's ContainersReady condition or a readiness gate is not true".to_owned();
            return (InstanceState::NotReady, Reason::PodNotReady, message);
        }
        if overdue {
            let message = "its beat is late; it is pruned when its ttl passes".to_owned();
            return (InstanceState::Ready, Reason::BeatOverdue, message);
        }
        (InstanceState::Ready, Reason::Beating, note)
    }
}
