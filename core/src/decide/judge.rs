//! The verdict on one instance that has a Lease.
//!
//! Four questions are answered in this order, each by a function that returns a ruling if it decides: Is the Lease
//! well-formed? Where is the instance? Is it alive? What health does it report?

use std::time::Duration;

use beatkeeper_api::{
    InstanceState, duration,
    heartbeat::{self, Health},
};

use crate::{
    decide::{
        cordons,
        evidence::held_for,
        facts::Facts,
        locate,
        verdict::{JudgedLease, Suspect, Verdict},
    },
    liveness::{
        index::{LeaseDecision, Presence, Provenance, Record},
        outage_guard::{BrokenPath, OutageArea},
        probe_tracker,
        rhythm::Wanted,
    },
    objects::heartbeat::{LeaseContent, Origin},
    vocabulary::{
        instance::InstanceName, monotonic_time::MonotonicTime, pace::Pace, placement::Placement,
        reason::Reason,
    },
};

/// A ruling: state, reason and message.
type Ruling = (InstanceState, Reason, String);

/// Whether an instance is alive, and when to check again.
enum Life {
    Alive { overdue: bool, requeue_at: MonotonicTime },
    Doubted { deadline: MonotonicTime, ruling: Option<Ruling> },
    Held(Ruling, MonotonicTime),
    Not(Ruling, Option<MonotonicTime>),
}

/// How soon to check again while a path is broken.
const RECHECK_MIN: Duration = Duration::from_millis(250);
const RECHECK_MAX: Duration = Duration::from_secs(5);

/// An instance with a Lease for which a verdict is being made.
pub(crate) struct Candidate<'a> {
    facts: &'a Facts<'a>,
    record: &'a Record,
    instance: InstanceName,
    named: bool,
}

