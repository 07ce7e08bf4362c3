//! Converts slices between the API and the planner: it reads published slices, and writes wanted endpoints.

use std::{collections::HashMap, net::IpAddr};

use k8s_openapi::api::{core::v1::ObjectReference, discovery::v1 as discovery};

use crate::{
    objects::marks::SERVICE_NAME_LABEL,
    vocabulary::endpoint::{Conditions, Endpoint, EndpointPort, Family, PodRef, PortSet, Protocol},
};

/// What distinguishes a port for a consumer. The application protocol is only additional information.
type PortKey = (String, u16, Protocol);

/// A number for a port, so that many ports can be compared quickly. An empty port set gets one number of its own, so
/// that an endpoint without ports is also something that can be lost.
pub(super) type PortId = u32;

/// Something published that a consumer may use: an address with one of its ports.
pub(super) type Tuple = (IpAddr, PortId);

/// Assigns a [`PortId`] to each port.
#[derive(Default)]
pub(super) struct PortIds(HashMap<Option<PortKey>, PortId>);

impl PortIds {
    /// The ports of a group.
    pub fn of_set(&mut self, ports: &PortSet) -> Vec<PortId> {
        let mut keys: Vec<_> = ports
            .ports()
            .iter()
            .map(|port| Some((port.name.clone(), port.port, port.protocol)))
            .collect();
        if keys.is_empty() {
            keys.push(None);
        }
        keys.into_iter().map(|key| self.id(key)).collect()
    }

    /// The ports of a slice that can be identified. A port without a number cannot.
    fn of_slice(&mut self, ports: &[discovery::EndpointPort]) -> Vec<PortId> {
        if ports.is_empty() {
            return vec![self.id(None)];
        }
        let known = ports.iter().filter_map(parse_port);
        known.map(|port| self.id(Some((port.name, port.port, port.protocol)))).collect()
    }

    fn id(&mut self, key: Option<PortKey>) -> PortId {
        let next = PortId::try_from(self.0.len()).expect("fewer ports than fit into memory");
        *self.0.entry(key).or_insert(next)
    }
}

/// A published slice.
pub(super) struct Slice<'a> {
    pub object: &'a discovery::EndpointSlice,
    /// None if the address type is one that we do not publish. The address type of a slice is immutable.
    pub family: Option<Family>,
    /// None if the ports are not as we write them: a port has no number, or its number is out of range.
    pub ports: Option<PortSet>,
    pub port_ids: Vec<PortId>,
    /// Whether consumers find the slice, which they look up by its label. An invisible slice keeps no endpoint
    /// published.
    pub visible: bool,
    pub members: Vec<Member>,
}

/// An endpoint of a published slice.
pub(super) struct Member {
    /// The addresses that a consumer may use. We write one address; a manual edit may have added others.
    pub addresses: Vec<IpAddr>,
    /// The address of an endpoint that has exactly one address, as we write it.
    pub only: Option<IpAddr>,
}

impl<'a> Slice<'a> {
    pub fn read(
        object: &'a discovery::EndpointSlice,
        service: &str,
        port_ids: &mut PortIds,
    ) -> Self {
        let family =
            [Family::V4, Family::V6].into_iter().find(|it| it.as_str() == object.address_type);
        let ports = object.ports.as_deref().unwrap_or_default();
        let labels = object.metadata.labels.as_ref();
        let members = object.endpoints.iter().map(|endpoint| {
            let addresses: Vec<IpAddr> = endpoint
                .addresses
                .iter()
                .filter_map(|address| address.parse().ok())
                .filter(|address| Some(Family::of(*address)) == family)
                .collect();
            let only = match (addresses.as_slice(), endpoint.addresses.len()) {
                ([address], 1) => Some(*address),
                _ => None,
            };
            Member { addresses, only }
        });
        Self {
            object,
            family,
            ports: ports_of(object),
            port_ids: port_ids.of_slice(ports),
            visible: labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).map(String::as_str)
                == Some(service),
            members: members.collect(),
        }
    }

    /// The tuples that the slice publishes through one of its endpoints.
    pub fn tuples(&self, member: &Member) -> impl Iterator<Item = Tuple> {
        let visible = self.visible;
        let addresses = member.addresses.iter().filter(move |_| visible);
        addresses.flat_map(|address| self.port_ids.iter().map(|port| (*address, *port)))
    }

    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
}

/// The ports of a slice. None if they are not as we write them.
pub(crate) fn ports_of(slice: &discovery::EndpointSlice) -> Option<PortSet> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    ports.iter().map(parse_port).collect::<Option<Vec<_>>>().map(PortSet::new)
}

fn parse_port(port: &discovery::EndpointPort) -> Option<EndpointPort> {
    let discovery::EndpointPort { app_protocol, name, port, protocol } = port;
    let protocol = protocol.as_deref().unwrap_or("TCP");
    Some(EndpointPort {
        name: name.clone().unwrap_or_default(),
        port: u16::try_from((*port)?).ok().filter(|port| *port > 0)?,
        protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|known| known.as_str() == protocol)?,
        app_protocol: app_protocol.clone(),
    })
}

