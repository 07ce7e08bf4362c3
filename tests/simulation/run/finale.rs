//! How a schedule ends: all is mended, everything has to come to rest, and then a quiet day shows how soon
//! those who go are gone.

use std::{net::IpAddr, rc::Rc};

use beatkeeper_core::index::Key;

use super::{Run, TICK};
use crate::{
    controller::{Controller, millis},
    fault::{self, leave},
    object::Kind,
    workload::{COLLECTED_WITHIN, Workload},
};

/// Of a crowd so many at least, for some of each sort.
const CROWD: usize = 9;

/// How long after its moment somebody of a crowd may still be there, in milliseconds: some runs that are busy with
/// others, each of a read, a proof and a write.
const AMONG_MANY: u64 = 400;

/// By then the garbage collector has taken the Lease of a Pod that is gone, and whoever leads has seen it.
const COLLECTED: u64 = COLLECTED_WITHIN + AMONG_MANY;

impl Run {
    /// Faults stop. Within a bound everybody who lives is published and nobody else; then nothing is
    /// written any more; and who dies then leaves at its deadline.
    pub(super) fn calm_down(&self) {
        if self.check.violation.borrow().is_some() {
            return;
        }
        self.check.tell(|| "all is mended".to_owned());
        self.stormy.set(false);
        self.setup.stale_lists.set(0);
        self.network.mend_everything();
        for place in 0..self.places {
            self.controller(place).iter().for_each(|known| self.executor.resume(known.process));
            self.start_controller(place);
        }
        for workload in self.check.workloads() {
            workload.process.get().into_iter().for_each(|process| self.executor.resume(process));
            fault::restore(&self.rc(), &workload.lease());
        }
        for (n, key) in self.registrations.iter().enumerate() {
            fault::remove_foreign_slice(&self.rc(), key);
            self.edit(n, |spec| spec.protection = None);
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
            self.advance(TICK);
        }
        // Who is not published and dead is called so when its ttl has passed, too.
        self.advance((mended + ttl * 5 / 4 + 1000).saturating_sub(self.executor.now()).max(500));
        let written = loop {
            let (before, deaths) = (self.network.writes_of_controllers(), self.check.deaths.get());
            self.advance(ttl);
            // That somebody who was not published is called dead only now is something that happens.
            let quiet = self.check.deaths.get() == deaths;
            if quiet || self.check.violation.borrow().is_some() {
                break self.network.writes_of_controllers() - before;
            }
        };
        if written > 0 {
            self.check.fail(|| format!("P4: {written} writes while nothing happened"));
        }
        if let Some(why) = self.unrest() {
            self.check.fail(|| format!("it does not stay at rest: {why}"));
        }
        self.one_dies();
        self.many_go();
    }

    /// What is not yet as it has to be in the end.
    fn unrest(&self) -> Option<String> {
        // Until whoever waits for the answer to an old request has given up.
        if self.healthy_for.get() < self.calm {
            return Some("nobody leads with all in sight".to_owned());
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
            if let Some(stranger) = published.iter().find(|address| !alive.contains(address)) {
                return Some(format!("{stranger} is nobody's"));
            }
        }
        None
    }

    /// Those who are to be published.
    fn living(&self) -> impl Iterator<Item = Rc<Workload>> + use<> {
        self.check.workloads().into_iter().filter(|one| one.lives() && !one.impostor)
    }

    /// Without faults an instance that dies leaves at its deadline, to a fraction of a second (P2).
    fn one_dies(&self) {
        let Some(victim) = self.living().next() else { return };
        if self.check.violation.borrow().is_some() {
            return;
        }
        self.check.tell(|| format!("{} dies on a quiet day", victim.name));
        victim.die();
        self.advance(10);
        let ttl = millis(self.spec(&victim.key).ttl);
        let Some(beat) = self.check.last_beat(&victim.lease()) else { return };
        let deadline = beat + ttl;
        self.advance((deadline + 150).saturating_sub(self.executor.now()));
        let published = self.check.published(&victim.key);
        if published.contains(&victim.ip()) {
            self.check.fail(|| {
                format!("P2: {} beat at {beat}, ttl {ttl}, and is still there", victim.name)
            });
        }
    }

    /// Without faults some of a crowd fall silent, and others deregister about when a deadline passes. Each leaves at
    /// its own moment, whatever else is decided then, and nothing more has to happen for it (P2).
    fn many_go(&self) {
        let of = |key: &Key| self.living().filter(|one| one.key == *key).collect::<Vec<_>>();
        let crowd = self.registrations.iter().map(of).max_by_key(Vec::len).unwrap_or_default();
        if crowd.len() < CROWD || self.check.violation.borrow().is_some() {
            return;
        }
        // A third stays, so that no path looks broken (L6).
        let (silent, rest) = crowd.split_at(crowd.len() / 3);
        let leaving = &rest[..crowd.len() / 3];
        self.check.tell(|| format!("of {} a third dies and a third leaves", crowd.len()));
        silent.iter().for_each(|one| one.die());
        self.advance(10);
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
                // Some Pods go without a word.
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
        );
        self.nobody_is_remembered_who_is_gone();
    }

    /// Whoever leads keeps no memory of a Lease that is not there.
    fn nobody_is_remembered_who_is_gone(&self) {
        let api = self.network.api.borrow();
        let controllers = self.controllers.borrow();
        let leads = |it: &&Rc<Controller>| self.check.leads_now(it.process);
        for lease in controllers.iter().flatten().filter(leads).flat_map(|it| it.known_leases()) {
            if api.get(Kind::Lease, &lease).is_none() {
                self.check.fail(|| format!("P2: {lease} is gone, and still remembered"));
            }
        }
    }

    /// Looks at that moment whether somebody is still published.
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
