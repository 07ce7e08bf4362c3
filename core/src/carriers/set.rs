//! All gateways, as one replica of the operator sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    carriers::{
        carrier::{self, Carrier, Standing, Taken, Unacknowledged},
        frames::{Down, Incarnation, InstanceId, Question, Sequence, Term, Tick, Up, Verdict},
        gateway::ACKNOWLEDGED_WITHIN,
        proof::CarrierProof,
        round::Round,
    },
    liveness::index::{CarrierId, Delivery, Index},
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

mod evidence;
mod lookups;
mod lost;
#[cfg(test)]
mod tests;

/// The uid of the Pod of a gateway.
pub type PodUid = Arc<str>;

/// What the process has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame on the stream to this Pod.
    Send(PodUid, Down),
    /// Close the stream to this Pod, because it has broken the protocol. It is dialled again.
    Close(PodUid),
    /// Reconcile a registration.
    Wake(Key),
    /// Find out whether this identity may renew this Lease, and call [`CarrierSet::judged`].
    Judge(PodUid, InstanceId),
}

/// A batch that has arrived.
struct Batch {
    sequence: Sequence,
    echo: Tick,
    ids: Arc<[InstanceId]>,
    claims: bool,
}

/// The claim of the replica that asks, and the moment until which it holds without a further request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The term.
    pub term: Term,
    /// When the claim ends.
    pub until: MonotonicTime,
}

/// The times that follow from the registrations whose beats are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The longest ttl.
    pub longest_ttl: Duration,
    /// The least tolerance ([`crate::vocabulary::pace::Pace::tolerance`]).
    pub tolerance: Duration,
}

/// All gateways.
#[derive(Debug)]
pub struct CarrierSet {
    times: Times,
    carriers: Vec<Carrier>,
    /// The last known process of each Pod.
    pods: BTreeMap<PodUid, CarrierId>,
    round: Option<Round>,
    /// The end of the last loss: whatever was seen before counts as seen then (G5).
    loss: Option<MonotonicTime>,
    /// The proof that beats arrive through at least one gateway.
    any_way: CarrierProof,
    asked: Question,
    /// The highest term that a gateway has told, and that it did not know from this replica.
    highest: Option<Term>,
}

impl CarrierSet {
    /// No gateway is known yet.
    pub fn new(times: Times, now: MonotonicTime) -> Self {
        Self {
            times,
            carriers: Vec::new(),
            pods: BTreeMap::new(),
            round: None,
            loss: None,
            any_way: CarrierProof::new(now),
            asked: Question(0),
            highest: None,
        }
    }

    /// The registrations have changed, and the times with them.
    pub fn set_times(&mut self, times: Times) {
        self.times = times;
    }

    /// A stream to a Pod is open. Returns the first frames.
    pub fn connected(&self, pod: &PodUid, now: MonotonicTime) -> Vec<Effect> {
        let known = self.pods.get(pod).map(|id| &self.carriers[id.at()]);
        let have = known.map(|carrier| (carrier.incarnation.epoch, carrier.taken));
        let tick = Down::Tick(Tick::at(now));
        [tick, Down::Hello { have }].map(|frame| Effect::Send(pod.clone(), frame)).into()
    }

    /// The stream to a Pod is broken.
    pub fn disconnected(&mut self, pod: &PodUid, now: MonotonicTime) {
        let Some(id) = self.pods.get(pod) else { return };
        let carrier = &mut self.carriers[id.at()];
        carrier.interrupted(now);
        if let (Standing::Gone { .. }, Some(round)) = (carrier.standing, &mut self.round) {
            round.ended(&carrier.incarnation, now);
        }
    }

    /// A frame of a Pod. `claims` says whether this replica leads and its claim holds now: what a leader refuses to take
    /// in was accepted by no other one.
    pub fn receive(
        &mut self,
        pod: &PodUid,
        frame: Up,
        claims: bool,
        index: &mut Index,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        if let Up::Hello { incarnation, term } = frame {
            return self.greeted(pod, incarnation, term, now);
        }
        let Some(id) = self.pods.get(pod).copied() else { return vec![Effect::Close(pod.clone())] };
        let carrier = &mut self.carriers[id.at()];
        let taken = match frame {
            Up::Hello { .. } => Taken::default(),
            Up::Leaving => {
                carrier.says_it_ends = true;
                Taken::default()
            }
            Up::Introduce { allowed: false, ref lease, ref identity, .. }
                if self.round.is_none() && !carrier::owns(index, lease, identity) =>
            {
                Taken::default()
            }
            Up::Introduce { id, lease, identity, allowed } => {
                carrier.introduce(id, lease, identity, allowed);
                let judge = Effect::Judge(pod.clone(), id);
                return (self.round.is_some() && !allowed).then_some(judge).into_iter().collect();
            }
            Up::Since { up_to, ids } => {
                carrier.taken = up_to;
                carrier.take_in(id, &ids, Delivery::Late, index, now)
            }
            Up::Batch { sequence, .. }
                if !carrier.carries() || sequence != carrier.taken.next() =>
            {
                return vec![Effect::Close(pod.clone())];
            }
            Up::Batch { sequence, echo, answers, ids } => {
                carrier.taken = sequence;
                match self.take_batch(id, Batch { sequence, echo, ids, claims }, index, now) {
                    Some(taken) => {
                        if let Some(question) = answers {
                            self.answered(id, question, now);
                        }
                        taken
                    }
                    // Without its beats, its answer proves nothing.
                    None => Taken::default(),
                }
            }
        };
        let judge = taken.doubtful.into_iter().map(|id| Effect::Judge(pod.clone(), id));
        let judge = judge.filter(|_| self.round.is_some());
        taken.wake.into_iter().map(Effect::Wake).chain(judge).collect()
    }

