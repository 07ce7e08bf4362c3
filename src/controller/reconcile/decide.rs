//! The decide step around the core. It passes what is known to the core, and notes the outcome in the index.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::InstanceState;

use super::{subject::Subject, verify::Verified};
use crate::controller::{
    backoff,
    clock::Clock,
    cluster::Cluster,
    liveness::Liveness,
    metrics::process::Metrics,
    observer::Observer,
    probe::proofs::Proofs,
    queue::WorkQueue,
    states::{Pruning, States},
};
use beatkeeper_core::{
    decide::{
        evidence::Evidence,
        ordered,
        verdict::{Suspect, Verdict},
    },
    inputs::Inputs,
    liveness::{index::Record, ttl::TtlHistory},
    objects::registration::Registration,
    vocabulary::{address::OutsideRanges, monotonic_time::MonotonicTime},
};

/// A registration is reconciled after this time even if nothing has woken it.
const RESYNC: Duration = Duration::from_secs(600);

/// What was found about the instances of a registration.
#[derive(Default)]
pub(crate) struct Judgement {
    /// Ordered by the names of the instances.
    pub(super) verdicts: Arc<Vec<Verdict>>,
    pub(super) suspects: Vec<Suspect>,
    /// When the next beat is late of an instance with a verdict that says nothing of it.
    pub(super) late_at: Option<MonotonicTime>,
}

/// The decision before its suspects are verified.
pub(crate) struct Proposal {
    /// Empty if the suspects were known beforehand.
    judgement: Judgement,
    pub(crate) suspects: Vec<Suspect>,
}

/// The result of the decide step.
pub(crate) struct Decision {
    pub(crate) verdicts: Arc<Vec<Verdict>>,
    /// When the next beat is late of an instance with a verdict that says nothing of it.
    late_at: Option<MonotonicTime>,
    verified: Verified,
    /// How often in a row a live read or a proof was missing.
    failed_reads: u32,
}

impl Decision {
    /// The time until time alone may change the decision.
    pub(crate) fn pause(&self, now: MonotonicTime) -> Duration {
        let Verified { unreadable, unproven, unanswered, .. } = &self.verified;
        let proven = unproven.is_none() && !unanswered;
        let sure = |verdict: &&Verdict| {
            let suspect = verdict.lease.as_ref().and_then(|lease| lease.suspect.as_ref());
            suspect.is_none_or(|suspect| {
                !unreadable.contains_key(&suspect.lease) && (proven || suspect.deadline.is_none())
            })
        };
        let told = self.verdicts.iter().filter(sure).filter_map(|verdict| verdict.requeue_at);
        let next = told.chain(self.late_at).min();
        let pause = next.map_or(RESYNC, |next| next.since(now)).min(RESYNC);
        if self.verified.is_complete() {
            pause
        } else {
            pause.min(backoff::after(self.failed_reads))
        }
    }
}

/// Whether a decision is kept for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It is, and it is made of the kept one, if nothing speaks against it.
    Kept,
    /// It is about all instances, and the next one is so, too.
    InFull,
}

/// Decides about the instances of registrations.
pub(crate) struct Decider {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) states: Arc<States>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ranges: OutsideRanges,
}

impl Decider {
    /// Decides, except about suspects. Suspects that are known beforehand are returned at once. Otherwise the
    /// decision shows them. It rests on the same evidence that has shown no suspects.
    pub(crate) fn propose(&self, subject: &Subject, inputs: &Inputs) -> Proposal {
        let _span = subject.trace.step("decide");
        let evidence = self.evidence(&subject.registration);
        let suspects = self.suspects_known_before(subject, &evidence);
        if !suspects.is_empty() {
            return Proposal { judgement: Judgement::default(), suspects };
        }
        let mut judgement =
            self.judge_by(evidence, subject, inputs, &Verified::default(), Keeping::Kept);
        let suspects = std::mem::take(&mut judgement.suspects);
        Proposal { judgement, suspects }
    }

