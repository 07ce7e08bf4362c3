//! Virtual time for a crowd: instances beat, die and come back, and the core decides when it asks to be looked at or is
//! woken, as the controller has it do. Nothing is written anywhere: what is decided counts as published at once.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::time::{Duration, Instant};

use beatkeeper_core::address::AddressSet;
use beatkeeper_core::heartbeat::Heartbeat;
use beatkeeper_core::index::{Index, Key, LiveRead, Record, Settled, Settlement};
use beatkeeper_core::moment::Moment;
use beatkeeper_core::verdict::{Suspect, Verdict};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::crowd::{Crowd, NAMESPACE, Size, address, beat, service_key};
use crate::scene::{Setting, next_deadline};

/// Time goes on in steps of so many milliseconds; decisions are taken at their own moments in between.
const STEP: u64 = 10;
const MINUTE: u64 = 60_000;

/// What a crowd does.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Seconds of silence after which one counts as dead.
    pub ttl: u64,
    /// Seconds between two beats.
    pub interval: u64,
    /// So many in a thousand die each minute, and come back within a minute after their ttl.
    pub deaths: u64,
}

impl Habits {
    /// In milliseconds.
    fn ttl(self) -> u64 {
        self.ttl * 1_000
    }
}

/// What was played so far.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// Beats that the index took in.
    pub beats: u64,
    /// How many of them were the first of an instance that came back.
    pub births: u64,
    /// Decisions about one service each.
    pub decisions: u64,
    /// Beats that had a decision taken.
    pub woken: u64,
    /// Instances that died.
    pub deaths: u64,
    /// How many of them had their deadline before the end.
    pub due: u64,
    /// Instances that were pruned.
    pub prunes: u64,
    /// How many of them lived, or had time left (P1).
    pub false_prunes: u64,
    /// How many of them had been due at an earlier moment (P2).
    pub late_prunes: u64,
    /// What taking in the beats took of real time.
    pub observing: Duration,
    /// What the decisions took.
    pub deciding: Duration,
}

/// What is true of an instance, whatever the core thinks.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// When it beat last, in milliseconds.
    beat: u64,
    /// Until when it is dead, if it is.
    dead_until: Option<u64>,
    /// How often it has come back.
    returns: u32,
}

/// A service, and when it asked to be looked at again.
struct Service {
    setting: Setting,
    next: Option<Moment>,
}

/// A crowd that lives in virtual time.
pub struct Hour {
    index: Index,
    size: Size,
    services: Vec<Service>,
    /// Outdated ones are left in, and passed over.
    timers: BinaryHeap<Reverse<(Moment, usize)>>,
    lives: Vec<Life>,
    /// Who beats in which step of an interval.
    phases: Vec<Vec<usize>>,
    habits: Habits,
    random: StdRng,
    /// What has happened.
    pub played: Played,
}

impl Hour {
    /// Of this crowd with these habits.
    pub fn new(crowd: Crowd, habits: Habits) -> Self {
        let Crowd { index, size, beats } = crowd;
        let mut random = StdRng::seed_from_u64(0);
        let mut phases = vec![Vec::new(); (habits.interval * 1_000 / STEP) as usize];
        for instance in 0..size.instances {
            let phase = random.random_range(0..phases.len());
            phases[phase].push(instance);
        }
        let start = Moment::from_millis(beats);
        let service = |service| {
            let [ttl, interval] = [habits.ttl, habits.interval].map(|span| format!("{span}s"));
            let setting = Setting::new(&service_key(service), &ttl, &interval);
            Service { setting, next: Some(start) }
        };
        Self {
            index,
            size,
            services: (0..size.services).map(service).collect(),
            timers: (0..size.services).map(|service| Reverse((start, service))).collect(),
            lives: vec![Life { beat: beats, dead_until: None, returns: 0 }; size.instances],
            phases,
            habits,
            random,
            played: Played::default(),
        }
    }

    /// Plays from the beginning to this moment of virtual time.
    pub fn play(&mut self, length: Duration) {
        let end = length.as_millis() as u64;
        let mut to_die = 0;
        for now in (STEP..=end).step_by(STEP as usize) {
            self.look(Moment::from_millis(now));
            to_die += self.size.instances as u64 * self.habits.deaths * STEP;
            while to_die >= 1_000 * MINUTE {
                to_die -= 1_000 * MINUTE;
                self.kill(now, end);
            }
            for service in self.beat(now) {
                self.decide(service, Moment::from_millis(now));
            }
        }
    }

    /// Decides about the services that have asked for it by now, each at its moment.
    fn look(&mut self, now: Moment) {
        while let Some(&Reverse((moment, service))) = self.timers.peek()
            && moment <= now
        {
            self.timers.pop();
            if self.services[service].next == Some(moment) {
                self.decide(service, moment);
            }
        }
    }

