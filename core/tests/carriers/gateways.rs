//! The processes of the gateways.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::{Down, Incarnation, Question, ReplicaName, Up},
        gateway::{Answer, Gateway, Output, RequestId},
        rights::{BoundPod, Identity},
    },
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

use crate::{
    rules::Without,
    streams::Frame,
    world::{Event, LEASE_DURATION, SECOND, World},
};

/// The place of a gateway, with its present process.
#[derive(Debug)]
pub struct Place {
    /// `None` while it is down.
    pub gateway: Option<Gateway>,
    pub pod: Arc<str>,
    pub epoch: u64,
    /// Events that wait for the end of a suspension.
    pub held: Option<VecDeque<Event>>,
    /// How many faults cut the instances off.
    pub cut: u32,
    /// How many faults cut it off from the API server.
    pub api_cut: u32,
    /// When its own Lease was last renewed.
    pub beaten: u64,
    offset: u64,
    /// The requests of the instances, to answer them.
    requests: Vec<(RequestId, usize)>,
}

impl Place {
    pub fn new() -> Self {
        Self {
            gateway: None,
            pod: "".into(),
            epoch: 0,
            held: None,
            cut: 0,
            api_cut: 0,
            beaten: 0,
            offset: 0,
            requests: Vec::new(),
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        Incarnation { pod: self.pod.clone(), epoch: self.epoch }
    }

    fn clock(&self, now: u64) -> MonotonicTime {
        MonotonicTime::from_start(Duration::from_micros(now + self.offset))
    }
}

/// The Lease of an instance.
pub fn lease(instance: usize) -> Key {
    Key::new("shop", format!("reg.{instance:03}"))
}

/// The Pod of an instance.
pub fn pod(instance: usize) -> BoundPod {
    BoundPod { name: format!("pod-{instance}").into(), uid: format!("uid-{instance}").into() }
}

fn identity(instance: usize) -> Identity {
    Identity { user: "system:serviceaccount:shop:default".into(), pod: Some(pod(instance)) }
}

impl World {
    /// Starts a process of a gateway, in the same Pod or in a new one.
    pub fn start_gateway(&mut self, n: usize, same_pod: bool) {
        let number = self.fresh_number();
        let offset = self.random.between(0, 1_000_000_000);
        let now = self.now;
        let keeps_epoch = self.without == Without::Epochs;
        let place = &mut self.gateways[n];
        if !same_pod || place.epoch == 0 {
            place.pod = format!("gateway-{n}-{number}").into();
        }
        place.epoch =
            if keeps_epoch && same_pod && place.epoch != 0 { place.epoch } else { number };
        (place.offset, place.held, place.beaten) = (offset, None, now);
        let clock = place.clock(now);
        place.gateway = Some(Gateway::new(place.incarnation(), LEASE_DURATION, clock));
        place.requests.clear();
        let process = self.process_of(n);
        self.after(1000, Event::GatewayWakes { gateway: n, process });
    }

    /// The number of the present process, which no other process has even if it takes the same epoch.
    pub fn process_of(&self, n: usize) -> u64 {
        self.gateways[n].offset
    }

    /// Ends a process of a gateway. What it held is lost.
    pub fn stop_gateway(&mut self, n: usize) {
        self.gateways[n].gateway = None;
        self.gateways[n].held = None;
        for replica in 0..self.replicas.len() {
            self.break_stream(replica, n);
        }
    }

    /// Lets the state machine do something, and carries out what it wants.
    pub fn at_gateway(&mut self, n: usize, act: impl FnOnce(&mut Gateway, MonotonicTime)) {
        let now = self.now;
        let place = &mut self.gateways[n];
        let clock = place.clock(now);
        let Some(gateway) = &mut place.gateway else { return };
        act(gateway, clock);
        for output in gateway.outputs() {
            match output {
                Output::Send(replica, frame) => self.send_up(n, &replica, frame),
                Output::Answer(request, answer) => self.reply(n, request, answer),
                Output::ProvePath(replica, question) => self.prove_path(n, replica, question),
            }
        }
    }

    fn send_up(&mut self, n: usize, replica: &ReplicaName, frame: Up) {
        if let Some(r) = self.replicas.iter().position(|known| known.name == *replica) {
            self.send(r, n, Frame::Up(frame));
        }
    }

    fn reply(&mut self, n: usize, request: RequestId, answer: Answer) {
        let requests = &mut self.gateways[n].requests;
        let Some(place) = requests.iter().position(|(known, _)| *known == request) else { return };
        let (_, client) = requests.swap_remove(place);
        if self.gateways[n].cut == 0 {
            let delay = self.random.between(500, 3000);
            self.after(delay, Event::Answer { client, request, answer });
        }
    }

    /// A beat of the gateway's own goes the way of all beats.
    fn prove_path(&mut self, n: usize, replica: ReplicaName, question: Question) {
        if self.gateways[n].cut == 0 || self.without == Without::ProvenPath {
            let delay = self.random.between(500, 3000);
            let process = self.process_of(n);
            self.after(delay, Event::PathProven { gateway: n, process, replica, question });
        }
    }

    /// The request of an instance arrives.
    pub fn request_arrives(&mut self, n: usize, request: RequestId, client: usize) {
        if self.gateways[n].cut > 0 {
            return;
        }
        let here = self.gateways[n].gateway.is_some();
        if !here {
            let refused = Answer::Unavailable { retry_after: Duration::ZERO, cut_off: true };
            self.after(1000, Event::Answer { client, request, answer: refused });
            return;
        }
        self.gateways[n].requests.push((request, client));
        let (lease, identity) = (lease(client), identity(client));
        self.at_gateway(n, |gateway, now| gateway.beat(request, &lease, &identity, now));
        if self.without == Without::Acknowledgement {
            let pace = self.pace_of(client);
            self.reply(n, request, Answer::Accepted(pace));
        }
    }

    /// A gateway does its regular work. It renews its own Lease, too.
    pub fn gateway_wakes(&mut self, n: usize) {
        self.at_gateway(n, |gateway, now| gateway.wake(now));
        let now = self.now;
        let place = &mut self.gateways[n];
        if place.api_cut == 0 {
            place.beaten = now;
        }
        let Some(gateway) = &place.gateway else { return };
        let wait = gateway.next_wake().since(place.clock(now));
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).clamp(1000, 250_000);
        let process = self.process_of(n);
        self.after(wait, Event::GatewayWakes { gateway: n, process });
    }

    /// A frame of a replica arrives.
    pub fn down_arrives(&mut self, r: usize, n: usize, frame: Down) {
        let replica = self.replicas[r].name.clone();
        self.at_gateway(n, |gateway, now| gateway.receive(&replica, frame, now));
    }

    /// The processes of gateways with a stream to this replica.
    pub fn open_streams(&self, r: usize) -> BTreeSet<Incarnation> {
        let open = self.gateways.iter().enumerate();
        let open = open.filter(|(g, _)| self.ways[&(r, *g)].stream.is_some());
        open.map(|(_, gateway)| gateway.incarnation()).collect()
    }

    /// The Pods of gateways whose own Lease has been silent for its ttl of proven time.
    pub fn silent_gateways(&self, r: usize) -> BTreeSet<Arc<str>> {
        if self.replicas[r].api_cut > 0 {
            return BTreeSet::new();
        }
        let silent = self.gateways.iter().filter(|gateway| {
            let rests = gateway.gateway.is_none() || gateway.held.is_some() || gateway.api_cut > 0;
            rests && self.now > gateway.beaten + 5 * SECOND
        });
        silent.map(|gateway| gateway.pod.clone()).collect()
    }
}
