//! The heart: random schedules of beats, deaths, lost, repeated and reordered events, relists, live
//! reads, restarts and decisions, against the promises P1, P2 and P3. The API server of this little
//! world is a list of Leases; time is a number. proptest prints the schedule of a failure, as short
//! as it can make it.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::{
    schedule::{Op, op},
    *,
};
use crate::core::index::Presence;

const TTL: u64 = 30_000;
pub(super) const INSTANCES: usize = 4;

/// A Lease as the API server has it, and the process behind it.
struct Instance {
    lease: Option<Heartbeat>,
    labelled: bool,
    alive: bool,
    next_beat: u64,
}

#[expect(clippy::large_enum_variant, reason = "a handful of them")]
enum Event {
    Applied(Heartbeat),
    Deleted(Key, Version),
}

struct Sim {
    now: u64,
    version: u64,
    beats: i64,
    /// The pauses between beats, in turn: any up to ttl.
    pauses: Vec<u64>,
    instances: Vec<Instance>,
    events: Vec<Event>,
    /// Live reads under way: of which Lease, what was found, and when it was sent.
    reads: Vec<(usize, LiveRead, u64)>,
    world: World,
    index: Index,
    wake: Option<Moment>,
    /// Who was alive and published at the last decision that stood.
    published: BTreeSet<usize>,
}

fn name(n: usize) -> String {
    format!("vm-{n}")
}

fn lease_of(n: usize) -> Key {
    key(&format!("greeter.{}", name(n)))
}

impl Sim {
    fn new(pauses: Vec<u64>) -> Self {
        let mut sim = Self {
            now: 0,
            version: 0,
            beats: 0,
            pauses,
            instances: Vec::new(),
            events: Vec::new(),
            reads: Vec::new(),
            world: World::new(),
            index: Index::default(),
            wake: None,
            published: BTreeSet::new(),
        };
        for n in 0..INSTANCES {
            sim.instances.push(Instance {
                lease: None,
                labelled: true,
                alive: false,
                next_beat: 0,
            });
            sim.recreate(n);
        }
        sim.restart();
        sim
    }

    fn run(&mut self, op: Op) {
        self.advance(self.now + 1);
        match op {
            Op::Advance(millis) => self.advance(self.now + millis),
            Op::ToWake => {
                if let Some(wake) = self.wake {
                    let wake = u64::try_from(wake.since(at(0)).as_millis()).expect("small");
                    self.advance(wake.max(self.now));
                }
            }
            Op::Kill(n) => self.kill(n),
            Op::Delete(n) => {
                self.kill(n);
                if self.instances[n].lease.take().is_some() && self.instances[n].labelled {
                    self.version += 1;
                    self.events.push(Event::Deleted(lease_of(n), Version(self.version)));
                }
            }
            Op::Recreate(n) => self.recreate(n),
            Op::Strip(n) => self.label(n, false),
            Op::Restore(n) => self.label(n, true),
            Op::Deliver(n) => self.deliver(n, true),
            Op::Repeat(n) => self.deliver(n, false),
            Op::Lose(n) => {
                if n < self.events.len() {
                    self.events.remove(n);
                }
            }
            Op::Relist => self.list(),
            Op::Send(n) => {
                let read = match &self.instances[n].lease {
                    Some(lease) => LiveRead::Found(lease.clone()),
                    None => LiveRead::Absent,
                };
                self.reads.push((n, read, self.now));
            }
            Op::Answer(n) => {
                if n < self.reads.len() {
                    let (who, read, sent) = self.reads.remove(n);
                    self.world.unreadable.remove(&*lease_of(who).name);
                    self.index.confirm(&lease_of(who), read, at(sent), at(self.now));
                }
            }
            Op::Fail(n) => {
                self.world.unreadable.insert(lease_of(n).name.into(), "refused".to_owned());
            }
            Op::Decide(slip) => {
                self.decide(slip);
            }
            Op::Restart => self.restart(),
        }
    }

