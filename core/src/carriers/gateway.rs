//! The gateway: it takes beats from instances, carries them to every replica of the operator, and answers an instance
//! once the leader holds its beat (G1).
//!
//! It decides nothing about an instance. It knows no registration, and writes nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    carriers::{
        frames::{
            Down, Incarnation, InstanceId, Question, ReplicaName, Sequence, Term, Up, Verdict,
        },
        gateway::{
            link::Link,
            requests::{Request, Requests},
            roster::{Judgement, Roster},
        },
        rights::{Identity, Refusal},
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::Pace},
};

mod link;
mod requests;
mod roster;
#[cfg(test)]
mod tests;

pub use requests::RequestId;

/// An acknowledgement counts for this long after its batch was sent, by the clock of the gateway (G2).
pub const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);

/// The longest time for which a beat waits in the gateway while a batch is under way.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// So many beats make a batch at once.
const FULL: usize = 1024;

/// A batch follows after this time, with or without beats.
const AT_LEAST_EVERY: Duration = Duration::from_millis(250);

/// What a refused instance waits before it may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the process has to do for the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a frame on the stream of this replica.
    Send(ReplicaName, Up),
    /// Answer a request. It is over.
    Answer(RequestId, Answer),
    /// Let a beat of the gateway's own pass through its published address and each of its workers, and then call
    /// [`Gateway::path_is_proven`] (G3).
    ProvePath(ReplicaName, Question),
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The leader holds the beat. The instance beats at this pace.
    Accepted(Pace),
    /// The instance may not renew this Lease.
    Refused(Refusal),
    /// There is no such Lease: register first.
    Unknown,
    /// No leader holds the beat. The instance may try again, at another gateway if it has no stream to any replica.
    Unavailable {
        /// How long to wait.
        retry_after: Duration,
        /// Whether no replica's stream lives here.
        cut_off: bool,
    },
}

/// The state of a gateway.
#[derive(Debug)]
pub struct Gateway {
    me: Incarnation,
    /// How long a beat may wait for a leader, whatever its slack: the lease duration of the election, and a little.
    patience: Duration,
    /// The highest term that is known.
    term: Option<Term>,
    links: BTreeMap<ReplicaName, Link>,
    roster: Roster,
    requests: Requests,
    last: Sequence,
    last_at: MonotonicTime,
    leaving: bool,
    out: Vec<Output>,
}

impl Gateway {
    /// A gateway that starts at `now`. `lease_duration` is that of the operator's election.
    pub fn new(me: Incarnation, lease_duration: Duration, now: MonotonicTime) -> Self {
        Self {
            me,
            patience: lease_duration + Duration::from_secs(2),
            term: None,
            links: BTreeMap::new(),
            roster: Roster::default(),
            requests: Requests::default(),
            last: Sequence::default(),
            last_at: now,
            leaving: false,
            out: Vec::new(),
        }
    }

    /// What there is to do since the last call.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// When to call [`Self::wake`].
    pub fn next_wake(&self) -> MonotonicTime {
        let regular = self.last_at + AT_LEAST_EVERY;
        let due = self.requests.due_since().map(|since| since + GATHERED_FOR);
        let late = self.requests.oldest_under_way().map(|sent| sent + ACKNOWLEDGED_WITHIN);
        [due, late].into_iter().flatten().fold(regular, MonotonicTime::min)
    }

    /// A beat for this Lease by this identity, whose token was verified. The answer follows as an output.
    pub fn beat(
        &mut self,
        request: RequestId,
        lease: &Key,
        identity: &Identity,
        now: MonotonicTime,
    ) {
        let cut_off = self.is_cut_off();
        if self.leaving || cut_off {
            return self.unavailable(request, cut_off);
        }
        let (id, judgement) = self.roster.find_or_add(lease, identity);
        match judgement {
            Judgement::Allowed(pace) => {
                let until = now + self.patience.min(pace.slack() / 4);
                self.requests.open(request, Request { id, until }, now);
                self.send_if_due(now);
            }
            Judgement::Asked => {
                self.requests.ask(request, Request { id, until: now + self.patience }, now);
                self.introduce_everywhere(id);
                self.send_if_due(now);
            }
        }
    }

