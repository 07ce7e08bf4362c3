//! The replicas of the operator: a thin shell around the state machines, as the shipped shell is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::{Incarnation, InstanceId, ReplicaName, Term, Tick, Up, Verdict},
        rights::{self, Right},
        set::{CarrierSet, Claim, Effect, Times},
    },
    liveness::{index::Index, proven_time::Gap, silence_log::SilenceLog},
    objects::heartbeat::{Heartbeat, LeaseContent, Origin},
    replica::leader::{Candidate, Durations, LeaderLease, Move},
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        version::{Token, Version},
    },
};

use crate::{
    api::{Reply, Request},
    gateways::{lease, pod},
    rules::Without,
    streams::Frame,
    world::{Event, LEASE_DURATION, SECOND, World},
};

/// A replica, with its present process.
#[derive(Debug)]
pub struct Replica {
    pub process: u64,
    pub name: ReplicaName,
    /// `None` while it is down.
    pub state: Option<State>,
    /// Events that wait for the end of a suspension.
    pub held: Option<VecDeque<Event>>,
    /// How many faults cut it off from the API server.
    pub api_cut: u32,
    /// Whether it knows no carriers.
    pub old: bool,
    offset: u64,
}

/// What a process of a replica holds.
#[derive(Debug)]
pub struct State {
    pub candidate: Candidate,
    pub set: CarrierSet,
    pub index: Index,
    pub term: Option<Term>,
    /// The sending of the last read that confirmed the term.
    pub election_read: Option<MonotonicTime>,
    asks_api: bool,
    pub confirms: bool,
    next_regular: MonotonicTime,
    pub next_proof: MonotonicTime,
    /// Without the rule of losses: the gap that takes the place of the last loss.
    pub gap: Option<Gap>,
    /// When each Pod was last heard.
    heard: BTreeMap<Arc<str>, MonotonicTime>,
    began: MonotonicTime,
}

/// The registration of all instances.
pub fn registration() -> Key {
    Key::new("shop", "reg")
}

fn heartbeat(n: usize) -> Heartbeat {
    let pod = pod(n);
    Heartbeat {
        lease: lease(n).name,
        registration: Some("reg".into()),
        token: Token { uid: format!("lease-{n}").into(), renewed: Some(1) },
        version: Version(5),
        second_hand: false,
        content: LeaseContent {
            holder: Some(format!("{n:03}")),
            origin: Origin::Pod { name: pod.name.to_string(), uid: pod.uid.to_string() },
            owned: true,
            health: Ok(beatkeeper_api::heartbeat::Health::Passing),
            note: None,
            addresses: Vec::new(),
            rival: None,
            cordoned: None,
            deleting: false,
            duration: None,
        },
    }
}

/// What the probe remembers: no Lease of an instance was written for an hour, because gateways carry its beats.
fn an_hour_of_silence() -> SilenceLog {
    SilenceLog::read_from("probe", Version(1000), "v2 probe 3600000 5:0").expect("a log")
}

impl Replica {
    pub fn new(n: usize) -> Self {
        Self {
            process: 0,
            name: format!("replica-{n}").into(),
            state: None,
            held: None,
            api_cut: 0,
            old: false,
            offset: 0,
        }
    }

    pub fn clock(&self, now: u64) -> MonotonicTime {
        MonotonicTime::from_start(Duration::from_micros(now + self.offset))
    }
}

impl World {
    pub fn is_process(&self, r: usize, process: u64) -> bool {
        self.replicas[r].process == process && self.replicas[r].state.is_some()
    }

    /// Starts a process of a replica.
    pub fn start_replica(&mut self, r: usize, old: bool) {
        let process = self.fresh_number();
        let offset = self.random.between(0, 1_000_000_000);
        let instances = self.clients.len();
        let (now, longest) = (self.now, self.pace_of(0));
        let replica = &mut self.replicas[r];
        replica.name = format!("replica-{r}-{process}").into();
        (replica.process, replica.offset, replica.held, replica.old) = (process, offset, None, old);
        let clock = replica.clock(now);
        let mut index = Index::default();
        index.begin_list();
        for n in 0..instances {
            index.observe("shop", heartbeat(n), clock);
        }
        index.end_list();
        // The first processes find Leases that were just made.
        if now > SECOND {
            index.resume_silence(&an_hour_of_silence());
        }
        let times = Times { longest_ttl: longest.ttl, tolerance: longest.tolerance() };
        let renew = LEASE_DURATION * 3 / 5;
        let durations = Durations::new(LEASE_DURATION, renew, LEASE_DURATION / 10).expect("valid");
        replica.state = Some(State {
            candidate: Candidate::new(replica.name.to_string(), durations),
            set: CarrierSet::new(times, clock),
            index,
            term: None,
            election_read: None,
            asks_api: false,
            confirms: false,
            next_regular: clock,
            next_proof: clock,
            gap: None,
            heard: BTreeMap::new(),
            began: clock,
        });
        for gateway in 0..self.gateways.len() {
            let begins = self.random.between(1000, 100_000);
            self.after(begins, Event::Dial { replica: r, gateway });
        }
        self.after(1000, Event::ReplicaWakes { replica: r, process });
    }