    fn advance(&mut self, to: u64) {
        while let Some((due, n)) = (0..INSTANCES)
            .filter(|&n| self.instances[n].alive)
            .map(|n| (self.instances[n].next_beat, n))
            .min()
            .filter(|(due, _)| *due <= to)
        {
            self.now = due;
            self.beat(n);
        }
        self.now = to;
    }

    fn beat(&mut self, n: usize) {
        self.version += 1;
        self.beats += 1;
        // Clocks that step back and forth are no news: no two tokens are equal, that is all.
        let renewed = if self.beats % 3 == 0 { -self.beats } else { self.beats };
        let pause = self.pauses[usize::try_from(self.beats).expect("small") % self.pauses.len()];
        let instance = &mut self.instances[n];
        instance.next_beat = self.now + pause;
        let Some(lease) = &mut instance.lease else { return };
        lease.token.renewed = Some(renewed);
        lease.version = Version(self.version);
        if instance.labelled {
            self.events.push(Event::Applied(lease.clone()));
        }
    }

    fn kill(&mut self, n: usize) {
        self.instances[n].alive = false;
        self.published.remove(&n);
    }

    fn recreate(&mut self, n: usize) {
        if self.instances[n].lease.is_some() {
            return;
        }
        let mut lease = beat(&name(n), 0, 0);
        lease.claim.addresses = vec![format!("192.0.2.{n}")];
        lease.token.uid = format!("uid-{}", self.version).into();
        let instance = &mut self.instances[n];
        (instance.lease, instance.labelled, instance.alive) = (Some(lease), true, true);
        self.beat(n);
    }

    fn label(&mut self, n: usize, labelled: bool) {
        let instance = &mut self.instances[n];
        let Some(lease) = &mut instance.lease else { return };
        if instance.labelled == labelled {
            return;
        }
        self.version += 1;
        instance.labelled = labelled;
        lease.version = Version(self.version);
        lease.registration = labelled.then(|| "greeter".to_owned());
        self.events.push(match labelled {
            true => Event::Applied(lease.clone()),
            false => Event::Deleted(lease_of(n), lease.version),
        });
    }

    fn deliver(&mut self, n: usize, last_time: bool) {
        let Some(event) = self.events.get(n) else { return };
        match event {
            Event::Applied(beat) => {
                self.index.observe("shop", beat.clone(), at(self.now));
            }
            Event::Deleted(lease, version) => {
                self.index.observe_deleted(lease, *version);
            }
        }
        if last_time {
            self.events.remove(n);
        }
    }

    fn list(&mut self) {
        self.index.begin_list();
        for instance in self.instances.iter().filter(|instance| instance.labelled) {
            if let Some(lease) = &instance.lease {
                self.index.observe("shop", lease.clone(), at(self.now));
            }
        }
        self.index.end_list();
    }

    fn restart(&mut self) {
        for n in 0..INSTANCES {
            // Without its label no newcomer can find it: that is a person's doing, not silence.
            self.label(n, true);
        }
        self.index = Index::default();
        self.events.clear();
        self.reads.clear();
        self.world.unreadable.clear();
        self.list();
    }

    /// Decides, checks the promises, and publishes what was decided if it stands.
    fn decide(&mut self, slip: Option<usize>) -> Vec<Verdict> {
        let verdicts = self.world.decide(&self.index, at(self.now));
        if let Some(n) = slip {
            self.deliver(n, true);
        }
        let stands = settle(&mut self.index, &verdicts, at(self.now));
        assert!(stands || slip.is_some(), "without a beat in between a decision stands");
        for verdict in &verdicts {
            let n: usize = verdict.instance[3..].parse().expect("a number");
            if self.lives(n, verdict) {
                assert_ne!(verdict.state.as_str(), "Expired", "P1: {n} beats: {verdict:?}");
            }
        }
        self.wake = verdicts.iter().filter_map(|verdict| verdict.look_again).min();
        if stands {
            let mut published = BTreeSet::new();
            self.world.published.clear();
            for verdict in verdicts.iter().filter(|verdict| verdict.is_published()) {
                let n: usize = verdict.instance[3..].parse().expect("a number");
                self.world.published.extend(
                    verdict.placement.iter().flat_map(|placement| placement.addresses.clone()),
                );
                if self.lives(n, verdict) {
                    published.insert(n);
                }
            }
            assert!(published.is_superset(&self.published), "P3: {:?} blinked", self.published);
            self.published = published;
        }
        verdicts
    }

