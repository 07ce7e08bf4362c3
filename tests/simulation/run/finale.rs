//! The end of a schedule: everything is repaired, and the cluster must reach a steady state. Then a quiet
//! period shows how soon instances that go are removed.

use std::{net::IpAddr, rc::Rc};

use beatkeeper_core::vocabulary::key::Key;

use super::{Run, TICK};
use crate::{
    check::millis,
    fault::{self, leave},
    object::{LEASES, SERVICES, SLICES},
    workload::{COLLECTED_WITHIN, Workload},
};

/// The smallest size of a crowd, so that it has some instances of each kind: silent, leaving and staying.
const CROWD: usize = 9;

/// How long after its deadline an instance of a crowd may still be published, in milliseconds. This is enough
/// for some reconciliations that handle other instances, each with a read, a proof and a write.
const AMONG_MANY: u64 = 400;

/// Within this time the last report has been written: rate limits may delay it, in milliseconds.
const REPORTED: u64 = 90_000;

/// Within this time the garbage collector has deleted the Lease of a Pod that is gone, and the leader has seen
/// the deletion, in milliseconds.
const COLLECTED: u64 = COLLECTED_WITHIN + AMONG_MANY;

impl Run {
    /// Ends the faults. Within a bound, all living instances and no others must be published. Then nothing may
    /// be written any more. An instance that dies after that must leave at its deadline.
    pub(super) async fn calm_down(&self) {
        if self.check.violation.borrow().is_some() {
            return;
        }
        self.check.tell(|| "all is mended".to_owned());
        self.stormy.set(false);
        self.network.mend_everything();
        for place in 0..self.places {
            self.replica(place).iter().for_each(|known| self.executor.resume(known.process));
            self.start_replica(place);
        }
        for workload in self.check.workloads() {
            workload.process.get().into_iter().for_each(|process| self.executor.resume(process));
            fault::restore_label(self, &workload.lease());
        }
        for (n, key) in self.registrations.iter().enumerate() {
            fault::undo(self, key);
            self.edit(n, serde_json::json!({ "protection": null }));
        }
        let ttl = self.check.longest_ttl();
        let mended = self.executor.now();
        let bound = mended + ttl * 12 + 30_000;
        while let Some(why) = self.unrest() {
            if self.check.violation.borrow().is_some() {
                return;
            }
            if self.executor.now() > bound {
                return self.check.fail(|| format!("it does not come to rest: {why}"));
            }
            self.advance(TICK).await;
        }
        // An instance that is dead and not published is also decided to be dead when its ttl has passed. Wait
        // for that.
        self.advance((mended + ttl * 5 / 4 + 1000).saturating_sub(self.executor.now()).max(500))
            .await;
        self.be_quiet(ttl).await;
        if let Some(why) = self.unrest() {
            self.check.fail(|| format!("it does not stay at rest: {why}"));
        }
        self.one_dies().await;
        self.many_go().await;
    }

    /// Waits for a ttl in which the operator writes nothing (P4).
    async fn be_quiet(&self, ttl: u64) {
        let bound = self.executor.now() + REPORTED + ttl * 2;
        while self.check.violation.borrow().is_none() {
            let (before, deaths) = (self.network.writes_of_operators(), self.check.deaths.get());
            self.advance(ttl).await;
            let after = self.network.writes_of_operators();
            // The time is not quiet if an unpublished instance is decided to be dead only now.
            let quiet = self.check.deaths.get() == deaths;
            if quiet && after.addresses > before.addresses {
                let writes = after.addresses - before.addresses;
                self.check.fail(|| format!("P4: {writes} writes while nothing happened"));
            }
            if quiet && after == before {
                return;
            }
            if self.executor.now() > bound {
                self.check.fail(|| "P4: the reports do not end".to_owned());
            }
        }
    }

    /// Returns what differs from the state that must be reached in the end.
    fn unrest(&self) -> Option<String> {
        // Wait until each process that waits for the answer to an old request has given up.
        if self.healthy_for.get() < self.calm {
            return Some("no replica leads with all watches healthy".to_owned());
        }
        for key in &self.registrations {
            let published = self.check.published(key);
            for workload in self.check.workloads() {
                let address = workload.ip();
                if workload.key != *key || workload.impostor {
                    continue;
                }
                if workload.lives() != published.contains(&address) {
                    let state = if workload.lives() { "lives" } else { "is dead" };
                    return Some(format!("{} {state}, published: {published:?}", workload.name));
                }
            }
            let alive = self.check.workloads();
            let alive: Vec<IpAddr> =
                alive.iter().filter(|one| one.key == *key).map(|one| one.ip()).collect();
            if self.network.server.store.borrow().get(SERVICES, key).is_none() {
                return Some(format!("Service {key} is missing"));
            }
            if let Some(why) = self.other_ports(key) {
                return Some(why);
            }
            if let Some(stranger) = published.iter().find(|address| !alive.contains(address)) {
                return Some(format!("{stranger} belongs to no instance"));
            }
        }
        None
    }

