//! Makes endpoints from verdicts. In one registration, an address:port is published only once, as long as any instance
//! that claims it is alive. The claim of a Pod has precedence.

use std::net::IpAddr;

use beatkeeper_api::InstanceState;
use hashbrown::HashSet;

use crate::{
    decide::verdict::Verdict,
    vocabulary::{
        endpoint::{Conditions, Endpoint, EndpointPort, EndpointsReadiness, PortSet, Protocol},
        reason::Reason,
    },
};

/// The endpoints to publish for these verdicts. `publish_not_ready` is the Service's publishNotReadyAddresses. If it
/// is set, instances that are not ready are published as ready.
pub fn endpoints<'a>(
    verdicts: impl IntoIterator<Item = &'a Verdict>,
    publish_not_ready: bool,
) -> Vec<Endpoint> {
    let mut claims: Vec<&Verdict> =
        verdicts.into_iter().filter(|verdict| verdict.is_published()).collect();
    claims.sort_by_key(|verdict| Precedence::of(verdict));

    let mut taken: HashSet<(IpAddr, u16, Protocol, &str)> = HashSet::with_capacity(claims.len());
    let mut endpoints = Vec::with_capacity(claims.len());
    for verdict in claims {
        let Some(placement) = &verdict.placement else { continue };
        for &address in &placement.addresses {
            let claimed: Vec<&EndpointPort> = placement
                .ports
                .ports()
                .iter()
                .filter(|port| !taken.insert((address, port.port, port.protocol, &port.name)))
                .collect();
            // If there are no ports, as in a headless Service, the address itself is claimed.
            let portless =
                placement.ports.is_empty() && taken.insert((address, 0, Protocol::Tcp, ""));
            if claimed.len() == placement.ports.ports().len() && !portless {
                continue;
            }
            let ports = if claimed.is_empty() {
                placement.ports.clone()
            } else {
                let free = placement.ports.ports().iter().filter(|port| !claimed.contains(port));
                PortSet::new(free.cloned().collect())
            };
            endpoints.push(Endpoint {
                address,
                ports,
                conditions: conditions(verdict, publish_not_ready),
                hostname: placement.hostname.clone(),
                node_name: placement.node_name.clone(),
                zone: placement.zone.clone(),
                pod: placement.pod.clone(),
                in_endpoints: in_endpoints(verdict, publish_not_ready),
            });
        }
    }
    endpoints
}

/// Which of two claims to one address and port is published. The order is: Pods before outside instances; then
/// instances that beat before adopted ones that have not beaten; then the instance that can serve more; then the first
/// by name, so that the choice is stable.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Precedence<'a>(bool, bool, u8, &'a str);

impl<'a> Precedence<'a> {
    pub(crate) fn of(verdict: &'a Verdict) -> Self {
        let outside = verdict.placement.as_ref().is_none_or(|placement| placement.pod.is_none());
        let usefulness = match verdict.state {
            InstanceState::Ready | InstanceState::Held => 0,
            InstanceState::Draining => 1,
            _ => 2,
        };
        Self(outside, verdict.reason == Reason::Adopted, usefulness, &verdict.instance)
    }
}

pub(crate) fn conditions(verdict: &Verdict, publish_not_ready: bool) -> Conditions {
    let kubelet_ready = verdict.placement.as_ref().is_none_or(|placement| placement.kubelet_ready);
    let (serving, terminating) = match verdict.state {
        InstanceState::Ready | InstanceState::Held => (kubelet_ready, false),
        InstanceState::Draining => (kubelet_ready, true),
        _ => (false, false),
    };
    // As in Kubernetes (endpointslice/utils.go), publishNotReadyAddresses overrides ready.
    Conditions { ready: publish_not_ready || (serving && !terminating), serving, terminating }
}

pub(crate) fn in_endpoints(
    verdict: &Verdict,
    publish_not_ready: bool,
) -> Option<EndpointsReadiness> {
    let Conditions { ready, terminating, .. } = conditions(verdict, publish_not_ready);
    match (ready, terminating) {
        (true, _) => Some(EndpointsReadiness::Ready),
        (false, false) => Some(EndpointsReadiness::NotReady),
        (false, true) => None,
    }
}
