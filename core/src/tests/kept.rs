//! A decision that is made of what has changed equals the one about all instances, whatever has happened.

use std::{collections::BTreeSet, time::Duration};

use proptest::{collection::vec, prelude::*};

mod carried;
mod events;
mod steady;

use events::{DECLARED, Event, INSTANCES, PodIs, event};

use super::*;
use crate::{
    carriers::silence::{Finding, Held},
    cluster_cache::ClusterCache,
    decide::{compare, gateways::Findings, kept::KeptDecision, premise::Premise, verdict::Suspect},
    inputs::seen::SeenObjects,
    liveness::{
        index::{CarrierId, Delivery, Presence},
        outage_guard::OutageGuard,
        proven_time::{Gap, ProvenTime},
    },
};

/// A registration with its instances, and the decision that is kept.
struct Course {
    world: World,
    index: Index,
    cluster: ClusterCache,
    /// One is asked about all records, the other one as a kept decision asks it.
    guards: [OutageGuard; 2],
    path: ProvenTime,
    now: u64,
    version: u64,
    beats: Vec<Heartbeat>,
    /// The last decision about all.
    verdicts: Vec<Verdict>,
    kept: Option<KeptDecision>,
    /// What was published at the last decision, and the Pods that have changed since.
    published: AddressSet,
    pods: BTreeSet<String>,
    /// Whether the operator hears gateways, and whether the stream of the only one is broken.
    has_gateways: bool,
    is_cut: bool,
    /// How many decisions were made of what has changed.
    renewed: usize,
}

fn name(who: usize) -> String {
    format!("vm-{who:02}")
}

fn spec(ttl: u64, min_ready: usize) -> Value {
    json!({
        "ttl": format!("{ttl}s"), "interval": "10s",
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
        "podSelector": { "matchLabels": { "app": "greeter" } },
        "protection": { "minReady": min_ready },
        "instances": [{ "name": name(DECLARED), "addresses": ["192.0.2.2"] }],
    })
}

impl Course {
    fn begin() -> Self {
        let world = World::with(spec(30, 0));
        let mut cluster = ClusterCache::default();
        cluster.put_registration(&object(spec(30, 0)));
        let beats = (0..INSTANCES).map(|who| match who {
            // Two of them share an address.
            0..6 => {
                let mut beat = beat(&name(who), 1, 1);
                let address = format!("192.0.2.{}", who.min(4) + 1);
                beat.content.addresses = vec![address.as_str().into()];
                beat
            }
            _ => pod_beat(&name(who), 1, 1),
        });
        let mut course = Self {
            world,
            index: index(),
            cluster,
            guards: Default::default(),
            path: ProvenTime::default(),
            now: 1_000,
            version: 1,
            beats: beats.collect(),
            verdicts: Vec::new(),
            kept: None,
            published: AddressSet::new(),
            pods: BTreeSet::new(),
            has_gateways: false,
            is_cut: false,
            renewed: 0,
        };
        for who in INSTANCES / 2..INSTANCES {
            course.pod(who, PodIs::Ready);
        }
        course
    }

    fn lease(who: usize) -> Key {
        key(&format!("greeter.{}", name(who)))
    }

    fn show(&mut self, who: usize) {
        self.version += 1;
        self.beats[who].version = Version(self.version);
        self.index.observe("shop", self.beats[who].clone(), at(self.now));
    }

    fn beat(&mut self, who: usize) {
        let renewed = self.beats[who].token.renewed.unwrap_or_default() + 1;
        self.beats[who].token.renewed = Some(renewed);
        self.show(who);
    }

    fn forget(&mut self, who: usize) {
        self.beats[who].token.renewed = None;
        self.show(who);
    }

