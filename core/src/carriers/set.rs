//! All gateways, as one replica of the operator sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    carriers::{
        carrier::{self, Carrier, Standing, Taken},
        frames::{Down, Incarnation, InstanceId, Question, Sequence, Term, Tick, Up, Verdict},
        proof::CarrierProof,
        rights::Identity,
        round::Round,
    },
    liveness::index::{CarrierId, Delivery, Index},
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

mod evidence;
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
    together: CarrierProof,
    asked: Question,
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
            together: CarrierProof::new(now),
            asked: Question(0),
        }
    }

    /// A stream to a Pod is open. Returns the first frames.
    pub fn connected(&self, pod: &PodUid, now: MonotonicTime) -> Vec<Effect> {
        let known = self.pods.get(pod).map(|id| &self.carriers[id.at()]);
        let have = known.map(|carrier| (carrier.incarnation.epoch, carrier.taken));
        let tick = Down::Tick(carrier::tick(now));
        [Down::Hello { have }, tick].map(|frame| Effect::Send(pod.clone(), frame)).into()
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

    /// A frame of a Pod.
    pub fn receive(
        &mut self,
        pod: &PodUid,
        frame: Up,
        index: &mut Index,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        if let Up::Hello { incarnation, term: _ } = frame {
            return self.greeted(pod, incarnation, now);
        }
        let Some(id) = self.pods.get(pod).copied() else { return vec![Effect::Close(pod.clone())] };
        let carrier = &mut self.carriers[id.at()];
        let taken = match frame {
            Up::Hello { .. } => Taken::default(),
            Up::Leaving => {
                carrier.left = true;
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
            Up::Batch { sequence, echo, answers, ids } => {
                if sequence != carrier.taken.next() {
                    return vec![Effect::Close(pod.clone())];
                }
                let taken = self.take_batch(id, sequence, echo, &ids, index, now);
                if let Some(question) = answers {
                    self.answered(id, question, now);
                }
                taken
            }
        };
        let judge = taken.doubtful.into_iter().map(|id| Effect::Judge(pod.clone(), id));
        let judge = judge.filter(|_| self.round.is_some());
        taken.wake.into_iter().map(Effect::Wake).chain(judge).collect()
    }

    /// A gateway says who it is. Another epoch shows that the process before is dead.
    fn greeted(&mut self, pod: &PodUid, found: Incarnation, now: MonotonicTime) -> Vec<Effect> {
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
        self.carriers[id.at()].standing = Standing::Carries;
        let mut effects = Vec::new();
        if let Some(round) = &self.round {
            effects.push(Effect::Send(pod.clone(), Down::Leads(round.term())));
        }
        effects.extend(self.ask(id, now));
        effects
    }

    /// Takes in a batch, as far as it counts (G2).
    fn take_batch(
        &mut self,
        by: CarrierId,
        sequence: Sequence,
        echo: Tick,
        ids: &[InstanceId],
        index: &mut Index,
        now: MonotonicTime,
    ) -> Taken {
        let carrier = &mut self.carriers[by.at()];
        carrier.taken = sequence;
        let fresh = carrier::is_fresh(echo, now);
        // Nothing of a late batch was accepted in this term. An earlier leader may have accepted it before the round.
        let counted = self.round.as_ref().is_some_and(|round| !round.awaits(&carrier.incarnation));
        if !fresh && counted {
            return Taken::default();
        }
        let delivery = if fresh { Delivery::Fresh } else { Delivery::Late };
        let taken = carrier.take_in(by, ids, delivery, index, now);
        if fresh && !ids.is_empty() {
            carrier.may_acknowledge(sequence, now);
        }
        taken
    }

    fn answered(&mut self, id: CarrierId, question: Question, now: MonotonicTime) {
        let carrier = &mut self.carriers[id.at()];
        carrier.proof.answered(question, self.times.tolerance, now);
        self.together.answered(question, self.times.tolerance, now);
        if let Some(round) = &mut self.round {
            round.answered(question, &carrier.incarnation);
        }
    }

    /// What the leader says about an instance.
    pub fn judged(&mut self, pod: &PodUid, id: InstanceId, verdict: Verdict) -> Vec<Effect> {
        let Some(carrier) = self.pods.get(pod) else { return Vec::new() };
        if !matches!(verdict, Verdict::Allowed(_)) {
            self.carriers[carrier.at()].forget(id);
        }
        vec![Effect::Send(pod.clone(), Down::Verdict { id, verdict })]
    }

    /// The Lease and the identity of an instance that was introduced.
    pub fn named(&self, pod: &PodUid, id: InstanceId) -> Option<(&Key, &Identity)> {
        self.carriers[self.pods.get(pod)?.at()].named(id)
    }

    /// This replica leads. `listed` are the gateways that the election's Lease listed when it was claimed (G5).
    pub fn begin_term(
        &mut self,
        term: Term,
        listed: BTreeSet<Incarnation>,
        now: MonotonicTime,
    ) -> Vec<Effect> {
        let left = self.carriers.iter().filter(|carrier| carrier.left);
        let complete = left.map(|carrier| carrier.incarnation.clone()).collect();
        let first = Question(self.asked.0 + 1);
        self.round = Some(Round::begin(term, listed, &complete, first, now));
        let open: Vec<_> = self.open().map(|(pod, id)| (pod.clone(), id)).collect();
        let mut effects = Vec::new();
        for (pod, id) in open {
            effects.push(Effect::Send(pod, Down::Leads(term)));
            effects.extend(self.ask(id, now));
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
                let frames = carrier.acknowledge().map(|batch| Down::Acknowledge { batch, term });
                effects.extend(frames.map(|frame| Effect::Send(pod.clone(), frame)));
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
            effects.push(Effect::Send(pod, Down::Tick(carrier::tick(now))));
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
        self.together.ask(self.asked, now);
        let term = self.round.as_ref().map(Round::term);
        let frame = Down::Ask { question: self.asked, term };
        Some(Effect::Send(carrier.incarnation.pod.clone(), frame))
    }

    /// What the election's Lease has to list, if it does not.
    pub fn list_to_write(&self, now: MonotonicTime) -> Option<BTreeSet<Incarnation>> {
        let round = self.round.as_ref()?;
        let carrying = self.open().map(|(_, id)| &self.carriers[id.at()].incarnation);
        let wanted = round.wanted(carrying, self.times.longest_ttl, now);
        (wanted != *round.listed()).then_some(wanted)
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