    fn kill(&mut self, now: u64, end: u64) {
        let life = &mut self.lives[self.random.random_range(0..self.size.instances)];
        if life.dead_until.is_none() {
            life.dead_until = Some(now + self.habits.ttl() + self.random.random_range(0..MINUTE));
            self.played.deaths += 1;
            self.played.due += u64::from(life.beat + self.habits.ttl() <= end);
        }
    }

    /// All whose turn it is beat, and the index takes that in. Returns the services that this woke.
    fn beat(&mut self, now: u64) -> BTreeSet<usize> {
        let phase = (now / STEP) as usize % self.phases.len();
        let mut beats = Vec::with_capacity(self.phases[phase].len());
        for &instance in &self.phases[phase] {
            let life = &mut self.lives[instance];
            if let Some(until) = life.dead_until {
                if now < until {
                    continue;
                }
                life.dead_until = None;
                life.returns += 1;
                self.played.births += 1;
            }
            life.beat = now;
            beats.push(self.read(instance));
        }
        self.played.beats += beats.len() as u64;
        let mut wake = Vec::new();
        let now = Moment::from_millis(now);
        let began = Instant::now();
        for beat in beats {
            wake.extend(self.index.observe(NAMESPACE, beat, now).wake);
        }
        self.played.observing += began.elapsed();
        self.played.woken += wake.len() as u64;
        wake.iter().filter_map(|key| number(&key.name)).collect()
    }

    /// The Lease of an instance as the API server has it.
    fn read(&self, instance: usize) -> Heartbeat {
        let Life { beat: last, returns, .. } = self.lives[instance];
        let mut read = beat(instance % self.size.services, instance, last);
        if returns > 0 {
            read.token.uid = format!("{}-{returns}", read.token.uid).into();
        }
        read
    }

    /// Decides as the controller does: who would be pruned is read live first.
    fn decide(&mut self, service: usize, now: Moment) {
        let began = Instant::now();
        self.played.decisions += 1;
        let mut verdicts = self.judge(service, now);
        let suspects = Suspect::of(&verdicts);
        for suspect in &suspects {
            let read = number(&suspect.lease).map(|instance| LiveRead::Found(self.read(instance)));
            let lease = Key::new(NAMESPACE, &*suspect.lease);
            self.index.confirm(&lease, read.expect("one of ours"), now, now);
        }
        if !suspects.is_empty() {
            verdicts = self.judge(service, now);
        }
        let next = next_deadline(&verdicts);
        self.services[service].next = next;
        self.timers.extend(next.map(|next| Reverse((next, service))));
        self.played.deciding += began.elapsed();
    }

    fn judge(&mut self, service: usize, now: Moment) -> Vec<Verdict> {
        let setting = &self.services[service].setting;
        let records = self.index.snapshot(setting.key());
        let instances = records.iter().filter(|record| record.published);
        let published: AddressSet =
            instances.filter_map(|record| number(&record.lease)).map(address).collect();
        let verdicts = setting.decide(&records, &published, now);
        let outcomes = || verdicts.iter().filter_map(Verdict::settled);
        let settlement = self.index.settle(setting.key(), outcomes(), now);
        assert_eq!(settlement, Settlement::Stands, "no beat comes in between");
        self.check(&records, outcomes(), now);
        verdicts
    }

    /// Compares those that are decided to be dead for the first time with the truth.
    fn check<'a>(
        &mut self,
        records: &[Record],
        outcomes: impl Iterator<Item = &'a Settled>,
        now: Moment,
    ) {
        let alive: HashSet<_> = records
            .iter()
            .filter(|record| record.expired_at.is_none())
            .map(|record| &record.lease)
            .collect();
        for outcome in outcomes.filter(|outcome| outcome.expired) {
            if !alive.contains(&outcome.lease) {
                continue;
            }
            let life = self.lives[number(&outcome.lease).expect("one of ours")];
            let deadline = Moment::from_millis(life.beat + self.habits.ttl());
            self.played.prunes += 1;
            self.played.false_prunes += u64::from(life.dead_until.is_none() || now < deadline);
            self.played.late_prunes += u64::from(now > deadline);
        }
    }
}

/// The number at the end of a name.
fn number(name: &str) -> Option<usize> {
    name.rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_ten_minutes_exactly_the_dead_are_pruned_and_only_newcomers_wake() {
        let crowd = Crowd::new(Size { instances: 200, services: 4 });
        let mut hour = Hour::new(crowd, Habits { ttl: 30, interval: 10, deaths: 50 });
        hour.play(Duration::from_secs(600));
        let Played { beats, births, woken, deaths, due, prunes, .. } = hour.played;
        assert!(beats > 10_000 && deaths > 80 && births > 60, "{:?}", hour.played);
        assert_eq!((prunes, woken), (due, births));
        assert_eq!((hour.played.false_prunes, hour.played.late_prunes), (0, 0));
    }
}