    fn pod(&mut self, who: usize, is: PodIs) {
        let name = name(who);
        self.pods.insert(name.clone());
        let mut json = ready_pod(&name, &[&format!("10.88.0.{}", who + 1)]);
        match is {
            PodIs::Ready => {}
            PodIs::NotReady => json["status"]["conditions"] = json!([]),
            PodIs::Deleting => {
                json["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()
            }
            PodIs::Replaced => json["metadata"]["uid"] = "another".into(),
            PodIs::Gone => {
                self.world.pods.remove(&name);
                return;
            }
        }
        self.world.pods.insert(name, Arc::new(pod(json)));
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Wait(millis) => self.now += millis,
            Event::Beat(who) => self.beat(who),
            Event::Carry(who, delivery) => self.carry(who, delivery),
            Event::Cut(is) => self.is_cut = is,
            Event::Forget(who) => self.forget(who),
            Event::AllBeat(but) => {
                self.now += 3_000;
                (0..INSTANCES).filter(|who| !but.contains(who)).for_each(|who| self.beat(who));
            }
            Event::Health(who, health) => {
                self.beats[who].content.health = Ok(health);
                self.beat(who);
            }
            Event::Cordon(who, is) => {
                self.beats[who].content.cordoned = is.then(|| "looked at".to_owned());
                self.show(who);
            }
            Event::Unlabel(_)
            | Event::Vanish(_)
            | Event::Absent(_)
            | Event::Deleting(_)
            | Event::Move(_) => self.lose(event),
            Event::Pod(who, is) => self.pod(who, is),
            Event::Publish => {
                let wanted = self.verdicts.iter().filter(|verdict| verdict.is_published());
                let placed = wanted.filter_map(|verdict| verdict.placement.as_ref());
                self.world.published = placed.flat_map(|it| it.addresses.clone()).collect();
            }
            Event::Toggle(who) => {
                let net = if who < INSTANCES / 2 { "192.0.2" } else { "10.88.0" };
                let address = format!("{net}.{}", who + 1).parse().expect("an address");
                if !self.world.published.remove(&address) {
                    self.world.published.insert(address);
                }
            }
            Event::Read => self.read(),
            Event::Ttl(ttl) => self.edit(ttl),
            Event::MinReady(least) => self.world.registration.min_ready = least,
            Event::Gap(millis) => {
                let from = at(self.now);
                self.now += millis;
                self.path.note(Gap { from, to: at(self.now) });
            }
            Event::Rollback => {
                self.index.reset_after_rollback(at(self.now));
                self.index.begin_list();
                (0..INSTANCES).for_each(|who| self.show(who));
                self.index.end_list();
            }
            Event::Relist(but) => {
                self.index.begin_list();
                (0..INSTANCES).filter(|who| !but.contains(who)).for_each(|who| self.show(who));
                self.index.end_list();
            }
            Event::Term => self.world.term_began = at(self.now),
            Event::Decide(beats) => self.decide(beats)?,
        }
        Ok(())
    }

    fn edit(&mut self, ttl: u64) {
        let min_ready = self.world.registration.min_ready;
        self.world.registration = Registration::validate(&object(spec(ttl, min_ready)));
        self.world.ttl.set(Duration::from_secs(ttl), at(self.now));
        self.cluster.put_registration(&object(spec(ttl, min_ready)));
    }

    /// A Lease goes, or seems to.
    fn lose(&mut self, event: Event) {
        match event {
            Event::Unlabel(who) => {
                self.version += 1;
                let mut beat = self.beats[who].clone();
                beat.registration = None;
                beat.version = Version(self.version);
                let (lease, now) = (Self::lease(who), at(self.now));
                self.index.confirm(&lease, LiveRead::Found(beat), now, now);
            }
            Event::Vanish(who) => {
                self.version += 1;
                self.index.observe_deleted(&Self::lease(who), Version(self.version));
            }
            Event::Absent(who) => {
                self.index.observe_deleted(&Self::lease(who), Version(self.version + 1));
                self.version += 1;
                self.now += 1;
                let (lease, now) = (Self::lease(who), at(self.now));
                self.index.confirm(&lease, LiveRead::Absent, now, now);
            }
            Event::Deleting(who) => {
                self.beats[who].content.deleting = true;
                self.show(who);
                self.beats[who].content.deleting = false;
            }
            Event::Move(who) => {
                self.beats[who].registration = Some("elsewhere".to_owned());
                self.show(who);
                self.beats[who].registration = Some("greeter".to_owned());
            }
            _ => {}
        }
    }

    fn read(&mut self) {
        for Suspect { lease, .. } in Suspect::of(&self.verdicts) {
            let who = lease.rsplit('-').next().and_then(|end| end.parse::<usize>().ok());
            let beat = self.beats[who.expect("one of ours")].clone();
            let read = match self.index.record(&key("greeter"), &lease) {
                Some(record) if record.presence == Presence::Missing => LiveRead::Absent,
                _ => LiveRead::Found(beat),
            };
            self.now += 1;
            self.index.confirm(&key(&lease), read, at(self.now), at(self.now));
        }
    }

    fn evidence(&self, guard: usize) -> Evidence {
        let proven = self.guards[guard].proven_time(&self.path, &key("greeter"));
        let probed = Some(at(u64::MAX));
        Evidence { path: self.path.clone(), proven, probed, ..Evidence::default() }
    }

    fn ask(&mut self, guard: usize, records: &[Record], beating: Option<usize>) -> Evidence {
        let World { registration, ttl, .. } = &self.world;
        let (evidence, now) = (self.evidence(guard), at(self.now));
        let (guard, index, cluster) = (&mut self.guards[guard], &self.index, &self.cluster);
        evidence.ask(guard, registration, ttl, records, beating, index, cluster, now)
    }

    fn overdue_after(&self) -> Duration {
        self.world.registration.overdue_after(self.world.ttl.current())
    }

