//! What a leader decides, and what it publishes.

use std::time::Duration;

use beatkeeper_core::{
    carriers::silence::Finding,
    liveness::{
        index::{LeaseDecision, NextBeat, Outcome, Record, Removal},
        proven_time::ProvenTime,
        rhythm::Wanted,
    },
    vocabulary::{monotonic_time::MonotonicTime, pace::Pace},
};

use crate::{
    api::Request,
    gateways::lease,
    replica::{State, registration},
    rules::Without,
    world::{Event, World},
};

impl World {
    /// Prunes what is silent, if this replica leads.
    pub fn decide(&mut self, r: usize) {
        let now = self.replicas[r].clock(self.now);
        let without = self.without;
        let Some(state) = self.replicas[r].state.as_ref() else { return };
        if state.term.is_none() {
            return;
        }
        let records = state.index.records_of(&registration());
        let (mut proof, mut confirm) = (false, false);
        for (n, record) in
            records.iter().enumerate().filter(|(_, record)| record.expired_at.is_none())
        {
            if !self.check.instances[n].published {
                continue;
            }
            match self.finding(r, record, self.pace_of(n), now) {
                Finding::Silent { .. } => {
                    let (process, delay) =
                        (self.replicas[r].process, self.random.between(500, 5000));
                    let decided = self.now;
                    if let Some(state) = &mut self.replicas[r].state {
                        state.expire(n, now);
                    }
                    self.after(delay, Event::Prune { replica: r, process, instance: n, decided });
                }
                Finding::NeedsProof { .. } => proof = true,
                Finding::NeedsElectionRead { .. } => confirm = true,
                Finding::Held(_) | Finding::Waits { .. } => {}
            }
        }
        let Some(state) = &mut self.replicas[r].state else { return };
        let mut effects = Vec::new();
        if proof && now >= state.next_proof {
            state.next_proof = now + Duration::from_millis(20);
            effects = state.set.ask_all(now);
        }
        if without == Without::ElectionRead {
            state.election_read = Some(now);
        } else if confirm && !state.confirms {
            state.confirms = true;
            self.ask_api(r, Some(Request::Confirm));
        }
        self.carry_out(r, effects);
    }

    fn finding(&self, r: usize, record: &Record, pace: Pace, now: MonotonicTime) -> Finding {
        let Some(state) = &self.replicas[r].state else { unreachable!("it decides") };
        if self.replicas[r].old {
            // It knows Leases only, and none was renewed since it started.
            let deadline = record.seen + pace.ttl;
            return match now >= deadline {
                true => Finding::Silent { deadline },
                false => Finding::Waits { until: deadline },
            };
        }
        let found = state.set.finding(record, pace, state.election_read, now);
        if let Some(gap) = state.gap {
            let later = ProvenTime::with_gaps(vec![gap]).deadline(record.silence(), pace);
            if now < later {
                return Finding::Waits { until: later };
            }
        }
        let remembered = ProvenTime::without_gaps().deadline(record.silence(), pace);
        match found {
            Finding::Waits { .. } if self.without == Without::Memory && now >= remembered => {
                Finding::Silent { deadline: remembered }
            }
            found => found,
        }
    }

    /// The write that removes an instance.
    pub fn prune(&mut self, r: usize, n: usize, decided: u64) {
        let now = self.replicas[r].clock(self.now);
        let by = self.replicas[r].name.clone();
        let Some(state) = &mut self.replicas[r].state else { return };
        let record = state.index.record(&registration(), &lease(n).name).cloned();
        let stands = record.as_ref().is_some_and(|record| record.expired_at.is_some());
        if state.term.is_some() && state.candidate.holds(now) && stands {
            self.say(|| format!("{by} prunes {n} at {now:?}: {record:?}"));
            self.check.pruned(n, decided, self.now, &by);
        }
    }

    /// Publishes what beats and is not published, if this replica leads.
    pub fn publish(&mut self, r: usize) {
        let now = self.replicas[r].clock(self.now);
        let Some(state) = &self.replicas[r].state else { return };
        if state.term.is_none() || !state.candidate.holds(now) {
            return;
        }
        for (n, record) in state.index.records_of(&registration()).iter().enumerate() {
            // What is not published and has a late beat has to beat first (L5).
            let pace = self.pace_of(n);
            let in_time = now < record.seen + pace.interval + pace.slack() / 2;
            let alive = record.expired_at.is_none() && !record.provenance.awaits_beat() && in_time;
            if alive && !self.check.instances[n].published {
                self.check.published(n, self.now);
            }
        }
    }
}

impl State {
    /// Decides that an instance is dead: only a new beat revives it.
    pub fn expire(&mut self, n: usize, now: MonotonicTime) {
        let Some(record) = self.index.record(&registration(), &lease(n).name) else { return };
        let decision = LeaseDecision {
            lease: record.lease.clone(),
            token: record.token.clone(),
            carried_at: record.carried_at(),
            outcome: Outcome::Expired(Removal::ForSilence),
            next_beat: NextBeat::Wakes,
            wanted: Wanted::at(
                Pace { ttl: Duration::from_secs(10), interval: Duration::from_secs(3) },
                None,
            ),
            placed: true,
        };
        // A beat since would have come before this in the same event.
        let _ = self.index.commit(&registration(), [&decision], now);
    }
}