    /// Decides from what was verified about the suspects. Without suspects the proposal is the decision.
    pub(crate) fn confirm(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        proposal: Proposal,
        verified: Verified,
    ) -> Decision {
        let _span = subject.trace.step("decide");
        let Proposal { judgement: Judgement { verdicts, late_at, .. }, suspects } = proposal;
        if suspects.is_empty() {
            self.note_pruning(subject, inputs, &verdicts, &[], &verified);
            return Decision { verdicts, late_at, verified, failed_reads: 0 };
        }
        // The next decision changes the kept verdicts where they are, if nothing else holds them.
        drop(verdicts);
        let failed_reads = self.states.with(subject.key(), subject.uid(), |state| {
            let complete = verified.is_complete();
            state.failed_reads = if complete { 0 } else { state.failed_reads.saturating_add(1) };
            state.failed_reads
        });
        if verified.unproven.is_some() {
            self.proofs.wake_when_proven(subject.key());
        }
        // What was verified is new evidence.
        let evidence = self.evidence(&subject.registration);
        let Judgement { verdicts, late_at, .. } =
            self.judge_by(evidence, subject, inputs, &verified, Keeping::Kept);
        self.note_pruning(subject, inputs, &verdicts, &suspects, &verified);
        Decision { verdicts, late_at, verified, failed_reads }
    }

    /// The suspects that are known beforehand: those that the last decision expected, and the instances with Leases
    /// that the watch has lost. This saves one decision, which takes longer the larger the registration is. The
    /// proof of a live read does not depend on what asked for it. It is also necessary: no decision mentions an
    /// instance that is gone together with its Pod, so no decision would ask for the live read after which its
    /// Lease is forgotten.
    fn suspects_known_before(&self, subject: &Subject, evidence: &Evidence) -> Vec<Suspect> {
        let Subject { registration, ttl, .. } = subject;
        // The expected suspects are used once. The next decision expects them again.
        let expected = self
            .states
            .with(subject.key(), subject.uid(), |state| std::mem::take(&mut state.expected));
        let mut suspects = match self.liveness.has_gateways() {
            true => self.in_doubt_with_gateways(expected, registration, ttl, evidence),
            false => {
                let (index, now) = (self.liveness.index(), self.clock.now());
                evidence.in_doubt(expected, registration, ttl, &index, |_, _| None, now)
            }
        };
        self.observer.suspects(&mut suspects);
        suspects
    }

    fn in_doubt_with_gateways(
        &self,
        expected: Vec<Suspect>,
        registration: &Registration,
        ttl: &TtlHistory,
        evidence: &Evidence,
    ) -> Vec<Suspect> {
        let suspects = self.liveness.carried(|state, index| {
            let now = self.clock.now();
            let finding = |record: &Record, pace| Some(state.finding(record, pace, now));
            evidence.in_doubt(expected, registration, ttl, index, finding, now)
        });
        suspects.unwrap_or_default()
    }

    /// Notes why the instances are pruned, until the API server confirms the write. The write may take several
    /// attempts.
    fn note_pruning(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        verdicts: &[Verdict],
        suspects: &[Suspect],
        verified: &Verified,
    ) {
        if subject.registration.dry_run {
            return;
        }
        let expired = |lease: &Arc<str>| {
            let verdict = ordered::verdict_on(verdicts, lease, &subject.key().name);
            verdict.filter(|verdict| verdict.state == InstanceState::Expired)
        };
        self.states.with(subject.key(), subject.uid(), |state| {
            // An instance that has beaten in the meantime is not to be pruned any more.
            state.pruning.retain(|lease, _| expired(lease).is_some());
            for Suspect { lease, deadline } in suspects {
                let Some(deadline) = *deadline else { continue };
                if expired(lease).is_some_and(|it| it.is_at(&inputs.snapshot.published)) {
                    let (read, proof) = (verified.reads.get(lease).copied(), verified.proof);
                    state.pruning.insert(lease.clone(), Pruning { deadline, read, proof });
                }
            }
        });
    }

    /// The evidence that is known now, before the guard is asked.
    pub(super) fn evidence(&self, registration: &Registration) -> Evidence {
        Evidence::known(registration, &self.liveness.path(), &self.liveness.guard())
    }
}