    /// Decides about all. The decision is made of the kept one, too, if there is one.
    fn decide(&mut self, beats: Option<usize>) -> Result<(), TestCaseError> {
        let (greeter, now) = (key("greeter"), at(self.now));
        let records = self.index.records_of(&greeter);
        let missing = records.iter().filter(|record| record.presence == Presence::Missing);
        let missing: Vec<_> = missing.map(|record| record.lease.clone()).collect();
        prop_assert_eq!(self.index.missing(&greeter).cloned().collect::<Vec<_>>(), missing);
        let evidence = self.ask(0, &records, None);
        let with_gateways = Evidence { gateways: self.findings(&records), ..evidence.clone() };
        let all = self.world.with_facts(&records, &with_gateways, now, decide);
        let premise = self.world.with_facts(&[], &Evidence::default(), now, Premise::of);
        let premise = premise.expect("nothing special");
        let before = std::mem::replace(&mut self.published, self.world.published.clone());
        let moved: Vec<IpAddr> = before.symmetric_difference(&self.published).copied().collect();
        let pods = std::mem::take(&mut self.pods);
        let kept = self.kept.take().filter(|kept| kept.rests_on(&premise));
        let unsettled = kept.and_then(|kept| {
            let mut others = kept.leases_at(&moved);
            let pods = pods.iter().map(|pod| key(pod)).collect::<Vec<_>>();
            let of_pods = pods.iter().flat_map(|pod| self.index.leases_in_pod(&greeter, pod));
            others.extend(of_pods);
            let late = now - self.overdue_after();
            Some((self.index.unsettled(&greeter, kept.ticket(), others, late)?, kept))
        });
        match unsettled {
            Some((unsettled, kept)) => {
                let (leases, records) = (unsettled.leases, unsettled.records);
                self.renew(kept, &leases, &records, (&all, &evidence), beats)?;
            }
            None => {
                self.ask(1, &records, None);
                let (records, ticket) = self.index.follow(&greeter);
                let committed = commit(&mut self.index, &all, now);
                prop_assert_eq!(committed, CommitResult::Accepted);
                let (kept, standings) = KeptDecision::new(
                    &self.world.registration,
                    &records,
                    premise,
                    ticket,
                    SeenObjects::default(),
                    all.clone(),
                );
                let standings = standings.iter().map(|(lease, standing)| (lease, *standing));
                self.index.settle(&greeter, ticket, standings);
                self.kept = Some(kept);
            }
        }
        self.verdicts = all;
        Ok(())
    }

    fn renew(
        &mut self,
        mut kept: KeptDecision,
        leases: &BTreeSet<Arc<str>>,
        records: &[Record],
        (all, of_all): (&[Verdict], &Evidence),
        beats: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let (greeter, now, ticket) = (key("greeter"), at(self.now), kept.ticket());
        kept.reopen(leases, "greeter");
        let evidence = self.ask(1, records, kept.beating(self.overdue_after()));
        prop_assert_eq!(&evidence, of_all);
        let evidence = Evidence { gateways: self.findings(records), ..evidence };
        let renewed =
            self.world.with_facts(records, &evidence, now, |facts| kept.decide(facts, leases));
        if let Some(who) = beats {
            self.beat(who);
        }
        let result = self.index.commit_changed(&greeter, ticket, renewed.decisions(), now);
        prop_assert!(beats.is_some() || result == CommitResult::Accepted);
        if result == CommitResult::Overtaken {
            self.kept = Some(kept);
            return Ok(());
        }
        self.index.settle(&greeter, ticket, renewed.standings());
        let mut suspects = renewed.suspects();
        suspects.sort_by(|a, b| a.lease.cmp(&b.lease));
        prop_assert_eq!(suspects, Suspect::of(all));
        kept.renew(renewed, "greeter");
        let late_at = self.index.oldest_beat(&greeter, ticket);
        let late_at = late_at.map(|seen| seen + self.overdue_after());
        let difference = match beats {
            None => compare::difference(kept.verdicts(), late_at, all),
            Some(_) => None,
        };
        prop_assert_eq!(difference, None);
        for record in self.index.records_of(&greeter) {
            let decisions = all.iter().filter_map(Verdict::lease_decision);
            let decision = decisions.into_iter().find(|decision| decision.lease == record.lease);
            let is_published = decision.is_some_and(|decision| decision.outcome.is_published());
            prop_assert_eq!(record.published, is_published, "{}", record.lease);
        }
        self.kept = Some(kept);
        self.renewed += 1;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_decision_made_of_what_has_changed_is_the_one_about_all(
        events in vec(event(), 1..120),
        has_gateways in any::<bool>(),
    ) {
        let mut course = Course { has_gateways, ..Course::begin() };
        for event in events {
            course.happen(event)?;
        }
        course.decide(None)?;
    }
}
