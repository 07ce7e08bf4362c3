//! A replica of the operator that leads: the state machine of the core behind the dialer that ships.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::{Incarnation, InstanceId, Term, Up, Verdict},
        rights::{self, Refusal, Right},
        set::{CarrierSet, Claim, Effect, PodUid, Times},
    },
    liveness::index::Index,
    objects::heartbeat::{Heartbeat, LeaseContent, Origin},
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::Pace,
        version::{Token, Version},
    },
};
use beatkeeper_gateway::streams::dial::{DialSettings, Event, Streams};
use tokio::{task::JoinHandle, time::Instant};

pub const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };

/// What the replica knows and does.
pub struct State {
    pub set: CarrierSet,
    pub index: Index,
    pub term: u64,
    /// Whether it acknowledges.
    pub acknowledges: bool,
    /// Whether it answers at all.
    pub judges: bool,
    /// How many beats have come.
    pub beats: usize,
    /// The sizes of the batches.
    pub batches: Vec<usize>,
    /// How many batches have answered a question.
    pub proofs: usize,
    /// The processes of gateways that have said hello, in their order.
    pub hellos: Vec<Incarnation>,
    /// How many instances were told after each hello.
    pub since: Vec<usize>,
    pub leaving: usize,
    /// Why streams have ended.
    pub ended: Vec<String>,
    pub open: BTreeSet<PodUid>,
    start: Instant,
}

/// A running replica, until it is dropped.
pub struct Leader {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The Lease of a Pod in namespace `shop`.
pub fn lease(pod: &str) -> Key {
    Key::new("shop", format!("reg.{pod}"))
}

pub fn heartbeat(lease: &str, origin: Origin) -> Heartbeat {
    Heartbeat {
        lease: lease.to_owned(),
        registration: Some("reg".into()),
        token: Token { uid: format!("{lease}-uid").into(), renewed: Some(1) },
        version: Version(5),
        second_hand: false,
        content: LeaseContent {
            holder: None,
            origin,
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

/// The origin of an instance in a Pod.
pub fn in_pod(pod: &str) -> Origin {
    Origin::Pod { name: pod.to_owned(), uid: format!("{pod}-uid") }
}

impl State {
    fn new(leases: Vec<Heartbeat>) -> Self {
        let start = Instant::now();
        let now = MonotonicTime::from_start(Duration::ZERO);
        let times = Times { longest_ttl: PACE.ttl, tolerance: PACE.tolerance() };
        let (mut set, mut index) = (CarrierSet::new(times, now), Index::default());
        index.begin_list();
        for lease in leases {
            index.observe("shop", lease, now);
        }
        index.end_list();
        set.begin_term(Term(1), Some(BTreeSet::new()), &mut index, now);
        Self {
            set,
            index,
            term: 1,
            acknowledges: true,
            judges: true,
            beats: 0,
            batches: Vec::new(),
            proofs: 0,
            hellos: Vec::new(),
            since: Vec::new(),
            leaving: 0,
            ended: Vec::new(),
            open: BTreeSet::new(),
            start,
        }
    }

    pub fn now(&self) -> MonotonicTime {
        MonotonicTime::from_start(self.start.elapsed())
    }

    fn receive(&mut self, pod: &PodUid, frame: Up) -> Vec<Effect> {
        match &frame {
            Up::Hello { incarnation, .. } => self.hellos.push(incarnation.clone()),
            Up::Since { ids, .. } => self.since.push(ids.len()),
            Up::Batch { ids, answers, .. } => {
                self.beats += ids.len();
                self.proofs += usize::from(answers.is_some());
                if !ids.is_empty() {
                    self.batches.push(ids.len());
                }
            }
            Up::Leaving => self.leaving += 1,
            Up::Introduce { .. } => {}
        }
        let now = self.now();
        let effects = self.set.receive(pod, frame, true, &mut self.index, now);
        self.list();
        effects
    }

    /// Writes the list of gateways, as the election's Lease would have it.
    fn list(&mut self) {
        let now = self.now();
        if let Some(list) = self.set.list_to_write(now) {
            self.set.list_written(list);
        }
    }

    fn acknowledge(&mut self) -> Vec<Effect> {
        let now = self.now();
        let claim = Claim { term: Term(self.term), until: now + Duration::from_secs(10) };
        self.set.acknowledge(Some(claim).filter(|_| self.acknowledges), true, now)
    }

    fn judge(&mut self, pod: &PodUid, id: InstanceId) -> Vec<Effect> {
        let Some((lease, identity)) = self.set.named(pod, id) else { return Vec::new() };
        if !self.judges {
            return Vec::new();
        }
        let verdict = match self.index.find_carried(lease) {
            None => Verdict::Unknown,
            Some((_, origin)) => match rights::right(identity, lease, origin) {
                Right::Refused(why) => Verdict::Refused(why),
                Right::Renews => Verdict::Allowed(PACE),
                Right::NeedsReview if identity.user.ends_with(":agent") => Verdict::Allowed(PACE),
                Right::NeedsReview => Verdict::Refused(Refusal::LacksRight {
                    user: identity.user.clone(),
                    verb: "patch".into(),
                    lease: lease.name.clone(),
                }),
            },
        };
        self.set.judged(pod, id, verdict)
    }
}

impl Leader {
    /// Leads for these Leases, with these settings for its streams.
    pub fn start(
        settings: DialSettings,
        gateways: BTreeMap<PodUid, SocketAddr>,
        leases: Vec<Heartbeat>,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::new(leases)));
        let task = tokio::spawn(lead(state.clone(), settings, gateways));
        Self { state, task }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn lead(
    state: Arc<Mutex<State>>,
    settings: DialSettings,
    gateways: BTreeMap<PodUid, SocketAddr>,
) {
    let mut streams = Streams::new(settings);
    streams.dial(&gateways);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        let effects = tokio::select! {
            (pod, event) = streams.next() => happened(&mut state.lock().unwrap(), &pod, event),
            _ = ticks.tick() => {
                let mut state = state.lock().unwrap();
                let now = state.now();
                let State { set, index, .. } = &mut *state;
                let effects = set.wake(index, |_| false, now);
                state.list();
                effects
            }
        };
        let mut effects = effects;
        effects.extend(state.lock().unwrap().acknowledge());
        carry_out(&state, &mut streams, effects);
    }
}

fn happened(state: &mut State, pod: &PodUid, event: Event) -> Vec<Effect> {
    let now = state.now();
    match event {
        Event::Connected => {
            state.open.insert(pod.clone());
            state.set.connected(pod, now)
        }
        Event::Frame(frame) => state.receive(pod, frame),
        Event::Disconnected(ended) => {
            state.open.remove(pod);
            state.ended.push(ended.to_string());
            state.set.disconnected(pod, now);
            Vec::new()
        }
    }
}

fn carry_out(state: &Mutex<State>, streams: &mut Streams, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Send(pod, frame) => streams.send(&pod, frame),
            Effect::Close(pod) => streams.close(&pod),
            Effect::Wake(_) => {}
            Effect::Judge(pod, id) => {
                let verdict = state.lock().unwrap().judge(&pod, id);
                carry_out(state, streams, verdict);
            }
        }
    }
}
