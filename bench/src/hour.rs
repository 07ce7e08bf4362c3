//! Runs instances on virtual time: they beat, die and come back. The core decides when a beat wakes it or the time that
//! it asked for has come, as in the controller. Nothing is written: a decision counts as published at once.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use beatkeeper_core::decide::verdict::{Suspect, Verdict};
use beatkeeper_core::liveness::index::{Index, LiveRead, Record};
use beatkeeper_core::objects::heartbeat::Heartbeat;
use beatkeeper_core::vocabulary::address::AddressSet;
use beatkeeper_core::vocabulary::key::Key;
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::instances::{Instances, NAMESPACE, Size, address, beat, service_key};
use crate::service::{Inputs, next_deadline};

/// Time advances in steps of this many milliseconds. A decision between two steps is taken at its own moment.
const STEP: u64 = 10;
const MINUTE: u64 = 60_000;

/// The behaviour of the instances.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// Seconds without a beat after which an instance counts as dead.
    pub ttl: u64,
    /// Seconds between two beats.
    pub interval: u64,
    /// How many instances per thousand die each minute. They come back within a minute after their ttl.
    pub deaths: u64,
}

/// The events and costs so far.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// Beats that the index took in.
    pub beats: u64,
    /// How many of these beats were the first of an instance that came back.
    pub births: u64,
    /// Beats that made a decision necessary.
    pub woken: u64,
    /// Instances that died.
    pub deaths: u64,
    /// How many of these instances had their deadline before the end.
    pub due: u64,
    /// Instances that were pruned.
    pub prunes: u64,
    /// How many of these were alive, or not yet past their deadline (P1).
    pub false_prunes: u64,
    /// How many of these had been due at an earlier moment (P2).
    pub late_prunes: u64,
    /// The real time that taking in the beats and deciding took.
    pub spent: Duration,
}

/// The true state of an instance, independent of the core's view.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// When the instance beat last, in milliseconds.
    beat: u64,
    /// Until when the instance is dead, if it is dead.
    dead_until: Option<u64>,
    /// How often the instance has come back.
    returns: u32,
}

/// A service, and when its next decision is due.
struct Service {
    inputs: Inputs,
    next: Option<MonotonicTime>,
}

/// Instances on virtual time.
pub struct Hour {
    index: Index,
    size: Size,
    services: Vec<Service>,
    /// When decisions are due, each with the number of its service.
    timers: BTreeSet<(MonotonicTime, usize)>,
    lives: Vec<Life>,
    /// The instances that beat in each step of an interval.
    phases: Vec<Vec<usize>>,
    /// In milliseconds.
    ttl: u64,
    behaviour: Behaviour,
    random: StdRng,
    /// The events and costs so far.
    pub played: Played,
}

impl Hour {
    /// Makes an hour from instances and their behaviour.
    pub fn new(instances: Instances, behaviour: Behaviour) -> Self {
        let Instances { index, size, beats } = instances;
        let Behaviour { ttl, interval, .. } = behaviour;
        let mut random = StdRng::seed_from_u64(0);
        let mut phases = vec![Vec::new(); (interval * 1_000 / STEP) as usize];
        for instance in 0..size.instances {
            let phase = random.random_range(0..phases.len());
            phases[phase].push(instance);
        }
        let start = MonotonicTime::from_millis(beats);
        let [ttl_text, interval] = [ttl, interval].map(|span| format!("{span}s"));
        let service = |service| {
            let inputs = Inputs::new(&service_key(service), &ttl_text, &interval);
            Service { inputs, next: Some(start) }
        };
        Self {
            index,
            size,
            services: (0..size.services).map(service).collect(),
            timers: (0..size.services).map(|service| (start, service)).collect(),
            lives: vec![Life { beat: beats, dead_until: None, returns: 0 }; size.instances],
            phases,
            ttl: ttl * 1_000,
            behaviour,
            random,
            played: Played::default(),
        }
    }

