//! The decide step around the core. It passes what is known to the core, and notes the outcome in the index.

use std::{cell::OnceCell, collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use beatkeeper_api::InstanceState;

use super::{subject::Subject, verify::Verified};
use crate::controller::{
    backoff,
    clock::Clock,
    cluster::Cluster,
    liveness::Liveness,
    metrics::{groups::Step, process::Metrics},
    observer::{Decided, Observer, Undecided},
    probe::proofs::Proofs,
    queue::WorkQueue,
    states::{Pruning, States},
};
use beatkeeper_core::{
    cluster_cache::dependents::Asked,
    decide::{
        self,
        cordons::Cordons,
        evidence::Evidence,
        facts::{self, Facts},
        verdict::{Suspect, Verdict},
    },
    inputs::{Inputs, preconditions, snapshot},
    liveness::{
        index::{CommitResult, Record},
        ttl::TtlHistory,
    },
    objects::registration::Registration,
    vocabulary::{
        address::{AddressSet, OutsideRanges},
        monotonic_time::MonotonicTime,
    },
};

/// A registration is reconciled after this time even if nothing has woken it.
const RESYNC: Duration = Duration::from_secs(600);

/// The decision before its suspects are verified.
pub(crate) struct Proposal {
    /// Empty if the suspects were known beforehand.
    verdicts: Vec<Verdict>,
    pub(crate) suspects: Vec<Suspect>,
}

/// The result of the decide step.
pub(crate) struct Decision {
    pub(crate) verdicts: Vec<Verdict>,
    verified: Verified,
    /// How often in a row a live read or a proof was missing.
    failed_reads: u32,
}

impl Decision {
    /// The time until time alone may change the decision.
    pub(crate) fn pause(&self, now: MonotonicTime) -> Duration {
        let Verified { unreadable, unproven, .. } = &self.verified;
        let sure = |verdict: &&Verdict| {
            let suspect = verdict.lease.as_ref().and_then(|lease| lease.suspect.as_ref());
            suspect.is_none_or(|suspect| {
                !unreadable.contains_key(&suspect.lease)
                    && (unproven.is_none() || suspect.deadline.is_none())
            })
        };
        let next = self.verdicts.iter().filter(sure).filter_map(|verdict| verdict.requeue_at).min();
        let pause = next.map_or(RESYNC, |next| next.since(now)).min(RESYNC);
        if self.verified.is_complete() {
            pause
        } else {
            pause.min(backoff::after(self.failed_reads))
        }
    }
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
        let evidence = self.evidence(&subject.registration);
        let suspects = self.suspects_known_before(subject, &evidence);
        if !suspects.is_empty() {
            return Proposal { verdicts: Vec::new(), suspects };
        }
        let verdicts = self.judge_by(evidence, subject, inputs, &Verified::default());
        let suspects = Suspect::of(&verdicts);
        Proposal { verdicts, suspects }
    }

    /// Decides from what was verified about the suspects. Without suspects the proposal is the decision.
    pub(crate) fn confirm(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        proposal: Proposal,
        verified: Verified,
    ) -> Decision {
        let Proposal { verdicts, suspects } = proposal;
        if suspects.is_empty() {
            self.note_pruning(subject, inputs, &verdicts, &[], &verified);
            return Decision { verdicts, verified, failed_reads: 0 };
        }
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
        let verdicts = self.judge_by(evidence, subject, inputs, &verified);
        self.note_pruning(subject, inputs, &verdicts, &suspects, &verified);
        Decision { verdicts, verified, failed_reads }
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
        let (index, now) = (self.liveness.index(), self.clock.now());
        let mut suspects = evidence.in_doubt(expected, registration, ttl, &index, now);
        drop(index);
        self.observer.suspects(&mut suspects);
        suspects
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
        let expired: HashMap<&Arc<str>, &Verdict> = verdicts
            .iter()
            .filter(|verdict| verdict.state == InstanceState::Expired)
            .filter_map(|verdict| Some((&verdict.lease.as_ref()?.decision.lease, verdict)))
            .collect();
        self.states.with(subject.key(), subject.uid(), |state| {
            // An instance that has beaten in the meantime is not to be pruned any more.
            state.pruning.retain(|lease, _| expired.contains_key(lease));
            for Suspect { lease, deadline } in suspects {
                let Some(deadline) = *deadline else { continue };
                if expired.get(lease).is_some_and(|it| it.is_at(&inputs.snapshot.published)) {
                    let (read, proof) = (verified.reads.get(lease).copied(), verified.proof);
                    state.pruning.insert(lease.clone(), Pruning { deadline, read, proof });
                }
            }
        });
    }

    /// Decides from what is known now, before anything is verified, and notes the outcome in the index.
    pub(crate) fn judge(&self, subject: &Subject, inputs: &Inputs) -> Vec<Verdict> {
        let evidence = self.evidence(&subject.registration);
        self.judge_by(evidence, subject, inputs, &Verified::default())
    }

    /// The evidence that is known now, before the guard is asked.
    fn evidence(&self, registration: &Registration) -> Evidence {
        Evidence::known(registration, &self.liveness.path(), &self.liveness.guard())
    }

    /// Decides by this evidence and what else is known now, and notes the outcome in the index. It decides again if, in the meantime, an
    /// instance that the decision would remove has beaten, or a Lease with a verdict has gone. If another beat that
    /// makes a difference has arrived, the decision stands, and the registration is woken.
    fn judge_by(
        &self,
        mut known: Evidence,
        subject: &Subject,
        inputs: &Inputs,
        verified: &Verified,
    ) -> Vec<Verdict> {
        let _step = self.metrics.begin(Step::Decide);
        let Subject { registration, ttl, .. } = subject;
        loop {
            let cordons = Cordons::stand(registration, &mut self.liveness.index());
            let mut records = self.liveness.index().records_of(&registration.key);
            let now = self.clock.now();
            let mut evidence = known.ask(
                &mut self.liveness.guard(),
                registration,
                ttl,
                &records,
                &self.liveness.index(),
                &self.cluster.lock(),
                now,
            );
            evidence.unproven = verified.unproven.clone();
            let mut undecided = Undecided {
                registration,
                records: &mut records,
                evidence: &mut evidence,
                ttl,
                published: &inputs.snapshot.published,
                now,
            };
            self.observer.decides(&mut undecided);
            let Undecided { ttl, published, .. } = undecided;
            let (cordons, records) = (&cordons, &records[..]);
            let facts = Known { subject, ttl, inputs, published, verified, cordons, records };
            let verdicts = self.verdicts(facts, &evidence, now);
            let decisions = verdicts.iter().filter_map(Verdict::lease_decision);
            let committed = self.liveness.index().commit(&registration.key, decisions, now);
            match committed {
                CommitResult::Accepted => {}
                // Wakes the registration even if another decision follows in this run: no record would show that it
                // considered the beat.
                CommitResult::AcceptedForNow => self.queue.wake([registration.key.clone()]),
                CommitResult::Overtaken => {
                    known = self.evidence(registration);
                    continue;
                }
            }
            let decided = Decided { registration, records, verdicts: &verdicts, at: now };
            self.observer.decided(&decided);
            return verdicts;
        }
    }

    /// Notes which instances the slices show as published. It decides nothing: without a proof no instance counts
    /// as dead.
    pub(crate) fn note_published(&self, subject: &Subject, inputs: &Inputs) {
        let registration = &subject.registration;
        let cordons = Cordons::stand(registration, &mut self.liveness.index());
        let records = self.liveness.index().records_of(&registration.key);
        let unproven = Evidence { probed: None, ..self.evidence(registration) };
        let verified = &Verified::default();
        let (cordons, records) = (&cordons, &records[..]);
        let (ttl, published) = (&subject.ttl, &inputs.snapshot.published);
        let known = Known { subject, ttl, inputs, published, verified, cordons, records };
        let verdicts = self.verdicts(known, &unproven, self.clock.now());
        let published = verdicts.iter().filter_map(Verdict::lease_decision);
        self.liveness.index().note_published(&registration.key, published);
    }

    fn verdicts(&self, known: Known<'_>, evidence: &Evidence, now: MonotonicTime) -> Vec<Verdict> {
        let Known { subject, ttl, inputs, published, verified, cordons, records } = known;
        let registration = &subject.registration;
        let pods = self.pods(subject, records, inputs);
        decide::decide(&Facts {
            registration,
            instances: facts::Instances {
                records,
                adopted: &inputs.adoption.instances,
                cordons: &cordons.held,
            },
            liveness: facts::Liveness {
                ttl,
                evidence,
                unreadable: &verified.unreadable,
                term_began: self.queue.term_began(),
            },
            service: facts::TargetService {
                name: &registration.service_name,
                families: inputs.families(),
                ports: &preconditions::common_ports(registration, inputs.service.as_deref()),
                shared_ports: OnceCell::new(),
            },
            published: facts::PublishedNow {
                addresses: published,
                contains: &|address, port| {
                    snapshot::publishes(&inputs.snapshot.slices, address, port)
                },
                frozen: inputs.frozen(),
            },
            cluster: facts::Cluster {
                pods: &pods.by_name,
                zones: &pods.zones,
                ranges: &self.ranges,
                owner_of: &|address: IpAddr| self.cluster.lock().owner_of_address(address),
            },
            now,
        })
    }

    /// Gathers the Pods of the records. Notes what else the decision depends on, so that a change of it causes a
    /// new decision.
    fn pods(&self, subject: &Subject, records: &[Record], inputs: &Inputs) -> snapshot::Pods {
        let registration = &subject.registration;
        let mut cluster = self.cluster.lock();
        let adopted = &inputs.adoption.instances;
        let mut pods = snapshot::pods(&registration.key.namespace, records, adopted, &cluster);
        let nodes = std::mem::take(&mut pods.nodes);
        let asked = Asked::of(registration, records, inputs, &self.ranges, nodes);
        cluster.dependents.note(&registration.key, asked);
        pods
    }
}

/// The input of a decision, except the evidence.
#[derive(Clone, Copy)]
struct Known<'a> {
    subject: &'a Subject,
    ttl: &'a TtlHistory,
    inputs: &'a Inputs,
    published: &'a AddressSet,
    verified: &'a Verified,
    cordons: &'a Cordons,
    records: &'a [Record],
}