    /// Ends a process of a replica.
    pub fn stop_replica(&mut self, r: usize) {
        self.replicas[r].state = None;
        self.replicas[r].held = None;
        for gateway in 0..self.gateways.len() {
            self.break_stream(r, gateway);
        }
    }

    /// Gives the lead up, as at SIGTERM, and ends.
    pub fn release(&mut self, r: usize) {
        let Some(state) = &mut self.replicas[r].state else { return };
        state.set.end_term();
        if let Some(draft) = state.candidate.release() {
            self.api.handle(&Request::Write(draft, None));
        }
        self.stop_replica(r);
    }

    /// Dials a gateway, again and again while there is no stream.
    pub fn dial(&mut self, r: usize, g: usize) {
        let replica = &self.replicas[r];
        let idle = replica.state.is_none() || replica.held.is_some() || replica.old;
        let can = self.gateways[g].gateway.is_some() && self.gateways[g].held.is_none();
        let number = self.fresh_number();
        let way = self.ways.get_mut(&(r, g)).expect("each has a way");
        if way.stream.is_some() {
            return;
        }
        if idle || !can || way.cuts > 0 {
            self.after(200_000, Event::Dial { replica: r, gateway: g });
            return;
        }
        way.open(number);
        let (name, pod) = (self.replicas[r].name.clone(), self.gateways[g].pod.clone());
        self.at_gateway(g, |gateway, _| gateway.connected(&name));
        let clock = self.replicas[r].clock(self.now);
        if let Some(state) = &self.replicas[r].state {
            let effects = state.set.connected(&pod, clock);
            self.carry_out(r, effects);
        }
    }

    /// The stream to a gateway is broken.
    pub fn broken_at_replica(&mut self, r: usize, g: usize, pod: &Arc<str>) {
        let now = self.replicas[r].clock(self.now);
        if let Some(state) = &mut self.replicas[r].state {
            state.set.disconnected(pod, now);
        }
        self.dial(r, g);
    }

    pub fn frame_arrives(&mut self, r: usize, g: usize, frame: Frame) {
        match frame {
            Frame::Down(frame) => self.down_arrives(r, g, frame),
            Frame::Up(frame) => self.up_arrives(r, g, frame),
        }
    }

    fn up_arrives(&mut self, r: usize, g: usize, mut frame: Up) {
        let now = self.replicas[r].clock(self.now);
        let (without, all_know) = (self.without, self.replicas.iter().all(|replica| !replica.old));
        if let (Up::Batch { echo, .. }, Without::Echo) = (&mut frame, without) {
            *echo = Tick::at(now);
        }
        let pod = self.gateways[g].pod.clone();
        let Some(state) = &mut self.replicas[r].state else { return };
        state.heard.insert(pod.clone(), now);
        let claims = state.term.is_some() && state.candidate.holds(now);
        let mut effects = state.set.receive(&pod, frame, claims, &mut state.index, now);
        let claim = state.claim();
        let all_know = all_know || without == Without::OldVersions;
        effects.extend(state.set.acknowledge(claim, all_know, now));
        self.carry_out(r, effects);
        self.publish(r);
    }