    /// A slice of the operator that does not have the ports of the spec.
    fn other_ports(&self, key: &Key) -> Option<String> {
        let wanted = self.spec(key).ports.first().map(|port| i32::from(port.port));
        let store = self.network.server.store.borrow();
        store.all(SLICES).filter(|it| it.service().as_ref() == Some(key)).find_map(|stored| {
            let slice = stored.object().slice()?;
            let port = slice.ports.iter().flatten().next().and_then(|port| port.port);
            (port != wanted).then(|| format!("{} has port {port:?}", stored.key()))
        })
    }

    /// The instances that must be published.
    fn living(&self) -> impl Iterator<Item = Rc<Workload>> + use<> {
        self.check.workloads().into_iter().filter(|one| one.lives() && !one.impostor)
    }

    /// Without faults, an instance that dies leaves at its deadline, with a tolerance of a fraction of a second
    /// (P2).
    async fn one_dies(&self) {
        let Some(victim) = self.living().next() else { return };
        if self.check.violation.borrow().is_some() {
            return;
        }
        self.check.tell(|| format!("{} dies on a quiet day", victim.name));
        victim.die();
        self.advance(10).await;
        let ttl = millis(self.spec(&victim.key).ttl);
        let Some(beat) = self.check.last_beat(&victim.lease()) else { return };
        let deadline = beat + ttl;
        self.advance((deadline + 150).saturating_sub(self.executor.now())).await;
        let published = self.check.published(&victim.key);
        if published.contains(&victim.ip()) {
            self.check.fail(|| {
                format!("P2: {} beat at {beat}, ttl {ttl}, and is still there", victim.name)
            });
        }
    }

    /// Without faults, some instances of a crowd fall silent, and others deregister at about the time of a
    /// deadline. Each must leave at its own moment, whatever else is decided then, and must not need another
    /// event to do so (P2).
    async fn many_go(&self) {
        let of = |key: &Key| self.living().filter(|one| one.key == *key).collect::<Vec<_>>();
        let crowd = self.registrations.iter().map(of).max_by_key(Vec::len).unwrap_or_default();
        if crowd.len() < CROWD || self.check.violation.borrow().is_some() {
            return;
        }
        // A third of the crowd stays, so that no path looks broken (L6).
        let (silent, rest) = crowd.split_at(crowd.len() / 3);
        let leaving = &rest[..crowd.len() / 3];
        self.check.tell(|| format!("of {} a third dies and a third leaves", crowd.len()));
        silent.iter().for_each(|one| one.die());
        self.advance(10).await;
        let ttl = millis(self.spec(&crowd[0].key).ttl);
        let last_beat = |one: &Rc<Workload>| self.check.last_beat(&one.lease());
        let deadlines: Vec<u64> =
            silent.iter().map(|one| last_beat(one).expect("it is published") + ttl).collect();
        for (one, deadline) in silent.iter().zip(&deadlines) {
            self.is_gone_by(one, deadline + AMONG_MANY);
        }
        let about = deadlines[self.random().index(deadlines.len())];
        for one in leaving {
            let at = self.random().between(about - 10, about + 10);
            let (this, leaver) = (self.rc(), one.clone());
            self.executor.after(at - self.executor.now(), move || {
                // Some Pods end without deregistering.
                if leaver.in_pod && this.random().percent(50) {
                    leaver.lose_pod();
                } else {
                    leave(&this, &leaver);
                }
            });
            self.is_gone_by(one, at + AMONG_MANY);
        }
        let last = deadlines.iter().max().copied().unwrap_or(about);
        self.advance(
            (last + 10 + AMONG_MANY).max(about + 10 + COLLECTED) + 1 - self.executor.now(),
        )
        .await;
        self.nobody_is_remembered_who_is_gone();
    }

    /// The leader keeps no memory of a Lease that no longer exists.
    fn nobody_is_remembered_who_is_gone(&self) {
        let store = self.network.server.store.borrow();
        for replica in self.replicas.borrow().iter().flatten() {
            if !self.check.leads_now(replica.process) {
                continue;
            }
            for lease in self.check.known_leases(replica.process) {
                if store.get(LEASES, &lease).is_none() {
                    self.check.fail(|| format!("P2: {lease} is gone, and still remembered"));
                }
            }
        }
    }

    /// Checks at that moment that the instance is no longer published.
    fn is_gone_by(&self, workload: &Rc<Workload>, moment: u64) {
        let (this, workload) = (self.rc(), workload.clone());
        self.executor.after(moment - self.executor.now(), move || {
            if this.check.published(&workload.key).contains(&workload.ip()) {
                this.check.fail(|| {
                    format!("P2: {} of a crowd is still there at {moment}", workload.name)
                });
            }
        });
    }
}
