//! A service in which one instance after the other dies, while all others beat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beatkeeper_api::InstanceState;
use beatkeeper_core::decide::verdict::Verdict;
use beatkeeper_core::decide::{facts::Facts, kept::KeptDecision, premise::Premise};
use beatkeeper_core::inputs::seen::SeenObjects;
use beatkeeper_core::liveness::index::{CommitResult, LiveRead};
use beatkeeper_core::vocabulary::address::AddressSet;
use beatkeeper_core::vocabulary::key::Key;
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;

use crate::instances::{Instances, NAMESPACE, Size, address, beat, service_key};
use crate::service::Inputs;
use crate::slices::Slices;

/// The ttl of the instances. They beat often enough that none is late.
const TTL: Duration = Duration::from_secs(30);

/// A service of instances outside the cluster, with the decision that is kept of it.
pub struct Deaths {
    inputs: Inputs,
    instances: Instances,
    published: AddressSet,
    kept: Option<KeptDecision>,
    slices: Option<Slices>,
    now: MonotonicTime,
    round: u64,
    count: usize,
}

impl Deaths {
    /// Makes a service with `count` instances, and keeps a first decision if `keeps` is set.
    pub fn new(count: usize, keeps: bool) -> Self {
        let mut deaths = Self {
            inputs: Inputs::new(&service_key(0), "30s", "10s"),
            instances: Instances::new(Size { instances: count, services: 1 }),
            published: (0..count).map(address).collect(),
            kept: None,
            slices: None,
            now: MonotonicTime::from_millis(1_000),
            round: 10,
            count,
        };
        if keeps {
            deaths.keep();
        }
        deaths
    }

    /// Decides about all, and keeps the decision.
    fn keep(&mut self) {
        let (key, now) = (self.inputs.key(), self.now);
        let index = &mut self.instances.index;
        let (records, ticket) = index.follow(key);
        let verdicts = self.inputs.decide(&records, &self.published, now);
        self.inputs.commit(index, &verdicts, now);
        let premise = self.inputs.with_facts(&records, &self.published, now, Premise::of);
        let (kept, standings) = KeptDecision::new(
            self.inputs.registration(),
            &records,
            premise.expect("nothing special"),
            ticket,
            SeenObjects::default(),
            verdicts,
        );
        let standings = standings.iter().map(|(lease, standing)| (lease, *standing));
        index.settle(key, ticket, standings);
        self.kept = Some(kept);
    }

    /// Decides about what has changed, or about all if no decision is kept. Returns whether the instance is dead.
    fn decide(&mut self, victim: usize) -> bool {
        let (key, now, registration) = (self.inputs.key(), self.now, self.inputs.registration());
        let index = &mut self.instances.index;
        let Some(kept) = &mut self.kept else {
            let verdicts = self.inputs.decide(&index.records_of(key), &self.published, now);
            self.inputs.commit(index, &verdicts, now);
            return is_dead(&verdicts, victim);
        };
        let late = now - registration.overdue_after(TTL);
        let unsettled = index.unsettled(key, kept.ticket(), BTreeSet::new(), late);
        let unsettled = unsettled.expect("followed");
        kept.reopen(&unsettled.leases, &key.name);
        let decide = |facts: &Facts<'_>| kept.decide(facts, &unsettled.leases);
        let renewed = self.inputs.with_facts(&unsettled.records, &self.published, now, decide);
        let result = index.commit_changed(key, kept.ticket(), renewed.decisions(), now);
        assert_eq!(result, CommitResult::Accepted);
        index.settle(key, kept.ticket(), renewed.standings());
        kept.renew(renewed, &key.name);
        std::hint::black_box(index.oldest_beat(key, kept.ticket()));
        is_dead(kept.verdicts(), victim)
    }

    fn beat(&mut self, without: Option<usize>) {
        self.round += 1;
        for instance in (0..self.count).filter(|instance| Some(*instance) != without) {
            self.instances.index.observe(NAMESPACE, beat(0, instance, self.round), self.now);
        }
    }

    /// Plans, too, after each decision that is made of the kept one.
    #[must_use]
    pub fn with_plans(mut self) -> Self {
        let kept = self.kept.as_ref().expect("a kept decision");
        self.slices = Some(Slices::of(self.inputs.registration(), kept.verdicts()));
        self
    }

    /// Plans for what the last decision has changed. Returns the number of writes.
    fn plan(&mut self) -> usize {
        match (&mut self.slices, &mut self.kept) {
            (Some(slices), Some(kept)) => slices.plan(kept, self.now).writes().count(),
            _ => 0,
        }
    }

    /// Lets an instance die. Returns how long the decision took that says so, and the plan if there are plans.
    pub fn one_dies(&mut self, victim: usize) -> Duration {
        self.beat(None);
        let last = beat(0, victim, self.round);
        self.decide(victim);
        self.plan();
        for _ in 0..2 {
            self.now = self.now + TTL / 2;
            self.beat(Some(victim));
            self.decide(victim);
            assert_eq!(self.plan(), 0, "nothing has changed in the slices");
        }
        let lease = Key::new(NAMESPACE, format!("service-0.vm-{victim}"));
        self.instances.index.confirm(&lease, LiveRead::Found(last), self.now, self.now);
        let began = Instant::now();
        let is_dead = self.decide(victim);
        let writes = self.plan();
        let took = began.elapsed();
        assert!(is_dead && writes == usize::from(self.slices.is_some()));
        took
    }
}

fn is_dead(verdicts: &[Verdict], victim: usize) -> bool {
    let lease: Arc<str> = format!("service-0.vm-{victim}").into();
    let verdict = beatkeeper_core::decide::ordered::verdict_on(verdicts, &lease, "service-0");
    verdict.is_some_and(|verdict| verdict.state == InstanceState::Expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_dies_whether_the_decision_is_kept_or_not() {
        let planned = Deaths::new(50, true).with_plans();
        for mut deaths in [Deaths::new(50, true), Deaths::new(50, false), planned] {
            for victim in [7, 8, 7] {
                deaths.one_dies(victim);
            }
        }
    }
}