    pub fn carry_out(&mut self, r: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(pod, frame) => {
                    if let Some(g) = self.gateways.iter().position(|known| known.pod == pod) {
                        self.send(r, g, Frame::Down(frame));
                    }
                }
                Effect::Close(pod) => {
                    if let Some(g) = self.gateways.iter().position(|known| known.pod == pod) {
                        self.break_stream(r, g);
                    }
                }
                Effect::Wake(_) => {}
                Effect::Judge(pod, id) => self.judge(r, &pod, id),
            }
        }
    }

    fn judge(&mut self, r: usize, gateway: &Arc<str>, id: InstanceId) {
        let pace = self.pace_of(0);
        let Some(state) = &mut self.replicas[r].state else { return };
        let Some((lease, identity)) = state.set.named(gateway, id) else { return };
        let verdict = match state.index.find_carried(lease) {
            Some((_, origin)) => match rights::right(identity, lease, origin) {
                Right::Refused(why) => Verdict::Refused(why),
                Right::Renews | Right::NeedsReview => Verdict::Allowed(pace),
            },
            None => Verdict::Unknown,
        };
        let effects = state.set.judged(gateway, id, verdict);
        self.carry_out(r, effects);
    }

    /// Does the regular work: the election, the carriers, the decisions.
    pub fn replica_wakes(&mut self, r: usize) {
        let process = self.replicas[r].process;
        self.after(20_000, Event::ReplicaWakes { replica: r, process });
        let silent: BTreeSet<Arc<str>> = self.silent_gateways(r);
        let now = self.replicas[r].clock(self.now);
        let Some(state) = &mut self.replicas[r].state else { return };
        if state.term.is_some() && !state.candidate.holds(now) {
            state.term = None;
            state.set.end_term();
        }
        let mut effects = Vec::new();
        if now >= state.next_regular {
            state.next_regular = now + Duration::from_millis(250);
            effects = state.set.wake(&state.index, |pod| silent.contains(pod), now);
        }
        if !state.asks_api {
            let request = match state.candidate.next(now) {
                Move::Wait(_) => None,
                Move::Read => Some(Request::Read),
                Move::Write(draft) => Some(Request::Write(draft, state.set.list_to_write(now))),
            };
            state.asks_api = request.is_some();
            self.ask_api(r, request);
        }
        self.carry_out(r, effects);
        self.decide(r);
    }

    pub fn ask_api(&mut self, r: usize, request: Option<Request>) {
        let Some(request) = request else { return };
        let (process, sent, now) =
            (self.replicas[r].process, self.now, self.random.between(500, 8000));
        if self.replicas[r].api_cut > 0 {
            let reply = Reply::Unanswered;
            self.after(SECOND, Event::ApiReplies { replica: r, process, reply, sent });
        } else {
            self.after(now, Event::ApiHandles { replica: r, process, request, sent });
        }
    }

    pub fn api_replied(&mut self, r: usize, reply: Reply, sent: u64) {
        let (now, sent) = (self.replicas[r].clock(self.now), self.replicas[r].clock(sent));
        let me = self.replicas[r].name.clone();
        let open = self.open_streams(r);
        let Some(state) = &mut self.replicas[r].state else { return };
        let mut effects = Vec::new();
        match reply {
            Reply::Confirmed(lease) => {
                state.confirms = false;
                let still =
                    |lease: LeaderLease| lease.holder == *me && state.term == Some(term(&lease));
                if lease.is_some_and(still) {
                    state.election_read = Some(sent);
                }
                return;
            }
            Reply::Lease(lease) => state.candidate.saw(lease, now),
            Reply::Refused => state.candidate.refused(),
            Reply::Unanswered if state.confirms && !state.asks_api => {
                state.confirms = false;
                return;
            }
            Reply::Unanswered => state.candidate.unanswered(now),
            Reply::Written(lease, list) => {
                let written = term(&lease);
                state.candidate.wrote(lease, sent, now);
                if state.candidate.holds(now) && state.term != Some(written) {
                    state.term = Some(written);
                    state.election_read = None;
                    let listed = match self.without {
                        Without::List => BTreeSet::new(),
                        Without::Loss => state.take_losses_for_gaps(list, &open, now),
                        _ => list,
                    };
                    effects = state.set.begin_term(written, Some(listed), &mut state.index, now);
                } else {
                    state.set.list_written(list);
                }
            }
        }
        state.asks_api = false;
        self.say(|| format!("{me}: {effects:?}"));
        self.carry_out(r, effects);
    }
}

impl State {
    /// The claim, asked after the beats were taken in.
    fn claim(&self) -> Option<Claim> {
        Some(Claim { term: self.term?, until: self.candidate.valid_until()? })
    }

    /// Without the rule of losses: takes the gateways that do not answer out of the list, and counts a gap.
    fn take_losses_for_gaps(
        &mut self,
        list: BTreeSet<Incarnation>,
        open: &BTreeSet<Incarnation>,
        now: MonotonicTime,
    ) -> BTreeSet<Incarnation> {
        let lost = list.difference(open);
        let heard = lost.map(|lost| self.heard.get(&lost.pod).copied().unwrap_or(self.began));
        if let Some(from) = heard.min() {
            self.gap = Some(Gap { from, to: now + Duration::from_secs(1) });
        }
        list.intersection(open).cloned().collect()
    }
}

fn term(lease: &LeaderLease) -> Term {
    Term(u64::try_from(lease.transitions).unwrap_or_default())
}
