//! The faults of a schedule.

use std::collections::VecDeque;

use crate::{
    streams::Frame,
    world::{Event, SECOND, World},
};

/// A fault, which begins and ends.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A replica crashes, and starts again.
    ReplicaCrashes(usize),
    /// A leader gives up the lead and ends, as in a roll-out.
    ReplicaLeaves(usize),
    /// A replica is suspended.
    ReplicaSuspended(usize),
    /// A replica cannot reach the API server.
    ReplicaWithoutApi(usize),
    /// A gateway crashes, and starts again in the same Pod or in another one.
    GatewayCrashes { gateway: usize, same_pod: bool },
    /// A gateway ends in order, and another one takes its place.
    GatewayLeaves(usize),
    /// A gateway is suspended.
    GatewaySuspended(usize),
    /// A gateway cannot renew its own Lease.
    GatewayWithoutApi(usize),
    /// Instances cannot reach a gateway.
    GatewayWithoutInstances(usize),
    /// A stream breaks, and cannot be opened.
    StreamCut { replica: usize, gateway: usize },
    /// A stream delivers nothing in one direction, and then everything.
    StreamHangs { replica: usize, gateway: usize, up: bool },
    /// A zone dies: a replica and a gateway at once.
    ZoneDies { replica: usize, gateway: usize },
    /// Only the leader hears a gateway. Then both crash, and the gateway starts again.
    HalfHeard { gateway: usize, same_pod: bool },
    /// Everything stops, and starts again.
    EverythingRestarts,
}

impl World {
    /// Draws the faults of the schedule, all of which end before `calm`.
    pub fn plan_faults(&mut self, calm: u64) {
        let quiet = self.random.percent(5);
        let faults = if quiet { 0 } else { self.random.between(1, 14) };
        let busy = self.random.pick(&[40, 90, 200]) * SECOND;
        for _ in 0..faults {
            let fault = self.draw();
            let begins = self.random.between(10 * SECOND, busy);
            let lasts = self.length_of(fault);
            self.at(begins, Event::Begins(fault));
            self.at((begins + lasts).min(calm), Event::Ends(fault));
        }
        for client in 0..self.clients.len() {
            if self.random.percent(40) {
                let dies = self.random.between(5 * SECOND, calm);
                self.at(dies, Event::Dies(client));
            }
        }
        for replica in
            (0..self.replicas.len()).filter(|r| self.replicas[*r].old).collect::<Vec<_>>()
        {
            let upgraded = self.random.between(20 * SECOND, 100 * SECOND);
            self.at(upgraded, Event::Begins(Fault::ReplicaLeaves(replica)));
            self.at(upgraded + SECOND, Event::Ends(Fault::ReplicaLeaves(replica)));
        }
    }

    fn draw(&self) -> Fault {
        let replica = self.random.index(self.replicas.len());
        let gateway = self.random.index(self.gateways.len());
        match self.random.index(15) {
            0 => Fault::ReplicaCrashes(replica),
            1 => Fault::ReplicaLeaves(replica),
            2 => Fault::ReplicaSuspended(replica),
            3 => Fault::ReplicaWithoutApi(replica),
            4 => Fault::GatewayCrashes { gateway, same_pod: self.random.percent(50) },
            5 => Fault::GatewayLeaves(gateway),
            6 => Fault::GatewaySuspended(gateway),
            7 => Fault::GatewayWithoutApi(gateway),
            8 => Fault::GatewayWithoutInstances(gateway),
            9 => Fault::StreamCut { replica, gateway },
            10 => Fault::StreamHangs { replica, gateway, up: self.random.percent(50) },
            11 => Fault::ZoneDies { replica, gateway },
            12 | 13 => Fault::HalfHeard { gateway, same_pod: self.random.percent(50) },
            _ => Fault::EverythingRestarts,
        }
    }

    fn length_of(&self, fault: Fault) -> u64 {
        let (least, most) = match fault {
            Fault::ReplicaLeaves(_) | Fault::GatewayLeaves(_) => (100, 3000),
            Fault::StreamHangs { .. } | Fault::StreamCut { .. } => (300, 60_000),
            Fault::EverythingRestarts => (500, 8000),
            Fault::HalfHeard { .. } => (15_000, 30_000),
            _ => (300, 20_000),
        };
        self.random.between(least, most) * 1000
    }

