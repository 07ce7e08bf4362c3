//! Tests of the whole planner, against a model of the API server.

#![allow(clippy::unwrap_used, reason = "a test that meets nothing fails")]

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::Server;

use crate::{
    objects::marks::{self, Owner},
    plan::{
        diff::plan,
        target::{EndpointsMode, Published, ServiceFacts, Target},
        write::{Plan, Write},
    },
    vocabulary::endpoint::{
        Conditions, Endpoint, EndpointPort, EndpointsReadiness, Family, PodRef, PortSet, Protocol,
    },
};

mod edits;
mod kept;
mod listing;
mod metadata;
mod model;
mod moves;
mod packing;
mod properties;
mod repair;

/// A Service and its registration.
#[derive(Clone)]
struct World {
    owner: Owner,
    service: ServiceFacts,
    max: usize,
    mode: EndpointsMode,
    trigger_time: Option<jiff::Timestamp>,
    closed: HashSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            owner: Owner {
                namespace: "shop".to_owned(),
                name: "greeter".to_owned(),
                uid: "uid-of-greeter".to_owned(),
            },
            service: ServiceFacts {
                name: "greeter".to_owned(),
                headless: false,
                families: vec![Family::V4, Family::V6],
            },
            max: 100,
            mode: EndpointsMode::Publish,
            trigger_time: None,
            closed: HashSet::new(),
        }
    }

    fn plan(&self, server: &Server, endpoints: &[Endpoint]) -> Plan {
        let slices: Vec<EndpointSlice> = server.slices.values().cloned().collect();
        let target = Target {
            owner: &self.owner,
            service: &self.service,
            endpoints: endpoints.to_vec(),
            max_endpoints_per_slice: self.max,
            trigger_time: self.trigger_time,
            endpoints_object: self.mode,
            closed: self.closed.clone(),
        };
        plan(
            &target,
            Published { slices: slices.iter().collect(), endpoints: server.endpoints.as_ref() },
        )
    }

    /// Makes a plan and carries it out. Checks that nothing is left to do afterwards, and that no wanted endpoint
    /// disappeared in between. Returns the plan.
    fn publish(&self, server: &mut Server, endpoints: &[Endpoint]) -> Plan {
        let plan = self.plan(server, endpoints);
        let wanted = self.wanted(endpoints);
        server.carry_out(&plan, &wanted);
        let rest = self.plan(server, endpoints);
        assert!(rest.is_empty(), "left to do after [{plan}]: [{rest}]");
        assert_eq!(server.tuples(), wanted);
        plan
    }

    fn published(&self, endpoints: &[Endpoint]) -> Server {
        let mut server = Server::default();
        self.publish(&mut server, endpoints);
        server
    }

    /// The tuples that have to be published.
    fn wanted(&self, endpoints: &[Endpoint]) -> BTreeSet<Tuple> {
        endpoints
            .iter()
            .filter(|endpoint| self.service.families.contains(&Family::of(endpoint.address)))
            .flat_map(|endpoint| {
                let ports = endpoint.ports.ports().iter();
                let mut tuples: Vec<Tuple> = ports
                    .map(|port| {
                        let key = (port.name.clone(), i32::from(port.port), port.protocol.as_str());
                        (endpoint.address, Some((key.0, key.1, key.2.to_owned())))
                    })
                    .collect();
                if tuples.is_empty() {
                    tuples.push((endpoint.address, None));
                }
                tuples
            })
            .collect()
    }
}

/// An address with the name, the number and the protocol of a port. The port is None if the endpoint has no ports.
type Tuple = (IpAddr, Option<(String, i32, String)>);

fn port(name: &str, number: u16) -> EndpointPort {
    EndpointPort {
        name: name.to_owned(),
        port: number,
        protocol: Protocol::Tcp,
        app_protocol: None,
    }
}

fn ports(ports: &[(&str, u16)]) -> PortSet {
    PortSet::new(ports.iter().map(|(name, number)| port(name, *number)).collect())
}

const READY: Conditions = Conditions { ready: true, serving: true, terminating: false };
const NOT_READY: Conditions = Conditions { ready: false, serving: false, terminating: false };
const DRAINING: Conditions = Conditions { ready: false, serving: true, terminating: true };

fn endpoint(address: &str, ports: &PortSet) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ports: ports.clone(),
        conditions: READY,
        hostname: None,
        node_name: Some("node-1".to_owned()),
        zone: Some("eu-1a".to_owned()),
        pod: Some(PodRef {
            namespace: "shop".to_owned(),
            name: format!("greeter-{}", address.replace(['.', ':'], "-")),
            uid: format!("uid-of-{address}"),
        }),
        in_endpoints: Some(EndpointsReadiness::Ready),
    }
}

/// Endpoints in 10.0.0.0/8, in order, with the numbers of the range.
fn fleet(range: std::ops::Range<usize>, ports: &PortSet) -> Vec<Endpoint> {
    range
        .map(|number| {
            endpoint(&format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255), ports)
        })
        .collect()
}

fn not_ready(endpoint: &mut Endpoint) {
    endpoint.conditions = NOT_READY;
    endpoint.in_endpoints = Some(EndpointsReadiness::NotReady);
}

/// The phases of a plan, with one line for each write.
fn lines(plan: &Plan) -> Vec<Vec<String>> {
    plan.phases.iter().map(|phase| phase.iter().map(Write::to_string).collect()).collect()
}