    /// A gateway says who it is, and the highest term that it knows. Another epoch shows that the process before is dead.
    fn greeted(
        &mut self,
        pod: &PodUid,
        found: Incarnation,
        term: Option<Term>,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        let known = self.pods.get(pod).copied();
        let same = known.filter(|id| self.carriers[id.at()].incarnation == found);
        let id = same.unwrap_or_else(|| {
            if let Some(before) = known {
                self.gone(before, now);
            }
            let id = CarrierId::at_place(self.carriers.len());
            self.carriers.push(Carrier::new(found.clone(), now));
            self.pods.insert(pod.clone(), id);
            id
        });
        let carrier = &mut self.carriers[id.at()];
        carrier.standing = Standing::Carries;
        // A gateway whose stream was broken repeats what this replica has told it.
        self.highest = self.highest.max(term.filter(|_| term > carrier.told));
        let mut effects = Vec::new();
        if let Some(round) = &mut self.round {
            round.carries(&found);
            carrier.told = Some(round.term());
            effects.push(Effect::Send(pod.clone(), Down::Leads(round.term())));
        }
        effects.extend(self.ask(id, now));
        effects
    }

    /// Takes in a batch. Returns `None` if it does not count (G2).
    fn take_batch(
        &mut self,
        by: CarrierId,
        batch: Batch,
        index: &mut Index,
        now: MonotonicTime,
    ) -> Option<Taken> {
        let Batch { sequence, echo, ids, claims } = batch;
        let carrier = &mut self.carriers[by.at()];
        // A batch that hung in the network for longer proves nothing about the present.
        let fresh = echo.age(now) <= ACKNOWLEDGED_WITHIN;
        // Nothing of a late batch was accepted in this term. An earlier leader may have accepted it before the round,
        // and a later one after the claim has ended.
        let round = self.round.as_ref().filter(|_| claims);
        if !fresh && round.is_some_and(|round| !round.awaits(&carrier.incarnation)) {
            return None;
        }
        let delivery = if fresh { Delivery::Fresh } else { Delivery::Late };
        let taken = carrier.take_in(by, &ids, delivery, index, now);
        if fresh && !ids.is_empty() {
            carrier.may_acknowledge(sequence, taken.doubtful.clone(), now);
        }
        Some(taken)
    }

    fn answered(&mut self, id: CarrierId, question: Question, now: MonotonicTime) {
        let carrier = &mut self.carriers[id.at()];
        carrier.proof.answered(question, self.times.tolerance, now);
        self.any_way.answered(question, self.times.tolerance, now);
        if let Some(round) = &mut self.round {
            round.answered(question, &carrier.incarnation);
        }
    }

    /// What the leader says about an instance.
    pub fn judged(&mut self, pod: &PodUid, id: InstanceId, verdict: Verdict) -> Vec<Effect> {
        let Some(carrier) = self.pods.get(pod) else { return Vec::new() };
        let Some(term) = self.round.as_ref().map(Round::term) else { return Vec::new() };
        if !matches!(verdict, Verdict::Allowed(_)) {
            self.carriers[carrier.at()].forget(id);
        }
        vec![Effect::Send(pod.clone(), Down::Verdict { id, verdict, term })]
    }

    /// The highest term that a gateway has told, and that it did not know from this replica. If it is not below the term of
    /// this replica, because the election's Lease was deleted, another replica may have led in a term with this number:
    /// this replica has to claim a higher one.
    pub fn highest_term(&self) -> Option<Term> {
        self.highest
    }