    pub fn begins(&mut self, fault: Fault) {
        self.say(|| format!("begins: {fault:?}"));
        match fault {
            Fault::ReplicaCrashes(r) => self.stop_replica(r),
            Fault::ReplicaLeaves(r) => self.release(r),
            Fault::ReplicaSuspended(r) if self.replicas[r].state.is_some() => {
                self.replicas[r].held.get_or_insert_default();
            }
            Fault::ReplicaWithoutApi(r) => self.replicas[r].api_cut += 1,
            Fault::GatewayCrashes { gateway, .. } => self.stop_gateway(gateway),
            Fault::GatewayLeaves(gateway) if self.gateways[gateway].held.is_none() => {
                self.at_gateway(gateway, |gateway, now| gateway.leave(now));
                let ends = Fault::GatewayCrashes { gateway, same_pod: false };
                self.after(50_000, Event::Begins(ends));
            }
            Fault::GatewaySuspended(g) if self.gateways[g].gateway.is_some() => {
                self.gateways[g].held.get_or_insert_default();
            }
            Fault::GatewayWithoutApi(g) => self.gateways[g].api_cut += 1,
            Fault::GatewayWithoutInstances(g) => self.gateways[g].cut += 1,
            Fault::StreamCut { replica, gateway } => {
                self.way(replica, gateway).cuts += 1;
                self.break_stream(replica, gateway);
            }
            Fault::StreamHangs { replica, gateway, up } => {
                let way = self.way(replica, gateway);
                if up { way.up.hangs = true } else { way.down.hangs = true }
            }
            Fault::ZoneDies { replica, gateway } => {
                self.stop_replica(replica);
                self.stop_gateway(gateway);
            }
            Fault::HalfHeard { gateway, same_pod } => {
                self.let_only_the_leader_hear(gateway, same_pod)
            }
            Fault::EverythingRestarts => {
                (0..self.replicas.len()).for_each(|r| self.stop_replica(r));
                (0..self.gateways.len()).for_each(|g| self.stop_gateway(g));
            }
            _ => {}
        }
    }

    pub fn ends(&mut self, fault: Fault) {
        self.say(|| format!("ends: {fault:?}"));
        match fault {
            Fault::ReplicaCrashes(r) | Fault::ReplicaLeaves(r) => self.revive_replica(r),
            Fault::ReplicaSuspended(r) => {
                let held = self.replicas[r].held.take();
                self.resume(held);
            }
            Fault::ReplicaWithoutApi(r) => self.replicas[r].api_cut -= 1,
            Fault::GatewayCrashes { gateway, same_pod } => self.revive_gateway(gateway, same_pod),
            Fault::GatewayLeaves(g) => self.revive_gateway(g, false),
            Fault::GatewaySuspended(g) => {
                let held = self.gateways[g].held.take();
                self.resume(held);
            }
            Fault::GatewayWithoutApi(g) => self.gateways[g].api_cut -= 1,
            Fault::GatewayWithoutInstances(g) => self.gateways[g].cut -= 1,
            Fault::StreamCut { replica, gateway } => self.way(replica, gateway).cuts -= 1,
            Fault::StreamHangs { replica, gateway, up } => self.flow_again(replica, gateway, up),
            Fault::ZoneDies { replica, gateway } => {
                self.revive_replica(replica);
                self.revive_gateway(gateway, false);
            }
            Fault::HalfHeard { .. } => {
                for (replica, gateway) in std::mem::take(&mut self.deaf) {
                    self.way(replica, gateway).cuts -= 1;
                }
            }
            Fault::EverythingRestarts => {
                (0..self.replicas.len()).for_each(|r| self.revive_replica(r));
                for gateway in 0..self.gateways.len() {
                    let same_pod = self.random.percent(50);
                    self.revive_gateway(gateway, same_pod);
                }
            }
        }
    }

    fn let_only_the_leader_hear(&mut self, gateway: usize, same_pod: bool) {
        let leads = |world: &Self, r: usize| {
            world.replicas[r].state.as_ref().is_some_and(|state| state.term.is_some())
        };
        let Some(leader) = (0..self.replicas.len()).find(|r| leads(self, *r)) else { return };
        if !self.deaf.is_empty() {
            return;
        }
        let others = (0..self.replicas.len()).filter(|r| *r != leader);
        self.deaf = others.map(|replica| (replica, gateway)).collect();
        for (replica, gateway) in self.deaf.clone() {
            self.way(replica, gateway).cuts += 1;
            self.break_stream(replica, gateway);
        }
        let dies = self.now + self.random.between(2, 8) * SECOND;
        let (crash, both) =
            (Fault::GatewayCrashes { gateway, same_pod }, Fault::ReplicaCrashes(leader));
        let (soon, later) = (self.random.between(300, 3000), self.random.between(1000, 20_000));
        for (fault, lasts) in [(crash, soon), (both, later)] {
            self.at(dies, Event::Begins(fault));
            self.at(dies + lasts * 1000, Event::Ends(fault));
        }
        // The gateway is heard again by all once it has started again.
        self.at(dies + soon * 1000 + 1000, Event::Ends(Fault::HalfHeard { gateway, same_pod }));
    }

    fn revive_replica(&mut self, r: usize) {
        if self.replicas[r].state.is_none() {
            self.start_replica(r, false);
        }
    }

    fn revive_gateway(&mut self, g: usize, same_pod: bool) {
        if self.gateways[g].gateway.is_none() {
            self.start_gateway(g, same_pod);
        }
    }

    fn resume(&mut self, held: Option<VecDeque<Event>>) {
        for event in held.into_iter().flatten() {
            self.after(0, event);
        }
    }

    fn way(&mut self, replica: usize, gateway: usize) -> &mut crate::streams::Way {
        self.ways.get_mut(&(replica, gateway)).expect("each has a way")
    }

    fn flow_again(&mut self, replica: usize, gateway: usize, up: bool) {
        let way = self.way(replica, gateway);
        let direction = if up { &mut way.up } else { &mut way.down };
        direction.hangs = false;
        let held: Vec<Frame> = direction.held.drain(..).collect();
        for frame in held {
            self.send(replica, gateway, frame);
        }
    }
}
