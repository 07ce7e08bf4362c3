//! The instances: each beats every interval, and tries again at another gateway after a failure.

use beatkeeper_core::carriers::{
    frames::Incarnation,
    gateway::{Answer, RequestId},
};

use crate::world::{Event, SECOND, World};

/// An instance.
#[derive(Debug)]
pub struct Client {
    pub interval: u64,
    pub ttl: u64,
    pub alive: bool,
    /// The gateway that it uses.
    pub gateway: usize,
    /// The request that it waits for, when it was sent, and to which process.
    pub waits_for: Option<(RequestId, u64, Incarnation)>,
}

impl Client {
    pub fn new(interval: u64, ttl: u64, gateway: usize) -> Self {
        Self { interval, ttl, alive: true, gateway, waits_for: None }
    }

    /// How long it waits for an answer.
    fn patience(&self) -> u64 {
        ((self.ttl - self.interval) / 3).min(2 * SECOND)
    }
}

impl World {
    /// Sends a beat.
    pub fn beats(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if !client.alive || client.waits_for.is_some() {
            return;
        }
        let (patience, gateway) = (client.patience(), client.gateway);
        let request = RequestId(self.fresh_number());
        let me = self.gateways[gateway].incarnation();
        self.clients[n].waits_for = Some((request, self.now, me.clone()));
        let delay = self.random.between(500, 3000);
        self.after(delay, Event::Request { gateway, process: me.epoch, request, client: n });
        self.after(patience, Event::TimedOut { client: n, request });
    }

    /// A request has been answered.
    pub fn answered(&mut self, n: usize, request: RequestId, answer: &Answer) {
        let client = &mut self.clients[n];
        let Some((_, sent, _)) = client.waits_for.take_if(|(known, ..)| *known == request) else {
            return;
        };
        if !client.alive {
            return;
        }
        match answer {
            Answer::Accepted(_) => {
                let next = (sent + client.interval).max(self.now + 1);
                let accepted = &mut self.check.instances[n].accepted;
                *accepted = Some(accepted.map_or(sent, |known| known.max(sent)));
                self.at(next, Event::Beat(n));
            }
            _ => self.tries_again(n),
        }
    }

    /// No answer came in time: the request is closed, and another gateway is tried at once.
    pub fn timed_out(&mut self, n: usize, request: RequestId) {
        let client = &mut self.clients[n];
        let Some((_, _, me)) = client.waits_for.take_if(|(known, ..)| *known == request) else {
            return;
        };
        let gateway = client.gateway;
        self.after(1000, Event::Cancel { gateway, process: me.epoch, request });
        self.tries_again(n);
    }

    fn tries_again(&mut self, n: usize) {
        let gateways = self.gateways.len();
        self.clients[n].gateway = (self.clients[n].gateway + 1) % gateways;
        let jitter = self.random.between(10_000, 400_000);
        self.after(jitter, Event::Beat(n));
    }

    /// An instance dies. The system closes its connection.
    pub fn dies(&mut self, n: usize) {
        self.clients[n].alive = false;
        self.check.instances[n].died = Some(self.now);
        if let Some((request, _, me)) = self.clients[n].waits_for.take() {
            let gateway = self.clients[n].gateway;
            self.after(3000, Event::Cancel { gateway, process: me.epoch, request });
        }
    }
}
