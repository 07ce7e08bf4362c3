//! The world of one schedule: virtual time, what happens next, and the processes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::{Question, ReplicaName},
        gateway::{Answer, RequestId},
    },
    vocabulary::pace::Pace,
};

use crate::{
    api::{Api, Reply, Request},
    check::{Check, Known},
    client::Client,
    fault::Fault,
    gateways::Place,
    random::Random,
    replica::Replica,
    rules::Without,
    streams::{Frame, Way},
};

/// In microseconds.
pub const SECOND: u64 = 1_000_000;

/// That of the election.
pub const LEASE_DURATION: Duration = Duration::from_secs(5);

/// When the last fault has ended.
const CALM_AFTER: u64 = 240 * SECOND;

/// How long the schedule goes on after the last fault, even if nothing is left to happen.
const SETTLES: u64 = 60 * SECOND;

/// How long the last deaths may take: a broken way holds for ten ttls.
const CALM: u64 = 500 * SECOND;

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    ReplicaWakes {
        replica: usize,
        process: u64,
    },
    GatewayWakes {
        gateway: usize,
        process: u64,
    },
    Frame {
        replica: usize,
        gateway: usize,
        stream: u64,
        frame: Frame,
    },
    /// One end learns that the stream is broken.
    BrokenAtReplica {
        replica: usize,
        process: u64,
        gateway: usize,
        pod: Arc<str>,
    },
    BrokenAtGateway {
        gateway: usize,
        process: u64,
        replica: ReplicaName,
    },
    Dial {
        replica: usize,
        gateway: usize,
    },
    Beat(usize),
    TimedOut {
        client: usize,
        request: RequestId,
    },
    Request {
        gateway: usize,
        process: u64,
        request: RequestId,
        client: usize,
    },
    Cancel {
        gateway: usize,
        process: u64,
        request: RequestId,
    },
    Answer {
        client: usize,
        request: RequestId,
        answer: Answer,
    },
    PathProven {
        gateway: usize,
        process: u64,
        replica: ReplicaName,
        question: Question,
    },
    ApiHandles {
        replica: usize,
        process: u64,
        request: Request,
        sent: u64,
    },
    ApiReplies {
        replica: usize,
        process: u64,
        reply: Reply,
        sent: u64,
    },
    Prune {
        replica: usize,
        process: u64,
        instance: usize,
        decided: u64,
    },
    Begins(Fault),
    Ends(Fault),
    Dies(usize),
}

/// The state of everything.
pub struct World {
    pub now: u64,
    pub random: Random,
    pub without: Without,
    pub api: Api,
    pub replicas: Vec<Replica>,
    pub gateways: Vec<Place>,
    pub clients: Vec<Client>,
    pub ways: BTreeMap<(usize, usize), Way>,
    pub check: Check,
    /// Replicas that a fault keeps from hearing a gateway.
    pub deaf: Vec<(usize, usize)>,
    aloud: bool,
    events: BTreeMap<(u64, u64), Event>,
    number: u64,
}

impl World {
    /// Plays a schedule.
    ///
    /// # Errors
    /// The first violation of a promise.
    pub fn play(seed: u64, without: Without) -> Result<u64, String> {
        Self::run(seed, without, false)
    }

    /// The same, and prints what happens.
    pub fn play_aloud(seed: u64, without: Without) -> Result<u64, String> {
        Self::run(seed, without, true)
    }

    fn run(seed: u64, without: Without, aloud: bool) -> Result<u64, String> {
        let random = Random::new(seed);
        let mut world = Self {
            now: SECOND,
            random,
            without,
            api: Api::default(),
            replicas: Vec::new(),
            gateways: Vec::new(),
            clients: Vec::new(),
            ways: BTreeMap::new(),
            check: Check::default(),
            deaf: Vec::new(),
            aloud,
            events: BTreeMap::new(),
            number: 0,
        };
        world.set_up();
        while let Some(((now, _), event)) = world.events.pop_first() {
            let settled = now > CALM_AFTER + SETTLES && world.check.is_settled();
            if settled || now > CALM_AFTER + CALM {
                break;
            }
            world.now = now;
            world.happens(event);
            if let Some(violation) = world.check.violation.take() {
                return Err(violation);
            }
        }
        world.check.at_the_end(world.now);
        world.check.violation.map_or(Ok(world.check.prunes), Err)
    }

    fn set_up(&mut self) {
        let (replicas, gateways) = (2 + self.random.index(2), 1 + self.random.index(3));
        let instances = 3 + self.random.index(6);
        let (ttl, part) = self.random.pick(&[(10, 3), (12, 2), (20, 3), (30, 3), (30, 2)]);
        for n in 0..instances {
            let ttl = ttl * SECOND;
            self.clients.push(Client::new(ttl / part, ttl, self.random.index(gateways)));
            self.check.instances.push(Known { ttl, died: None, published: true, accepted: None });
            let begins = self.random.between(0, ttl / 4);
            self.after(begins, Event::Beat(n));
        }
        self.gateways = (0..gateways).map(|_| Place::new()).collect();
        let old = self.random.percent(10);
        self.check.mixed = old;
        for n in 0..replicas {
            self.replicas.push(Replica::new(n));
            for gateway in 0..gateways {
                self.ways.insert((n, gateway), Way::default());
            }
        }
        for n in 0..gateways {
            self.start_gateway(n, false);
        }
        for n in 0..replicas {
            self.start_replica(n, old && n == replicas - 1);
        }
        self.plan_faults(CALM_AFTER);
    }

    /// The pace of an instance.
    pub fn pace_of(&self, client: usize) -> Pace {
        let Client { ttl, interval, .. } = self.clients[client];
        Pace { ttl: Duration::from_micros(ttl), interval: Duration::from_micros(interval) }
    }

