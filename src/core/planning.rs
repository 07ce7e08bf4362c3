//! The plan step: what is to be published, and by which writes.

use std::{collections::HashMap, net::IpAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use jiff::Timestamp;

use super::{
    claims,
    endpoint::{Endpoint, EndpointPort, PortSet, Protocol},
    plan::{
        self, EndpointsMode, Owner, Plan, Published, ServiceFacts, Target, meta::HEADLESS_LABEL,
    },
    registration::Registration,
    service::ServiceView,
    stage::Stage,
    verdict::Verdict,
};

/// How the administrator wants things published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether Endpoints objects are written.
    pub publish_endpoints: bool,
    /// Most endpoints in a slice.
    pub max_endpoints_per_slice: usize,
}

/// Plans the writes; `wall` is the time that consumers are told as that of the change.
pub fn draw_up(
    registration: &Registration,
    stage: &Stage,
    verdicts: &[Verdict],
    style: Style,
    wall: Timestamp,
) -> Plan {
    let service = stage.service.as_deref();
    let publish_not_ready = service.is_some_and(|service| service.publish_not_ready);
    let mut endpoints = claims::endpoints(verdicts, publish_not_ready);
    let closed = stage.stall.is_some() || service.is_none();
    if closed {
        endpoints = still_alive(&endpoints, stage);
    }
    let target = Target {
        owner: &Owner {
            namespace: registration.key.namespace.clone(),
            name: registration.key.name.clone(),
            uid: registration.uid.clone(),
        },
        service: &ServiceFacts {
            name: registration.service_name.clone(),
            headless: service.map_or_else(|| were_headless(stage), |service| service.headless),
            families: stage.families().to_vec(),
        },
        endpoints,
        max_endpoints_per_slice: style.max_endpoints_per_slice,
        trigger_time: Some(wall),
        endpoints_object: endpoints_mode(stage, service, closed, style),
    };
    let published = Published {
        slices: stage.gathered.slices.iter().map(AsRef::as_ref).collect(),
        endpoints: stage.gathered.endpoints.as_deref(),
    };
    plan::plan(&target, published)
}

/// Without the Service the slices say what it was.
fn were_headless(stage: &Stage) -> bool {
    let labels = stage.gathered.slices.iter().filter_map(|slice| slice.metadata.labels.as_ref());
    labels.into_iter().any(|labels| labels.contains_key(HEADLESS_LABEL))
}

fn endpoints_mode(
    stage: &Stage,
    service: Option<&ServiceView>,
    closed: bool,
    style: Style,
) -> EndpointsMode {
    let ours = stage.gathered.endpoints.is_some();
    // Of a Service with a selector the Endpoints are the cluster's, even if we made them; without a
    // Service the cluster deletes them; and where nothing may be added none is made.
    let others = service.is_none_or(|service| service.selects);
    match () {
        () if others || stage.gathered.neighbours.foreign_endpoints || (closed && !ours) => {
            EndpointsMode::LeaveAlone
        }
        () if !style.publish_endpoints => EndpointsMode::Off,
        () => EndpointsMode::Publish,
    }
}

/// Nothing may be added and nothing changed: of what is published, that whose instance lives.
fn still_alive(claims: &[Endpoint], stage: &Stage) -> Vec<Endpoint> {
    let mut by_address: HashMap<IpAddr, Vec<&Endpoint>> = HashMap::new();
    for claim in claims {
        by_address.entry(claim.address).or_default().push(claim);
    }
    let mut alive = Vec::new();
    for slice in &stage.gathered.slices {
        let ports = published_ports(slice);
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        for address in addresses.filter_map(|address| address.parse::<IpAddr>().ok()) {
            let claim = by_address
                .get(&address)
                .into_iter()
                .flatten()
                .find(|claim| claim.ports.is_empty() || claim.ports.meets(&ports));
            alive.extend(claim.map(|claim| Endpoint { ports: ports.clone(), ..(*claim).clone() }));
        }
    }
    alive
}

fn published_ports(slice: &EndpointSlice) -> PortSet {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone().unwrap_or_default(),
            port: u16::try_from(port.port?).ok()?,
            protocol: Protocol::read(port.protocol.as_deref().unwrap_or("TCP"))?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    PortSet::new(ports.collect())
}