    /// Runs from the beginning to this moment of virtual time.
    pub fn play(&mut self, length: Duration) {
        let end = length.as_millis() as u64;
        let mut to_die = 0;
        for now in (STEP..=end).step_by(STEP as usize) {
            // What is due by now is decided at its own moment.
            while let Some(&(moment, service)) = self.timers.first()
                && moment <= MonotonicTime::from_millis(now)
            {
                self.decide(service, moment);
            }
            to_die += self.size.instances as u64 * self.behaviour.deaths * STEP;
            while to_die >= 1_000 * MINUTE {
                to_die -= 1_000 * MINUTE;
                self.kill(now, end);
            }
            for service in self.beat(now) {
                self.decide(service, MonotonicTime::from_millis(now));
            }
        }
    }

    fn kill(&mut self, now: u64, end: u64) {
        let life = &mut self.lives[self.random.random_range(0..self.size.instances)];
        if life.dead_until.is_none() {
            life.dead_until = Some(now + self.ttl + self.random.random_range(0..MINUTE));
            self.played.deaths += 1;
            self.played.due += u64::from(life.beat + self.ttl <= end);
        }
    }

    /// Makes all instances beat that are due, and adds the beats to the index. Returns the services for which a
    /// beat made a decision necessary.
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
        let now = MonotonicTime::from_millis(now);
        let began = Instant::now();
        for beat in beats {
            wake.extend(self.index.observe(NAMESPACE, beat, now).wake);
        }
        self.played.spent += began.elapsed();
        self.played.woken += wake.len() as u64;
        wake.iter().filter_map(|key| number(&key.name)).collect()
    }

    /// Returns the Lease of an instance as the API server has it.
    fn read(&self, instance: usize) -> Heartbeat {
        let Life { beat: last, returns, .. } = self.lives[instance];
        let mut read = beat(instance % self.size.services, instance, last);
        if returns > 0 {
            read.token.uid = format!("{}-{returns}", read.token.uid).into();
        }
        read
    }

    /// Decides as the controller does: each suspect is read live first.
    fn decide(&mut self, service: usize, now: MonotonicTime) {
        let began = Instant::now();
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
        let previous = std::mem::replace(&mut self.services[service].next, next);
        if let Some(previous) = previous {
            self.timers.remove(&(previous, service));
        }
        self.timers.extend(next.map(|next| (next, service)));
        self.played.spent += began.elapsed();
    }

    fn judge(&mut self, service: usize, now: MonotonicTime) -> Vec<Verdict> {
        let inputs = &self.services[service].inputs;
        let records = self.index.records_of(inputs.key());
        let instances = records.iter().filter(|record| record.published);
        let published: AddressSet =
            instances.filter_map(|record| number(&record.lease)).map(address).collect();
        let verdicts = inputs.decide(&records, &published, now);
        inputs.commit(&mut self.index, &verdicts, now);
        self.check(&records, &verdicts, now);
        verdicts
    }

    /// Compares the instances that are first decided to be dead with their true state.
    fn check(&mut self, records: &[Record], verdicts: &[Verdict], now: MonotonicTime) {
        let alive = records.iter().filter(|record| record.expired_at.is_none());
        let alive: HashSet<_> = alive.map(|record| &record.lease).collect();
        let outcomes = verdicts.iter().filter_map(Verdict::lease_decision);
        let expired = outcomes.filter(|outcome| outcome.outcome.is_expired());
        for outcome in expired.filter(|outcome| alive.contains(&outcome.lease)) {
            let life = self.lives[number(&outcome.lease).expect("one of ours")];
            let deadline = MonotonicTime::from_millis(life.beat + self.ttl);
            self.played.prunes += 1;
            self.played.false_prunes += u64::from(life.dead_until.is_none() || now < deadline);
            self.played.late_prunes += u64::from(now > deadline);
        }
    }
}

/// Returns the number at the end of a name.
fn number(name: &str) -> Option<usize> {
    name.rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_ten_minutes_exactly_the_dead_are_pruned_and_only_newcomers_wake() {
        let instances = Instances::new(Size { instances: 200, services: 4 });
        let mut hour = Hour::new(instances, Behaviour { ttl: 30, interval: 10, deaths: 50 });
        hour.play(Duration::from_secs(600));
        let Played { beats, births, woken, deaths, due, prunes, .. } = hour.played;
        assert!(beats > 10_000 && deaths > 80 && births > 60, "{:?}", hour.played);
        assert_eq!((prunes, woken), (due, births));
        assert_eq!((hour.played.false_prunes, hour.played.late_prunes), (0, 0));
    }
}