    /// Whether a leader has allowed this identity to renew this Lease. If not, a beat of it makes a further entry.
    pub fn may_renew(&self, lease: &Key, identity: &Identity) -> bool {
        self.roster.is_allowed(lease, identity)
    }

    /// How many replicas have a stream on which batches are sent.
    pub fn streams(&self) -> usize {
        self.links.values().filter(|link| link.is_open()).count()
    }

    /// The instance has closed its request. Its beat no longer waits.
    pub fn cancel(&mut self, request: RequestId) {
        self.requests.close(request);
    }

    /// A replica has opened a stream. Its first frame follows.
    pub fn connected(&mut self, replica: &ReplicaName) {
        self.links.insert(replica.clone(), Link::default());
    }

    /// The stream of a replica is broken.
    pub fn disconnected(&mut self, replica: &ReplicaName) {
        self.links.remove(replica);
    }

    /// A frame of a replica.
    pub fn receive(&mut self, replica: &ReplicaName, frame: Down, now: MonotonicTime) {
        let Some(link) = self.links.get_mut(replica) else { return };
        match frame {
            Down::Hello { have } => self.greet(replica, have),
            Down::Tick(tick) => link.tick = link.tick.max(tick),
            Down::Leads(term) => self.led(replica, term),
            // Only the replica with the highest term may prune, so no other one needs a proof for it.
            Down::Ask { term: Some(term), .. } if self.term.is_some_and(|known| term < known) => {}
            Down::Ask { question, .. } => {
                self.out.push(Output::ProvePath(replica.clone(), question));
            }
            Down::Acknowledge { batch, term, not_held } => {
                if self.is_current(term) {
                    self.acknowledged(batch, &not_held, now);
                }
            }
            Down::Verdict { id, verdict, term } => {
                if self.is_current(term) {
                    self.judged(id, verdict, now);
                }
            }
        }
    }

    /// A beat of the gateway's own has passed through its published address and each worker since this question came
    /// (G3). The next batch answers the question, and holds what came before.
    pub fn path_is_proven(
        &mut self,
        replica: &ReplicaName,
        question: Question,
        now: MonotonicTime,
    ) {
        if let Some(link) = self.links.get_mut(replica) {
            link.answers = Some(question);
            self.send(now);
        }
    }

    /// Does what is due: sends a batch, and sends beats again that no leader has acknowledged.
    pub fn wake(&mut self, now: MonotonicTime) {
        let cut_off = self.is_cut_off();
        for request in self.requests.send_again(ACKNOWLEDGED_WITHIN, now) {
            self.unavailable(request, cut_off);
        }
        self.send_if_due(now);
        if now >= self.last_at + AT_LEAST_EVERY {
            self.send(now);
        }
    }

    /// Ends the gateway: it accepts no further beat, and tells the replicas so.
    pub fn leave(&mut self, now: MonotonicTime) {
        self.send(now);
        self.leaving = true;
        for request in self.requests.close_all() {
            self.unavailable(request, false);
        }
        let open = self.open_streams().into_iter();
        self.out.extend(open.map(|replica| Output::Send(replica, Up::Leaving)));
    }

    /// The first frames to a replica: who speaks, and what the replica lacks.
    fn greet(&mut self, replica: &ReplicaName, have: Option<(u64, Sequence)>) {
        let have = have.filter(|(epoch, _)| *epoch == self.me.epoch).map(|(_, batch)| batch);
        let hello = Up::Hello { incarnation: self.me.clone(), term: self.term };
        self.out.push(Output::Send(replica.clone(), hello));
        let ids = self.roster.beaten_since(have.unwrap_or_default());
        for id in &ids {
            self.introduce(replica, *id);
        }
        self.out.push(Output::Send(replica.clone(), Up::Since { up_to: self.last, ids }));
        if let Some(link) = self.links.get_mut(replica) {
            link.open();
        }
        for id in self.roster.asked() {
            self.introduce(replica, id);
        }
    }

    /// A replica leads. It has to judge again what its predecessor has not judged.
    fn led(&mut self, replica: &ReplicaName, term: Term) {
        if self.term.is_some_and(|known| term <= known) {
            return;
        }
        self.term = Some(term);
        for id in self.roster.asked() {
            if let Some(link) = self.links.get_mut(replica) {
                link.forget_introduction(id);
            }
            self.introduce(replica, id);
        }
    }

