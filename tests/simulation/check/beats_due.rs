//! L6: whether so many beats were due that the silence may be that of the way of the beats.

use std::collections::BTreeMap;

use beatkeeper_core::{objects::registration::Registration, vocabulary::key::Key};

use super::{Accepted, Check, millis, silence::Death};
use crate::{replica::Replica, workload::Workload};
use std::rc::Rc;

impl Check {
    /// L6: fails if many beats were due and none of them arrived.
    pub(super) fn path_was_whole(
        &self,
        replica: &Replica,
        registration: &Registration,
        death: &Death,
        decided: u64,
        beats: &BTreeMap<Key, Vec<Accepted>>,
    ) {
        let Death { key, beat, pace, .. } = *death;
        let window = millis(registration.pace().slack());
        let here = self.published(&registration.key);
        let of = |workload: &&Rc<Workload>| workload.lease() == *key;
        let address = self.workloads.borrow().iter().find(of).map(|workload| workload.ip());
        if !address.is_some_and(|address| here.contains(&address)) {
            return;
        }
        if decided >= beat + millis(pace.ttl) * 9 || decided < window + 2000 {
            return;
        }
        // Beats that a stalled watch held back arrive all at once, and then look like a flow.
        let lately = decided.saturating_sub(window + millis(registration.interval) + 2000);
        let processes = self.processes.borrow();
        let blind = processes.get(&replica.process).map(|witnessed| &witnessed.blind);
        if blind.is_some_and(|blind| blind.between(lately, decided).next().is_some()) {
            return;
        }
        let specs = self.specs.borrow();
        // By namespace: how many beats are due, and how many have arrived.
        let mut flows: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for workload in self.workloads.borrow().iter() {
            let lease = workload.lease();
            if !self.published(&workload.key).contains(&workload.ip()) {
                continue;
            }
            let pace = specs.get(&workload.key).and_then(|all| all.last());
            let Some(last) = beats.get(&lease).and_then(|all| all.last()) else { continue };
            // No beat is expected from an instance that is decided to be dead.
            let beaten = beats.get(&lease).map_or(0, Vec::len);
            if self.dead.borrow().get(&lease).is_some_and(|dead| dead.beats == beaten) {
                continue;
            }
            let quiet = decided.saturating_sub(last.at);
            // An instance that was late long before that is no sign of a broken path.
            let together = |interval: u64| quiet <= interval + (decided - beat) * 3 / 2;
            let is_due = |interval| quiet > interval + 2000 && together(interval);
            let (due, arrived) = flows.entry(lease.namespace).or_default();
            *arrived += usize::from(quiet <= window + 2000);
            *due += usize::from(pace.is_some_and(|pace| is_due(millis(pace.interval))));
        }
        let (here, _) = flows.get(&key.namespace).copied().unwrap_or_default();
        // Another namespace counts for at most eight.
        let elsewhere = flows.iter().filter(|(namespace, _)| **namespace != key.namespace);
        let elsewhere: usize = elsewhere.map(|(_, (due, _))| (*due).min(8)).sum();
        let arrived_here = flows.get(&key.namespace).map_or(0, |(_, arrived)| *arrived);
        let arrived: usize = flows.values().map(|(_, arrived)| arrived).sum();
        // The check requires two more due beats than the guard, because the guard rounds down what it remembers
        // of an earlier process.
        let broken = [(here, arrived_here), (here + elsewhere, arrived)];
        if let Some((due, _)) = broken.iter().find(|(due, arrived)| *due >= 12 && *arrived == 0) {
            self.fail(|| {
                format!(
                    "L6: {key} taken for dead at {decided}, while of {due} beats due none arrived"
                )
            });
        }
    }
}