/// Converts ports to what we write into a slice.
pub(super) fn write_ports(ports: &PortSet) -> Vec<discovery::EndpointPort> {
    let write = |port: &EndpointPort| {
        let EndpointPort { name, port, protocol, app_protocol } = port;
        discovery::EndpointPort {
            name: Some(name.clone()),
            port: Some(i32::from(*port)),
            protocol: Some(protocol.as_str().to_owned()),
            app_protocol: app_protocol.clone(),
        }
    };
    ports.ports().iter().map(write).collect()
}

/// Converts an endpoint to what we write into a slice.
pub(super) fn write_endpoint(endpoint: &Endpoint) -> discovery::Endpoint {
    // `ports` is written once for the whole slice, and `in_endpoints` concerns the Endpoints object.
    let Endpoint { address, ports: _, conditions, hostname, node_name, zone, pod, in_endpoints: _ } =
        endpoint;
    let Conditions { ready, serving, terminating } = *conditions;
    discovery::Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        deprecated_topology: None,
        hints: None,
        hostname: hostname.clone(),
        node_name: node_name.clone(),
        target_ref: pod.as_ref().map(write_pod),
        zone: zone.clone(),
    }
}

/// The reference to a Pod, with the fields that the controllers of Kubernetes fill in.
pub(super) fn write_pod(pod: &PodRef) -> ObjectReference {
    let PodRef { namespace, name, uid } = pod;
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        uid: Some(uid.clone()),
        ..ObjectReference::default()
    }
}

/// Whether an endpoint is published as it is wanted. This is checked for thousands of endpoints, so nothing is
/// allocated just for the comparison.
pub(crate) fn says(published: &discovery::Endpoint, wanted: &Endpoint) -> bool {
    let discovery::Endpoint {
        addresses,
        conditions,
        deprecated_topology,
        hints,
        hostname,
        node_name,
        target_ref,
        zone,
    } = published;
    let wanted_conditions = discovery::EndpointConditions {
        ready: Some(wanted.conditions.ready),
        serving: Some(wanted.conditions.serving),
        terminating: Some(wanted.conditions.terminating),
    };
    *conditions == Some(wanted_conditions)
        && *hostname == wanted.hostname
        && *node_name == wanted.node_name
        && *zone == wanted.zone
        && points_to(target_ref.as_ref(), wanted.pod.as_ref())
        && hints.is_none()
        && deprecated_topology.as_ref().is_none_or(|topology| topology.is_empty())
        && matches!(addresses.as_slice(), [text] if is_written(text, wanted.address))
}

/// Whether a text is the address as we write it.
fn is_written(text: &str, address: IpAddr) -> bool {
    match address {
        // There is only one valid text for an IPv4 address.
        IpAddr::V4(address) => text.parse() == Ok(address),
        IpAddr::V6(address) => text == address.to_string(),
    }
}

/// Whether a reference is what we write for this Pod.
fn points_to(reference: Option<&ObjectReference>, pod: Option<&PodRef>) -> bool {
    let (Some(reference), Some(pod)) = (reference, pod) else {
        return reference.is_none() && pod.is_none();
    };
    let ObjectReference { kind, namespace, name, uid, api_version, field_path, resource_version } =
        reference;
    let is = |text: &Option<String>, wanted: &str| text.as_deref() == Some(wanted);
    is(kind, "Pod")
        && is(namespace, &pod.namespace)
        && is(name, &pod.name)
        && is(uid, &pod.uid)
        && [api_version, field_path, resource_version].into_iter().all(Option::is_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_recognised_and_no_other_text_for_it() {
        for text in ["192.0.2.10", "2001:db8::1", "::ffff:192.0.2.10"] {
            assert!(is_written(text, text.parse().expect("an address")), "{text}");
        }
        let address = "192.0.2.1".parse().expect("an address");
        for other in ["192.0.2.01", "192.0.2.2", " 192.0.2.1", "192.0.2.1/32", "::ffff:192.0.2.1"] {
            assert!(!is_written(other, address), "{other}");
        }
        assert!(!is_written("2001:DB8::1", "2001:db8::1".parse().expect("an address")));
    }

    #[test]
    fn a_reference_with_anything_else_in_it_is_not_the_one_we_write() {
        let name = |name: &str| name.to_owned();
        let pod = PodRef { namespace: name("shop"), name: name("greeter-0"), uid: name("u-1") };
        let ours = write_pod(&pod);
        assert!(points_to(Some(&ours), Some(&pod)) && points_to(None, None));
        assert!(!points_to(Some(&ours), None) && !points_to(None, Some(&pod)));
        let changes: [fn(&mut ObjectReference, Option<String>); 7] = [
            |it, text| it.kind = text,
            |it, text| it.namespace = text,
            |it, text| it.name = text,
            |it, text| it.uid = text,
            |it, text| it.api_version = text,
            |it, text| it.field_path = text,
            |it, text| it.resource_version = text,
        ];
        for change in changes {
            let mut other = ours.clone();
            change(&mut other, Some(name("other")));
            assert!(!points_to(Some(&other), Some(&pod)), "{other:?}");
        }
    }
}