    /// This replica leads. `listed` are the gateways that the election's Lease listed when it was claimed (G5); `None` if
    /// it had no list.
    pub fn begin_term(
        &mut self,
        term: Term,
        listed: Option<BTreeSet<Incarnation>>,
        index: &mut Index,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        index.doubt_deaths(now);
        for (place, carrier) in self.carriers.iter_mut().enumerate() {
            carrier.take_in_missed(CarrierId::at_place(place), index, now);
        }
        let ended = self.carriers.iter().filter(|carrier| carrier.says_it_ends);
        let ended = ended.map(|carrier| carrier.incarnation.clone()).collect();
        let first = Question(self.asked.0 + 1);
        self.round = Some(Round::begin(term, listed, &ended, first, now));
        let open: Vec<_> = self.open().map(|(pod, id)| (pod.clone(), id)).collect();
        let mut effects = Vec::new();
        for (pod, id) in open {
            self.carriers[id.at()].told = Some(term);
            effects.push(Effect::Send(pod.clone(), Down::Leads(term)));
            effects.extend(self.ask(id, now));
            let unjudged = self.carriers[id.at()].not_allowed();
            effects.extend(unjudged.map(|id| Effect::Judge(pod.clone(), id)));
        }
        effects
    }

    /// This replica does not lead any more.
    pub fn end_term(&mut self) {
        self.round = None;
    }

    /// Acknowledges what was taken in. The caller asks for its claim after it has taken the beats in, and passes a
    /// moment that it read after that (G1). `all_know` says whether every replica knows carriers: another one would
    /// prune what it cannot hear (G12).
    pub fn acknowledge(
        &mut self,
        claim: Option<Claim>,
        all_know: bool,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        let Some(round) = &self.round else { return Vec::new() };
        let holds = claim.is_some_and(|claim| claim.term == round.term() && now < claim.until);
        if !holds || !all_know {
            return Vec::new();
        }
        let term = round.term();
        let mut effects = Vec::new();
        for (pod, id) in &self.pods {
            let carrier = &mut self.carriers[id.at()];
            if carrier.carries() && round.lists(&carrier.incarnation) {
                effects.extend(carrier.acknowledge().map(
                    |Unacknowledged { batch, not_held, .. }| {
                        Effect::Send(pod.clone(), Down::Acknowledge { batch, term, not_held })
                    },
                ));
            }
        }
        effects
    }

    /// The regular work: ticks, questions, the end of the round, and the search for gateways that are dead.
    /// `is_silent` says whether the own Lease of a Pod has been silent for its ttl of proven time (G4).
    pub fn wake(
        &mut self,
        index: &Index,
        is_silent: impl Fn(&PodUid) -> bool,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        if let Some(end) = self.round.as_mut().and_then(|round| round.close(now)) {
            self.loss = self.loss.max(Some(end));
        }
        self.look_for_lost(index, is_silent, now);
        let open: Vec<_> = self.open().map(|(pod, id)| (pod.clone(), id)).collect();
        let mut effects = Vec::new();
        for (pod, id) in open {
            effects.push(Effect::Send(pod, Down::Tick(Tick::at(now))));
            effects.extend(self.ask(id, now));
        }
        effects
    }

    /// Asks every gateway, for a deadline that has come.
    pub fn ask_all(&mut self, now: MonotonicTime) -> Vec<Effect> {
        let open: Vec<_> = self.open().map(|(_, id)| id).collect();
        open.into_iter().filter_map(|id| self.ask(id, now)).collect()
    }

    fn ask(&mut self, id: CarrierId, now: MonotonicTime) -> Option<Effect> {
        let carrier = self.carriers.get_mut(id.at()).filter(|carrier| carrier.carries())?;
        self.asked = Question(self.asked.0 + 1);
        carrier.proof.ask(self.asked, now);
        self.any_way.ask(self.asked, now);
        let term = self.round.as_ref().map(Round::term);
        let frame = Down::Ask { question: self.asked, term };
        Some(Effect::Send(carrier.incarnation.pod.clone(), frame))
    }

    /// What the election's Lease has to list, if it does not. The caller writes it.
    pub fn list_to_write(&mut self, now: MonotonicTime) -> Option<BTreeSet<Incarnation>> {
        let carrying = self.open().map(|(_, id)| &self.carriers[id.at()].incarnation);
        let round = self.round.as_ref()?;
        let wanted = round.wanted(carrying, self.times.longest_ttl, now);
        if !round.has_to_write(&wanted, self.times.longest_ttl, now) {
            return None;
        }
        self.round.as_mut()?.draft(&wanted);
        Some(wanted)
    }

    /// The list has been written into the election's Lease.
    pub fn list_written(&mut self, listed: BTreeSet<Incarnation>) {
        if let Some(round) = &mut self.round {
            round.written(listed);
        }
    }

    /// The gateways with an open stream.
    fn open(&self) -> impl Iterator<Item = (&PodUid, CarrierId)> {
        let pods = self.pods.iter().map(|(pod, id)| (pod, *id));
        pods.filter(|(_, id)| self.carriers[id.at()].carries())
    }
}
