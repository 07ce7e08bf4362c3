//! P2 under faults: how long dead instances stay published while everything works.

use super::{Run, TICK};
use crate::{
    network::{GOOD, Mode},
    replica::Replica,
};

/// Within this time the operator asks for the version of each kind, in milliseconds.
const VERSIONS_ASKED: u64 = 35_000;

impl Run {
    fn is_healthy(&self) -> bool {
        let network = &self.network;
        let now = network.conditions.get();
        let good = now.latency == GOOD.latency
            && now.lag == GOOD.lag
            && now.lost + now.unanswered + now.refused == 0;
        let leads = |replica: &Replica| {
            self.check.leads_now(replica.process)
                && self.executor.runs(replica.process)
                && network.watches.show_all_to(replica.process)
        };
        network.mode.get() == Mode::Up
            && good
            && network.nothing_is_cut()
            && network.stale_lists.get() == 0
            && self.replicas.borrow().iter().flatten().any(leads)
    }

    /// P2 under faults. Only healthy stretches of time count, each without its beginning, in which proofs must
    /// be made again. Three ttls of such time are enough for a dead instance to leave. With the hold for a
    /// broken path, thirteen are enough, because many silent instances look like a broken path.
    pub(super) fn look_for_the_dead(&self) {
        let healthy = self.is_healthy();
        self.healthy_for.set(if healthy { self.healthy_for.get() + TICK } else { 0 });
        // If only restarts go wrong, no process waits for a lost answer.
        let waits = if self.restarts { 500 } else { 6000 };
        let beginning = (self.check.widest_slack() / 4).clamp(250, 10_000) * 2 + waits;
        let workloads = self.check.workloads();
        let many = workloads.len() >= 10;
        // If nothing is to be written, only the question for a kind's version shows that its watch is ahead of the log.
        let asked = if self.rollbacks.is_some() { VERSIONS_ASKED } else { 0 };
        let bound = self.check.longest_ttl() * if many { 13 } else { 3 } + 1000 + asked;
        let mut overstayed = self.overstayed.borrow_mut();
        for key in &self.registrations {
            let published = self.check.published(key);
            overstayed.retain(|(of, address), _| of != key || published.contains(address));
            if self.spec(key).dry_run {
                overstayed.retain(|(of, _), _| of != key);
                continue;
            }
            for workload in &workloads {
                let address = workload.ip();
                if workload.key != *key || !published.contains(&address) {
                    continue;
                }
                if workload.lives() {
                    overstayed.remove(&(key.clone(), address));
                    continue;
                }
                let spent = overstayed.entry((key.clone(), address)).or_default();
                if healthy && self.healthy_for.get() > beginning {
                    *spent += TICK;
                }
                if *spent > bound && !self.protected.get() {
                    self.check.fail(|| format!("P2: {address} of {key} is dead, and still there"));
                }
            }
        }
    }
}