    /// A number that was not used before.
    pub fn fresh_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub fn at(&mut self, time: u64, event: Event) {
        let number = self.fresh_number();
        self.events.insert((time.max(self.now), number), event);
    }

    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{:>9} ms  {}", self.now / 1000, what());
        }
    }

    /// An event for a process that is suspended waits.
    fn held_by(&mut self, event: &Event) -> Option<&mut VecDeque<Event>> {
        match event {
            Event::ReplicaWakes { replica, .. }
            | Event::BrokenAtReplica { replica, .. }
            | Event::ApiReplies { replica, .. }
            | Event::Prune { replica, .. }
            | Event::Frame { replica, frame: Frame::Up(_), .. } => {
                self.replicas[*replica].held.as_mut()
            }
            Event::GatewayWakes { gateway, .. }
            | Event::BrokenAtGateway { gateway, .. }
            | Event::Request { gateway, .. }
            | Event::Cancel { gateway, .. }
            | Event::PathProven { gateway, .. }
            | Event::Frame { gateway, frame: Frame::Down(_), .. } => {
                self.gateways[*gateway].held.as_mut()
            }
            _ => None,
        }
    }

    fn happens(&mut self, event: Event) {
        if let Some(held) = self.held_by(&event) {
            held.push_back(event);
            return;
        }
        match event {
            Event::ReplicaWakes { replica, process }
            | Event::BrokenAtReplica { replica, process, .. }
            | Event::ApiReplies { replica, process, .. }
            | Event::Prune { replica, process, .. } => {
                if self.is_process(replica, process) {
                    self.happens_at_replica(event);
                }
            }
            Event::GatewayWakes { gateway, process }
            | Event::BrokenAtGateway { gateway, process, .. }
            | Event::PathProven { gateway, process, .. } => {
                if self.process_of(gateway) == process {
                    self.happens_at_gateway(event);
                }
            }
            Event::Request { gateway, process, .. } | Event::Cancel { gateway, process, .. } => {
                if self.gateways[gateway].epoch == process {
                    self.happens_at_gateway(event);
                }
            }
            Event::Frame { replica, gateway, stream, frame }
                if self.ways[&(replica, gateway)].stream == Some(stream) =>
            {
                self.frame_arrives(replica, gateway, frame);
            }
            event => self.happens_elsewhere(event),
        }
    }

    fn happens_at_replica(&mut self, event: Event) {
        match event {
            Event::ReplicaWakes { replica, .. } => self.replica_wakes(replica),
            Event::BrokenAtReplica { replica, gateway, pod, .. } => {
                self.broken_at_replica(replica, gateway, &pod);
            }
            Event::ApiReplies { replica, reply, sent, .. } => {
                self.api_replied(replica, reply, sent)
            }
            Event::Prune { replica, instance, decided, .. } => {
                self.prune(replica, instance, decided)
            }
            _ => {}
        }
    }

    fn happens_at_gateway(&mut self, event: Event) {
        match event {
            Event::GatewayWakes { gateway, .. } => self.gateway_wakes(gateway),
            Event::BrokenAtGateway { gateway, replica, .. } => {
                self.at_gateway(gateway, |gateway, _| gateway.disconnected(&replica));
            }
            Event::PathProven { gateway, replica, question, .. } => {
                self.at_gateway(gateway, |gateway, now| {
                    gateway.path_is_proven(&replica, question, now);
                });
            }
            Event::Request { gateway, request, client, .. } => {
                self.request_arrives(gateway, request, client);
            }
            Event::Cancel { gateway, request, .. } => {
                self.at_gateway(gateway, |gateway, _| gateway.cancel(request));
            }
            _ => {}
        }
    }

    fn happens_elsewhere(&mut self, event: Event) {
        match event {
            Event::ApiHandles { replica, process, request, sent } => {
                let reply = self.api.handle(&request);
                let delay = self.random.between(500, 8000);
                self.after(delay, Event::ApiReplies { replica, process, reply, sent });
            }
            Event::Dial { replica, gateway } => self.dial(replica, gateway),
            Event::Beat(client) => self.beats(client),
            Event::TimedOut { client, request } => self.timed_out(client, request),
            Event::Answer { client, request, answer } => self.answered(client, request, &answer),
            Event::Begins(fault) => self.begins(fault),
            Event::Ends(fault) => self.ends(fault),
            Event::Dies(client) => self.dies(client),
            _ => {}
        }
    }

    /// Sends a frame on the present stream of this way.
    pub fn send(&mut self, replica: usize, gateway: usize, frame: Frame) {
        let (now, delay) = (self.now, self.random.between(200, 2000));
        let Some(way) = self.ways.get_mut(&(replica, gateway)) else { return };
        let Some(stream) = way.stream else { return };
        let direction = way.direction(&frame);
        if direction.hangs {
            direction.held.push_back(frame);
            return;
        }
        direction.last = direction.last.max(now + delay);
        let arrives = direction.last;
        self.at(arrives, Event::Frame { replica, gateway, stream, frame });
    }

    /// Breaks the stream on a way: both ends learn it.
    pub fn break_stream(&mut self, replica: usize, gateway: usize) {
        let Some(way) = self.ways.get_mut(&(replica, gateway)) else { return };
        if way.stream.take().is_none() {
            return;
        }
        let process = self.replicas[replica].process;
        let name = self.replicas[replica].name.clone();
        let here = self.process_of(gateway);
        let pod = self.gateways[gateway].pod.clone();
        self.after(500, Event::BrokenAtReplica { replica, process, gateway, pod });
        self.after(500, Event::BrokenAtGateway { gateway, process: here, replica: name });
    }
}