    /// Whether a leader is the one with the highest term. What others say accepts nothing and refuses nothing.
    fn is_current(&mut self, term: Term) -> bool {
        self.term = self.term.max(Some(term));
        self.term == Some(term)
    }

    fn acknowledged(&mut self, batch: Sequence, not_held: &[InstanceId], now: MonotonicTime) {
        let closed = self.requests.acknowledged(batch, not_held, now, ACKNOWLEDGED_WITHIN);
        for (request, id) in closed {
            match self.roster.judgement(id) {
                Some(Judgement::Allowed(pace)) => {
                    self.out.push(Output::Answer(request, Answer::Accepted(pace)));
                }
                // The leader has refused it meanwhile. It learns why by its next beat.
                _ => self.unavailable(request, false),
            }
        }
        self.send_if_due(now);
    }

    /// The leader has judged an instance.
    fn judged(&mut self, id: InstanceId, verdict: Verdict, now: MonotonicTime) {
        let answer = match verdict {
            Verdict::Allowed(pace) => {
                self.roster.allow(id, pace);
                // Replicas that do not lead learn it by another introduction.
                self.links.values_mut().for_each(|link| link.forget_introduction(id));
                self.introduce_everywhere(id);
                self.requests.allow(id, now);
                self.send_if_due(now);
                return;
            }
            Verdict::Refused(why) => Answer::Refused(why),
            Verdict::Unknown => Answer::Unknown,
        };
        // A later beat gets a new id, and is judged anew.
        self.roster.remove(id);
        self.links.values_mut().for_each(|link| link.forget_introduction(id));
        for request in self.requests.refuse(id) {
            self.out.push(Output::Answer(request, answer.clone()));
        }
    }

    fn introduce_everywhere(&mut self, id: InstanceId) {
        for replica in self.open_streams() {
            self.introduce(&replica, id);
        }
    }

    /// The replicas with a stream on which batches are sent.
    fn open_streams(&self) -> Vec<ReplicaName> {
        let open = self.links.iter().filter(|(_, link)| link.is_open());
        open.map(|(replica, _)| replica.clone()).collect()
    }

    /// Whether there is none.
    fn is_cut_off(&self) -> bool {
        !self.links.values().any(Link::is_open)
    }

    /// Introduces an instance on a stream, once.
    fn introduce(&mut self, replica: &ReplicaName, id: InstanceId) {
        let Some(link) = self.links.get_mut(replica) else { return };
        let Some((lease, identity)) = self.roster.named(id) else { return };
        if link.introduce(id) {
            let allowed = self.roster.is_judged(id);
            let (lease, identity) = (lease.clone(), identity.clone());
            let frame = Up::Introduce { id, lease, identity, allowed };
            self.out.push(Output::Send(replica.clone(), frame));
        }
    }

    /// Sends a batch at once if none is under way. Otherwise the beats gather.
    fn send_if_due(&mut self, now: MonotonicTime) {
        let Some(since) = self.requests.due_since() else { return };
        let nothing_under_way = self.requests.oldest_under_way().is_none();
        if nothing_under_way || self.requests.due() >= FULL || now >= since + GATHERED_FOR {
            self.send(now);
        }
    }

    /// Sends a batch of all that is due to each replica.
    fn send(&mut self, now: MonotonicTime) {
        self.last = self.last.next();
        self.last_at = now;
        let is_judged = |id| self.roster.is_judged(id);
        let ids: Arc<[InstanceId]> = self.requests.send(self.last, is_judged, now).into();
        for id in &*ids {
            self.roster.has_beaten(*id, self.last);
        }
        for replica in self.open_streams() {
            for id in &*ids {
                self.introduce(&replica, *id);
            }
            if let Some(link) = self.links.get_mut(&replica) {
                let answers = link.answers.take();
                let (sequence, echo, ids) = (self.last, link.tick, ids.clone());
                let batch = Up::Batch { sequence, echo, answers, ids };
                self.out.push(Output::Send(replica, batch));
            }
        }
    }

    fn unavailable(&mut self, request: RequestId, cut_off: bool) {
        let answer = Answer::Unavailable { retry_after: RETRY_AFTER, cut_off };
        self.out.push(Output::Answer(request, answer));
    }
}