impl<'a> Candidate<'a> {
    pub(crate) fn of(facts: &'a Facts<'a>, record: &'a Record) -> Self {
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

    /// The verdict; `None` if the instance is gone for good and only its Lease has not been collected yet.
    pub(crate) fn judge(self) -> Option<Verdict> {
        if self.is_gone() {
            return None;
        }
        if let Some(ruling) = self.form() {
            return Some(self.verdict(ruling, None));
        }
        let placement = match self.placement() {
            Ok(placement) => placement,
            Err((reason, message)) => {
                let state = match reason {
                    Reason::NoAddressYet => InstanceState::Waiting,
                    _ => InstanceState::Rejected,
                };
                return Some(self.verdict((state, reason, message), None));
            }
        };
        if let Some(message) = self.cordon(&placement) {
            let ruling = (InstanceState::Cordoned, Reason::Cordoned, message);
            return Some(self.verdict(ruling, Some(placement)));
        }
        let inherited_published = placement.is_at(self.facts.published);
        Some(match self.life(inherited_published) {
            Life::Alive { overdue, requeue_at } => {
                let ruling = self.word(&placement, overdue);
                let mut verdict = self.verdict(ruling, Some(placement));
                verdict.requeue_at = Some(requeue_at);
                if let Some(lease) = &mut verdict.lease {
                    lease.decision.beat_is_noop =
                        !overdue && self.record.presence == Presence::Watched;
                    lease.deadline = overdue.then_some(requeue_at);
                    lease.decision.granted = inherited_published;
                }
                verdict
            }
            Life::Doubted { deadline, ruling } => {
                let word = self.word(&placement, true);
                // A held instance is published as ready. But if it is draining or not able to serve, it keeps that
                // state, and also stays published.
                let ruling = match ruling {
                    Some(doubt)
                        if doubt.0 != InstanceState::Held || word.0 == InstanceState::Ready =>
                    {
                        doubt
                    }
                    _ => word,
                };
                let mut verdict = self.verdict(ruling, Some(placement));
                if let Some(lease) = &mut verdict.lease {
                    lease.decision.beat_is_noop = false;
                    lease.decision.granted = inherited_published;
                    lease.suspect = Some(self.suspect(Some(deadline)));
                }
                // The Lease is read again at once, or after the pause that the caller keeps after a failed read.
                verdict.requeue_at = Some(self.facts.now);
                verdict
            }
            Life::Held(ruling, requeue_at) => {
                let word = self.word(&placement, true);
                let ruling = if word.0 == InstanceState::Ready { ruling } else { word };
                let mut verdict = self.verdict(ruling, Some(placement));
                verdict.requeue_at = Some(requeue_at);
                if let Some(lease) = &mut verdict.lease {
                    lease.decision.beat_is_noop = false;
                    lease.decision.granted = inherited_published;
                }
                verdict
            }
            Life::Not(ruling, requeue_at) => {
                let mut verdict = self.verdict(ruling, Some(placement));
                verdict.requeue_at = requeue_at;
                if let Some(lease) = &mut verdict.lease {
                    lease.decision.beat_is_noop = false;
                    lease.decision.expired = verdict.state == InstanceState::Expired;
                    lease.decision.takes_out = inherited_published;
                }
                verdict
            }
        })
    }

    /// Whether the instance is gone. A Lease that is being deleted deregisters its instance at once. So does a Pod
    /// that has terminated, or that existed and is gone. The garbage collector will then delete the Lease.
    fn is_gone(&self) -> bool {
        let Origin::Pod { name, uid } = &self.record.content.origin else {
            return self.record.content.deleting;
        };
        let pod_is_gone = match self.facts.pods.get(name) {
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
        let covering = || cordons::covering(self.facts.cordons, &self.instance, pod, placement);
        cordoned.as_deref().map(cordons::told).or_else(covering)
    }

    /// Where is the instance?
    fn placement(&self) -> Result<Placement, (Reason, String)> {
        match &self.record.content.origin {
            Origin::Pod { name, uid } => locate::in_pod(self.facts, name, uid),
            Origin::Outside => {
                locate::outside(self.facts, &self.instance, &self.record.content.addresses)
            }
        }
    }

    /// Is it alive? (L1, L2, L5)
    fn life(&self, published: bool) -> Life {
        let Facts { registration, now, .. } = *self.facts;
        if self.record.token.renewed.is_none() {
            let ruling = (
                InstanceState::Waiting,
                Reason::NeverBeat,
                format!(
                    "Lease {} has no spec.renewTime: no beat has been written",
                    self.record.lease
                ),
            );
            return Life::Not(ruling, None);
        }
        if self.record.expired_at.is_some() {
            return Life::Not(self.expired(), self.read_again());
        }
        let seen = self.record.seen;
        let ttl = self.facts.ttl.at(self.record, registration.interval);
        let pace = Pace { ttl, interval: registration.interval };
        let evidence = self.facts.evidence;
        let silence = self.record.silence();
        let deadline = evidence.deadline(silence, pace);
        if now >= deadline {
            let read = self.record.silent_at.is_some_and(|silent_at| silent_at >= deadline);
            let probed =
                evidence.probed.is_some_and(|sent| probe_tracker::reaches(sent, deadline, now));
            if !(read && probed) {
                return Life::Doubted { deadline, ruling: self.doubted(published) };
            }
            let held_until = evidence.held_until(silence, pace);
            return match &evidence.broken {
                Some(broken) if published && now < held_until => {
                    let recheck = (pace.slack() / 4).clamp(RECHECK_MIN, RECHECK_MAX);
                    Life::Held(self.held(broken, ttl), (now + recheck).min(held_until))
                }
                _ => Life::Not(self.expired(), self.read_again()),
            };
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
            return Life::Not(ruling, Some(deadline));
        }
        let overdue_at = seen + registration.overdue_after(ttl);
        let overdue = now >= overdue_at;
        // An earlier leader may have pruned the instance, because it saw other gaps, or because the ttl has become
        // longer since. Or a gap has moved its deadline after it was pruned. No gap, edit (L8) or failover revives an
        // instance.
        let edited = seen < self.facts.term_began && self.facts.ttl.may_have_passed(seen);
        if (overdue || edited) && !published {
            let message =
                "it is not published and its last beat is late; the next beat publishes it";
            let ruling = (InstanceState::Waiting, Reason::AwaitingBeat, message.to_owned());
            return Life::Not(ruling, Some(deadline));
        }
        Life::Alive {
            overdue,
            requeue_at: if overdue { deadline } else { overdue_at.min(deadline) },
        }
    }

    /// A Lease that was lost when the store went back is forgotten by the next read of the missing Leases.
    fn read_again(&self) -> Option<MonotonicTime> {
        self.record.is_unshown().then_some(self.facts.now)
    }

    fn expired(&self) -> Ruling {
        let Facts { registration, ttl, .. } = *self.facts;
        let ttl = duration::format(ttl.at(self.record, registration.interval));
        let told = self.record.content.note.as_ref().map(|note| format!("; it last said: {note}"));
        let message = format!("no beat for its ttl of {ttl}{}", told.unwrap_or_default());
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
        let error = self.facts.unreadable.get(&self.record.lease);
        if !published {
            // A dead instance must not be published again, not even until the read that proves its death. It may have
            // been found at a cold start, or have just been uncordoned.
            let (reason, message) = match error {
                Some(error) => {
                    (Reason::LeaseUnreadable, format!("its Lease cannot be read: {error}"))
                }
                None => (
                    Reason::AwaitingBeat,
                    "its ttl has passed without a beat; the next beat publishes it".to_owned(),
                ),
            };
            return Some((InstanceState::Waiting, reason, message));
        }
        if let Some(error) = error {
            let message =
                format!("its ttl has passed, but its Lease cannot be read to make sure: {error}");
            return Some((InstanceState::Held, Reason::LeaseUnreadable, message));
        }
        let why = self.facts.evidence.unproven.as_ref()?;
        let message = format!(
            "its ttl has passed, but the operator's own probe does not come back, so beats might not \
             either: {why}"
        );
        Some((InstanceState::Held, Reason::PathUnproven, message))
    }

    /// What health do the instance and its Pod report?
    fn word(&self, placement: &Placement, overdue: bool) -> Ruling {
        let claim = &self.record.content;
        let note = claim.note.clone().unwrap_or_default();
        let pod = match &claim.origin {
            Origin::Pod { name, .. } => self.facts.pods.get(name),
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

    fn suspect(&self, deadline: Option<MonotonicTime>) -> Box<Suspect> {
        Box::new(Suspect { lease: self.record.lease.clone(), deadline })
    }

    /// A verdict with the values for most instances: no beat and no passing of time changes it.
    fn verdict(&self, (state, reason, message): Ruling, placement: Option<Placement>) -> Verdict {
        let missing = self.record.presence == Presence::Missing;
        let placed = placement.is_some();
        let published = state.is_published();
        let Facts { registration, ttl, .. } = *self.facts;
        let awaits = ttl.awaits(self.record, registration.interval);
        Verdict {
            instance: self.instance.clone(),
            state,
            reason,
            message,
            placement,
            last_beat: (self.record.provenance == Provenance::Changed
                && self.record.token.renewed.is_some())
            .then_some(self.record.seen),
            lease: Some(JudgedLease {
                decision: LeaseDecision {
                    lease: self.record.lease.clone(),
                    token: self.record.token.clone(),
                    beat_is_noop: !missing,
                    expired: self.record.expired_at.is_some(),
                    granted: false,
                    takes_out: false,
                    protected: false,
                    wanted: Wanted::at(registration.pace(), awaits),
                    placed,
                    published,
                },
                suspect: missing.then(|| self.suspect(None)),
                deadline: None,
            }),
            rival: self.record.content.rival.clone(),
            requeue_at: None,
        }
    }
}
