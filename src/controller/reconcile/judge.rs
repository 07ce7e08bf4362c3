//! Judges the instances of a registration, all of them or those of which something has changed, and notes the outcome in
//! the index.

use std::{sync::Arc, time::Duration};

use super::{
    decide::{Decider, Judgement, Keeping},
    known::{Known, PodsOf, Scope},
    subject::Subject,
    verify::Verified,
};
use crate::controller::{
    metrics::groups::Step,
    observer::{Compared, Decided, Undecided},
};
use beatkeeper_core::{
    decide::{
        self,
        cordons::Cordons,
        evidence::Evidence,
        facts::Facts,
        gateways::Findings,
        kept::{KeptDecision, Renewed},
        premise::Premise,
        verdict::{Suspect, Verdict},
    },
    inputs::{Inputs, seen::SeenObjects, snapshot},
    liveness::{
        index::{CommitResult, Record, Standing, Ticket, Unsettled},
        outage_guard::OutageGuard,
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// A kept decision, and the Leases about which it has to be made anew.
struct Reopened {
    kept: Box<KeptDecision>,
    unsettled: Unsettled,
    now: MonotonicTime,
    /// What gateways say of the unsettled records, if there are any.
    findings: Option<Findings>,
    /// All records, and what gateways say of them, if the result is compared with a decision about all instances.
    all: Option<(Vec<Record>, Option<Findings>)>,
}

impl Decider {
    /// Decides from what is known now about all instances, before anything is verified, and notes the outcome in the
    /// index.
    pub(crate) fn judge(&self, subject: &Subject, inputs: &Inputs) -> Arc<Vec<Verdict>> {
        let (evidence, verified) = (self.evidence(&subject.registration), Verified::default());
        self.judge_by(evidence, subject, inputs, &verified, Keeping::InFull).verdicts
    }

    /// Decides by this evidence and what else is known now, and notes the outcome in the index. It decides again if, in the meantime, an
    /// instance that the decision would remove has beaten, or a Lease with a verdict has gone. If another beat that
    /// makes a difference has arrived, the decision stands, and the registration is woken.
    pub(super) fn judge_by(
        &self,
        mut evidence: Evidence,
        subject: &Subject,
        inputs: &Inputs,
        verified: &Verified,
        keeping: Keeping,
    ) -> Judgement {
        let _step = self.metrics.begin(Step::Decide);
        let (registration, ttl) = (&subject.registration, &subject.ttl);
        loop {
            let cordons = &Cordons::stand(registration, &mut self.liveness.index());
            let published = &inputs.snapshot.published;
            let known = Known { subject, ttl, inputs, published, verified, cordons };
            let premise = self.premise(known, keeping);
            let judged = match self.reopen(known, premise.as_ref()) {
                Some(reopened) => self.judge_changed(reopened, evidence, known),
                None => self.judge_all(premise, evidence, known),
            };
            match judged {
                Some(judgement) => return judgement,
                None => evidence = self.evidence(registration),
            }
        }
    }

    /// What the decision rests on, if it may be kept. During an adoption, the slices and the verdicts change in other
    /// ways.
    fn premise(&self, known: Known<'_>, keeping: Keeping) -> Option<Premise> {
        let Inputs { adoption, snapshot, .. } = known.inputs;
        let is_adopting = !adoption.instances.is_empty()
            || !adoption.leftovers.is_empty()
            || adoption.endpoints.is_some();
        if keeping == Keeping::InFull
            || is_adopting
            || snapshot.conflicts.unreadable.is_some()
            || self.liveness.index().count_of(known.key()) < self.observer.keeps_from()
        {
            return None;
        }
        // A premise names no Pod.
        let nothing = snapshot::Pods::default();
        let now = self.clock.now();
        self.with_facts(known, &[], &nothing, &Evidence::default(), now, Premise::of)
    }

    /// Reopens the kept decision, if there is one that rests on this premise, and if it is known what has changed since.
    fn reopen(&self, known: Known<'_>, premise: Option<&Premise>) -> Option<Reopened> {
        let (key, uid) = (known.key(), known.subject.uid());
        let kept = self.states.with(key, uid, |state| state.kept.take());
        let mut kept = kept.filter(|kept| premise.is_some_and(|premise| kept.rests_on(premise)))?;
        let (pods, seen) = {
            let cluster = self.cluster.lock();
            if cluster.dependents.is_outdated(key) {
                return None;
            }
            let changed = cluster.pod_changes.since(kept.seen.pods)?;
            let pods: Vec<Key> =
                changed.filter(|pod| pod.namespace == key.namespace).cloned().collect();
            (pods, cluster.pod_changes.seen())
        };
        let slices = &known.inputs.snapshot.slices;
        let mut others = kept.leases_at(&kept.seen.moved(slices));
        let now = self.clock.now();
        let (found, said) = self.liveness.look(
            |index| {
                others.extend(pods.iter().flat_map(|pod| index.leases_in_pod(key, pod)));
                let late = now - overdue_after(known);
                let unsettled = index.unsettled(key, kept.ticket(), others, late)?;
                if costs_more_than_all(unsettled.leases.len(), index.count_of(key)) {
                    return None;
                }
                Some((unsettled, self.observer.compares().then(|| index.records_of(key))))
            },
            |gateways, found| {
                let (unsettled, all) = found.as_ref()?;
                let all = all.as_ref().map(|all| self.findings(known, gateways, all));
                Some((self.findings(known, gateways, &unsettled.records), all))
            },
        );
        let (unsettled, all) = found?;
        let (findings, of_all) = said.flatten().unzip();
        let all = all.map(|all| (all, of_all.flatten()));
        kept.reopen(&unsettled.leases, &key.name);
        kept.seen = SeenObjects { slices: slices.clone(), pods: seen };
        Some(Reopened { kept, unsettled, now, findings, all })
    }

    /// Makes the kept decision anew for the Leases that were reopened. `None` if it was overtaken.
    fn judge_changed(
        &self,
        reopened: Reopened,
        known_before: Evidence,
        known: Known<'_>,
    ) -> Option<Judgement> {
        let Reopened { mut kept, unsettled, now, findings, all } = reopened;
        let Unsettled { leases, records } = unsettled;
        let (key, registration) = (known.key(), &known.subject.registration);
        let beating = kept.beating(overdue_after(known));
        // The same question is to be asked a second time.
        let again = all.map(|all| (all, known_before.clone(), self.liveness.guard().clone()));
        let mut guard = self.liveness.guard();
        let mut evidence = self.ask(&mut guard, known_before, known, &records, beating, now);
        drop(guard);
        let compared = again.is_some().then(|| evidence.clone());
        evidence.gateways = findings;
        let all = again.map(|again| self.decide_about_all(again, known, now));
        let PodsOf { pods, .. } = self.pods(known, &records, Scope::Changed);
        let decide = |facts: &Facts<'_>| kept.decide(facts, &leases);
        let renewed = self.with_facts(known, &records, &pods, &evidence, now, decide);
        let (ticket, result) = (kept.ticket(), self.commit_changed(known, &kept, &renewed, now));
        if result == CommitResult::Overtaken {
            self.keep(known, kept);
            return None;
        }
        let suspects = renewed.suspects();
        kept.renew(renewed, &key.name);
        let late_at = self.late_at(known, ticket);
        let verdicts = kept.verdicts().clone();
        self.keep(known, kept);
        if let Some(((all, of_all), evidence)) = all.as_ref().zip(compared.as_ref()) {
            let (kept, evidence_of_all) = (&verdicts[..], of_all);
            let both = Compared { registration, kept, evidence, late_at, all, evidence_of_all };
            self.observer.compared(&both);
        }
        let records = &records[..];
        self.observer.decided(&Decided { registration, records, verdicts: &verdicts, at: now });
        Some(Judgement { verdicts, suspects, late_at })
    }

    /// Decides about all instances. `None` if the decision was overtaken.
    fn judge_all(
        &self,
        premise: Option<Premise>,
        known_before: Evidence,
        known: Known<'_>,
    ) -> Option<Judgement> {
        let (key, registration) = (known.key(), &known.subject.registration);
        let (mut records, findings, ticket) = self.all_records(known, premise.is_some());
        let now = self.clock.now();
        let mut evidence =
            self.ask(&mut self.liveness.guard(), known_before, known, &records, None, now);
        evidence.gateways = findings;
        let mut undecided = Undecided {
            registration,
            records: &mut records,
            evidence: &mut evidence,
            ttl: known.ttl,
            published: known.published,
            now,
        };
        self.observer.decides(&mut undecided);
        let Undecided { ttl, published, .. } = undecided;
        let known = Known { ttl, published, ..known };
        let PodsOf { pods, seen } = self.pods(known, &records, Scope::All);
        let verdicts = self.with_facts(known, &records, &pods, &evidence, now, decide::decide);
        let decisions = verdicts.iter().filter_map(Verdict::lease_decision);
        let committed = self.liveness.index().commit(key, decisions, now);
        match committed {
            CommitResult::Accepted => {}
            // Wakes the registration even if another decision follows in this run: no record would show that it
            // considered the beat.
            CommitResult::AcceptedForNow => self.queue.wake([key.clone()]),
            CommitResult::Overtaken => return None,
        }
        let suspects = Suspect::of(&verdicts);
        let (verdicts, late_at) = match premise.zip(ticket) {
            None => (Arc::new(verdicts), None),
            Some((premise, ticket)) => {
                let slices = known.inputs.snapshot.slices.clone();
                let seen = SeenObjects { slices, pods: seen };
                let (kept, standings) =
                    KeptDecision::new(registration, &records, premise, ticket, seen, verdicts);
                self.begin_to_keep(known, kept, &standings)
            }
        };
        let records = &records[..];
        self.observer.decided(&Decided { registration, records, verdicts: &verdicts, at: now });
        Some(Judgement { verdicts, suspects, late_at })
    }

    /// All records, and what gateways say of them, for a decision that is kept or not.
    fn all_records(
        &self,
        known: Known<'_>,
        is_kept: bool,
    ) -> (Vec<Record>, Option<Findings>, Option<Ticket>) {
        let key = known.key();
        let ((records, ticket), findings) = self.liveness.look(
            |index| {
                if is_kept {
                    let (records, ticket) = index.follow(key);
                    return (records, Some(ticket));
                }
                index.unfollow(key);
                (index.records_of(key), None)
            },
            |gateways, (records, _)| self.findings(known, gateways, records),
        );
        (records, findings, ticket)
    }

    /// Keeps a decision about all instances. Returns its verdicts, and when the next beat is late.
    fn begin_to_keep(
        &self,
        known: Known<'_>,
        kept: KeptDecision,
        standings: &[(Arc<str>, Standing)],
    ) -> (Arc<Vec<Verdict>>, Option<MonotonicTime>) {
        let (ticket, verdicts) = (kept.ticket(), kept.verdicts().clone());
        let standings = standings.iter().map(|(lease, standing)| (lease, *standing));
        self.liveness.index().settle(known.key(), ticket, standings);
        self.keep(known, Box::new(kept));
        (verdicts, self.late_at(known, ticket))
    }

    /// Decides about all instances, to be compared with what was decided about some of them.
    fn decide_about_all(
        &self,
        ((records, findings), evidence, mut guard): (
            (Vec<Record>, Option<Findings>),
            Evidence,
            OutageGuard,
        ),
        known: Known<'_>,
        now: MonotonicTime,
    ) -> (Vec<Verdict>, Evidence) {
        let evidence = self.ask(&mut guard, evidence, known, &records, None, now);
        let namespace = &known.key().namespace;
        let pods = snapshot::pods(namespace, &records, &[], &self.cluster.lock());
        let with_gateways = Evidence { gateways: findings, ..evidence.clone() };
        let verdicts = self.with_facts(known, &records, &pods, &with_gateways, now, decide::decide);
        (verdicts, evidence)
    }

    /// Notes in the index what was decided anew, and which of it stands.
    fn commit_changed(
        &self,
        known: Known<'_>,
        kept: &KeptDecision,
        renewed: &Renewed,
        now: MonotonicTime,
    ) -> CommitResult {
        let (key, ticket) = (known.key(), kept.ticket());
        let mut index = self.liveness.index();
        let result = index.commit_changed(key, ticket, renewed.decisions(), now);
        if result != CommitResult::Overtaken {
            index.settle(key, ticket, renewed.standings());
        }
        drop(index);
        if result == CommitResult::AcceptedForNow {
            self.queue.wake([key.clone()]);
        }
        result
    }

    fn late_at(&self, known: Known<'_>, ticket: Ticket) -> Option<MonotonicTime> {
        let oldest = self.liveness.index().oldest_beat(known.key(), ticket)?;
        Some(oldest + overdue_after(known))
    }

    fn keep(&self, known: Known<'_>, kept: Box<KeptDecision>) {
        let (key, uid) = (known.key(), known.subject.uid());
        self.states.with(key, uid, |state| state.kept = Some(kept));
    }
}

/// How long after its last beat an instance is late that follows the present ttl. A verdict stands for no other.
fn overdue_after(known: Known<'_>) -> Duration {
    known.subject.registration.overdue_after(known.ttl.current())
}

/// From how many instances on their number matters.
const MANY: usize = 256;

/// Whether it costs more to judge so many instances one by one than all at once.
fn costs_more_than_all(changed: usize, all: usize) -> bool {
    changed >= MANY && changed * 2 > all
}
