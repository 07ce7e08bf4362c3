//! What is known for a decision about the instances of a registration, and how the core is asked.

use std::{cell::OnceCell, net::IpAddr};

use super::{decide::Decider, subject::Subject, verify::Verified};
use crate::controller::carriers::{findings, state::CarrierState};
use beatkeeper_core::{
    cluster_cache::{dependents::Asked, pod_changes::PodsSeen},
    decide::{
        self,
        cordons::Cordons,
        evidence::Evidence,
        facts::{self, Facts},
        gateways::Findings,
        verdict::Verdict,
    },
    inputs::{Inputs, preconditions, snapshot},
    liveness::{index::Record, outage_guard::OutageGuard, ttl::TtlHistory},
    vocabulary::{address::AddressSet, key::Key, monotonic_time::MonotonicTime},
};

/// The input of a decision, except the evidence and the records.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) subject: &'a Subject,
    pub(super) ttl: &'a TtlHistory,
    pub(super) inputs: &'a Inputs,
    pub(super) published: &'a AddressSet,
    pub(super) verified: &'a Verified,
    pub(super) cordons: &'a Cordons,
}

impl Known<'_> {
    pub(super) fn key(&self) -> &Key {
        self.subject.key()
    }
}

/// The Pods of some records, and up to which changes they are known.
pub(super) struct PodsOf {
    pub(super) pods: snapshot::Pods,
    pub(super) seen: PodsSeen,
}

/// Which records a decision judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    All,
    /// Those that may change the verdict.
    Changed,
}

impl Decider {
    /// What gateways say of these records now.
    pub(super) fn findings(
        &self,
        known: Known<'_>,
        gateways: &CarrierState,
        records: &[Record],
    ) -> Findings {
        let interval = known.subject.registration.interval;
        let ttl = |record: &Record| known.ttl.at(record, interval);
        let findings = findings::of(gateways, records, interval, ttl, self.clock.now());
        Findings { unanswered: known.verified.unanswered, ..findings }
    }

    /// Adds to the evidence what the guard says about these records. `beating` is set if others exist: so many of them
    /// beat in time.
    pub(super) fn ask(
        &self,
        guard: &mut OutageGuard,
        evidence: Evidence,
        known: Known<'_>,
        records: &[Record],
        beating: Option<usize>,
        now: MonotonicTime,
    ) -> Evidence {
        let mut evidence = evidence.ask(
            guard,
            &known.subject.registration,
            known.ttl,
            records,
            beating,
            &self.liveness.index(),
            &self.cluster.lock(),
            now,
        );
        evidence.unproven = known.verified.unproven.clone();
        evidence
    }

    /// Gathers the Pods of the records. Notes what else the decision depends on, so that a change of it causes a
    /// new decision.
    pub(super) fn pods(&self, known: Known<'_>, records: &[Record], scope: Scope) -> PodsOf {
        let (registration, inputs) = (&known.subject.registration, known.inputs);
        let mut cluster = self.cluster.lock();
        let adopted = &inputs.adoption.instances;
        let mut pods = snapshot::pods(&registration.key.namespace, records, adopted, &cluster);
        let nodes = std::mem::take(&mut pods.nodes);
        let asked = Asked::of(registration, records, inputs, &self.ranges, nodes);
        match scope {
            Scope::All => cluster.dependents.note(&registration.key, asked),
            Scope::Changed => cluster.dependents.add(&registration.key, asked),
        }
        PodsOf { pods, seen: cluster.pod_changes.seen() }
    }

    /// Asks the core about these records.
    pub(super) fn with_facts<T>(
        &self,
        known: Known<'_>,
        records: &[Record],
        pods: &snapshot::Pods,
        evidence: &Evidence,
        now: MonotonicTime,
        ask: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let Known { subject, ttl, inputs, published, verified, cordons } = known;
        let registration = &subject.registration;
        ask(&Facts {
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

    /// Notes which instances the slices show as published. It decides nothing: without a proof no instance counts
    /// as dead.
    pub(crate) fn note_published(&self, subject: &Subject, inputs: &Inputs) {
        let registration = &subject.registration;
        let cordons = &Cordons::stand(registration, &mut self.liveness.index());
        let records = self.liveness.index().records_of(&registration.key);
        let unproven = Evidence { probed: None, ..self.evidence(registration) };
        let verified = &Verified::default();
        let (ttl, published) = (&subject.ttl, &inputs.snapshot.published);
        let known = Known { subject, ttl, inputs, published, verified, cordons };
        let PodsOf { pods, .. } = self.pods(known, &records, Scope::All);
        let now = self.clock.now();
        let verdicts = self.with_facts(known, &records, &pods, &unproven, now, decide::decide);
        let published = verdicts.iter().filter_map(Verdict::lease_decision);
        self.liveness.index().note_published(&registration.key, published);
    }
}