    /// Whether a verdict is about an instance that beats, and not about an earlier Lease of its name,
    /// whose deletion may still have to take effect.
    fn lives(&self, n: usize, verdict: &Verdict) -> bool {
        let judged = verdict.lease.as_ref().map(|lease| &lease.settled.token.uid);
        let present = self.instances[n].lease.as_ref().map(|lease| &lease.token.uid);
        self.instances[n].alive && judged == present
    }

    /// Reads whatever a verdict asks for, and takes the answers in.
    fn read_suspects(&mut self, verdicts: &[Verdict]) {
        for suspect in
            verdicts.iter().filter_map(|verdict| verdict.lease.as_ref()?.suspect.as_ref())
        {
            let n: usize = suspect.lease["greeter.vm-".len()..].parse().expect("a number");
            let read = match &self.instances[n].lease {
                Some(lease) => LiveRead::Found(lease.clone()),
                None => LiveRead::Absent,
            };
            self.index.confirm(&lease_of(n), read, at(self.now), at(self.now));
        }
    }

    /// From here on all works as it should: the dead expire at their deadline to the millisecond,
    /// the living stay (P2).
    fn calm_down(&mut self) {
        self.advance(self.now + 1);
        // The beats of a Lease without its label are seen by live reads only, one a ttl: it may
        // outlive its last beat by two.
        (0..INSTANCES).for_each(|n| self.label(n, true));
        self.events.clear();
        self.reads.clear();
        self.world.unreadable.clear();
        self.list();
        let verdicts = self.decide(None);
        self.read_suspects(&verdicts);
        let due: HashMap<String, Moment> = self
            .index
            .snapshot(&key("greeter"))
            .iter()
            .filter(|record| record.expired_at.is_none())
            .map(|record| {
                (
                    record.lease.to_string(),
                    (record.seen + self.world.ttl.at(record.seen)).max(at(self.now)),
                )
            })
            .collect();
        let end = self.now + TTL;
        loop {
            let verdicts = self.decide(None);
            self.read_suspects(&verdicts);
            for verdict in self.decide(None) {
                let n: usize = verdict.instance[3..].parse().expect("a number");
                let Some(&due) = due.get(&lease_of(n).name) else { continue };
                let expired = verdict.state.as_str() == "Expired";
                let expected = !self.instances[n].alive && at(self.now) >= due;
                assert_eq!(expired, expected, "P2 at {}: due {due:?}: {verdict:?}", self.now);
            }
            let wake = self
                .wake
                .map_or(end, |wake| u64::try_from(wake.since(at(0)).as_millis()).expect("small"));
            assert!(wake > self.now || self.now >= end, "a decision must not spin");
            if self.now >= end {
                break;
            }
            self.advance(wake.min(end));
            // The watch keeps up again.
            while !self.events.is_empty() {
                self.deliver(0, true);
            }
        }
        for (n, instance) in self.instances.iter().enumerate() {
            let records = self.index.snapshot(&key("greeter"));
            let record = records.iter().find(|record| *record.lease == lease_of(n).name);
            let kept = record.is_some_and(|record| record.presence != Presence::Missing);
            assert!(kept == instance.lease.is_some() || !instance.labelled, "{n}: {record:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 768,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_the_schedule_the_living_are_never_pruned_and_the_dead_are_to_the_millisecond(
        pauses in vec(1_000..=TTL, 1..8),
        schedule in vec(op(), 0..120),
    ) {
        let mut sim = Sim::new(pauses);
        for op in schedule {
            sim.run(op);
        }
        sim.calm_down();
    }

    #[test]
    fn whoever_beats_exactly_every_ttl_is_never_pruned(schedule in vec(op(), 0..80)) {
        let mut sim = Sim::new(vec![TTL]);
        for op in schedule {
            sim.run(op);
        }
        sim.calm_down();
    }
}
