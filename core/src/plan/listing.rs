//! Plans the Endpoints object: one list of all addresses, for clients that still read it.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};
use k8s_openapi::{
    api::core::v1::{self as core, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    plan::{
        meta::Required,
        read::write_pod,
        target::{EndpointsMode, MAX_ENDPOINTS_ADDRESSES, Target},
        write::{Tally, Write},
    },
    vocabulary::endpoint::{Endpoint, EndpointPort, EndpointsReadiness, Family, PortSet},
};

/// The write that the Endpoints object needs, if any.
pub(super) fn plan(target: &Target<'_>, published: Option<&core::Endpoints>) -> Option<Write> {
    match (target.endpoints_object, published) {
        (EndpointsMode::LeaveAlone, _) | (EndpointsMode::Off, None) => None,
        (EndpointsMode::Off, Some(object)) => {
            let going = object.metadata.deletion_timestamp.is_some();
            (!going).then(|| Write::delete_endpoints(&object.metadata))
        }
        (EndpointsMode::Publish, published) => publish(target, published),
    }
}

fn publish(target: &Target<'_>, published: Option<&core::Endpoints>) -> Option<Write> {
    let current = published.and_then(|object| object.subsets.as_deref()).unwrap_or_default();
    let (chosen, truncated) = choose(target, current);
    let subsets = subsets(&chosen);
    let required = Required::of_endpoints(target, truncated);
    // An object without addresses is kept. Clients that watch it would mistake its absence for the absence of the
    // Service.
    let Some(object) = published else {
        let name = Some(target.service.name.clone());
        let metadata = ObjectMeta { name, ..required.fresh() };
        return Some(Write::CreateEndpoints(core::Endpoints { metadata, subsets: some(subsets) }));
    };
    let tally = tally(&lines(current), &lines(&subsets));
    if tally == Tally::default() && required.is_met(&object.metadata) {
        return None;
    }
    let metadata = required.repaired(&object.metadata);
    Some(Write::UpdateEndpoints(core::Endpoints { metadata, subsets: some(subsets) }, tally))
}

/// An endpoint that is to be listed.
pub(super) type Listed<'a> = (&'a Endpoint, EndpointsReadiness);

/// Chooses the endpoints for which there is room, in a fixed order. The second value tells whether any were left out.
///
/// An endpoint that is listed stays listed. So an endpoint that is added or turns ready never displaces another one.
fn choose<'a>(target: &'a Target<'_>, current: &[core::EndpointSubset]) -> (Vec<Listed<'a>>, bool) {
    let primary = target.service.families.first().copied();
    let mut seen = HashSet::new();
    let mut chosen: Vec<Listed<'a>> = target
        .endpoints
        .iter()
        .filter(|endpoint| Some(Family::of(endpoint.address)) == primary)
        .filter_map(|endpoint| Some((endpoint, endpoint.in_endpoints?)))
        .filter(|(endpoint, _)| seen.insert((endpoint.address, &endpoint.ports)))
        .collect();
    let truncated = chosen.len() > MAX_ENDPOINTS_ADDRESSES;
    if truncated {
        let listed = listed(current);
        let is_listed = |endpoint: &Endpoint| {
            let ports = listed.get(&endpoint.address);
            ports.is_some_and(|ports| publishes_one(ports, &endpoint.ports))
        };
        let settled: HashSet<IpAddr> = chosen
            .iter()
            .filter(|(endpoint, _)| is_listed(endpoint))
            .map(|(endpoint, _)| endpoint.address)
            .collect();
        let rank = |(endpoint, readiness): Listed<'a>| {
            let Endpoint { address, ports, .. } = endpoint;
            let standing = match listed.contains_key(address) {
                true if is_listed(endpoint) => Standing::Listed,
                true if !settled.contains(address) => Standing::OtherPorts,
                _ => Standing::Newcomer,
            };
            ((standing, readiness, *address, ports), (endpoint, readiness))
        };
        let mut ranked: Vec<_> = chosen.into_iter().map(rank).collect();
        ranked.select_nth_unstable_by(MAX_ENDPOINTS_ADDRESSES, |(a, _), (b, _)| a.cmp(b));
        ranked.truncate(MAX_ENDPOINTS_ADDRESSES);
        chosen = ranked.into_iter().map(|(_, listed)| listed).collect();
    }
    chosen.sort_by(|(a, _), (b, _)| (&a.ports, a.address).cmp(&(&b.ports, b.address)));
    (chosen, truncated)
}

/// How an endpoint is listed so far. Endpoints of the first variants get room first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Listed with at least one of its ports.
    Listed,
    /// Listed with its address only, because its ports have changed.
    OtherPorts,
    /// Not listed.
    Newcomer,
}

/// The ports that an address is listed with. The application protocol does not distinguish two ports.
type Ports<'a> = HashSet<(&'a str, i32, &'a str)>;

fn listed(current: &[core::EndpointSubset]) -> HashMap<IpAddr, Ports<'_>> {
    let mut listed: HashMap<IpAddr, Ports<'_>> = HashMap::new();
    for Line { ip, port, .. } in lines(current) {
        if let Ok(address) = ip.parse() {
            let ports = listed.entry(address).or_default();
            ports.extend(port.map(|Port { name, port, protocol, .. }| (name, port, protocol)));
        }
    }
    listed
}

fn publishes_one(listed: &Ports<'_>, ports: &PortSet) -> bool {
    let is_listed = |port: &EndpointPort| {
        listed.contains(&(port.name.as_str(), i32::from(port.port), port.protocol.as_str()))
    };
    ports.is_empty() || ports.ports().iter().any(is_listed)
}

/// Returns one subset for each port set, in a fixed order. (The API server groups the addresses in another way, by
/// which ports have the same addresses. Therefore objects are compared by [`lines`].)
pub(super) fn subsets(chosen: &[Listed<'_>]) -> Vec<core::EndpointSubset> {
    let mut subsets = Vec::new();
    let mut details = HashMap::new();
    for members in chosen.chunk_by(|(a, _), (b, _)| a.ports == b.ports) {
        let Some((first, _)) = members.first() else { continue };
        let (mut ready, mut not_ready) = (Vec::new(), Vec::new());
        for (endpoint, readiness) in members {
            let address = write_address(endpoint);
            // The API server merges two entries with the same address and Pod, and keeps the details of one of them. So
            // the details have to agree. Otherwise every reconcile would find a difference to correct.
            let uid = endpoint.pod.as_ref().map(|pod| &pod.uid);
            let address = details.entry((endpoint.address, uid)).or_insert(address).clone();
            match readiness {
                EndpointsReadiness::Ready => ready.push(address),
                EndpointsReadiness::NotReady => not_ready.push(address),
            }
        }
        subsets.push(core::EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: some(first.ports.ports().iter().map(write_port).collect()),
        });
    }
    subsets
}

fn write_address(endpoint: &Endpoint) -> core::EndpointAddress {
    // An Endpoints object has neither zones nor conditions.
    let Endpoint {
        address,
        ports: _,
        conditions: _,
        hostname,
        node_name,
        zone: _,
        pod,
        in_endpoints: _,
    } = endpoint;
    core::EndpointAddress {
        hostname: hostname.clone(),
        ip: address.to_string(),
        node_name: node_name.clone(),
        target_ref: pod.as_ref().map(write_pod),
    }
}

fn write_port(port: &EndpointPort) -> core::EndpointPort {
    let EndpointPort { name, port, protocol, app_protocol } = port;
    core::EndpointPort {
        app_protocol: app_protocol.clone(),
        name: some(name.clone()),
        port: i32::from(*port),
        protocol: Some(protocol.as_str().to_owned()),
    }
}

/// Returns None for an empty value, because the API server leaves out empty fields.
fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// A port of a subset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Port<'a> {
    name: &'a str,
    port: i32,
    protocol: &'a str,
    app_protocol: Option<&'a str>,
}

/// One address with one port. The lines are what an Endpoints object says, no matter how it is grouped.
///
/// Two objects say the same if their lines are the same. The API server regroups the subsets that it is sent
/// (RepackSubsets in pkg/api/endpoints). So if two port sets share a port, a comparison of subsets would find a
/// difference every time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line<'a> {
    pub ip: &'a str,
    port: Option<Port<'a>>,
    ready: bool,
    hostname: Option<&'a str>,
    node_name: Option<&'a str>,
    target: Option<[Option<&'a str>; 7]>,
}

fn lines(subsets: &[core::EndpointSubset]) -> Vec<Line<'_>> {
    lines_of(subsets, |_| true)
}

/// The lines of some of the addresses.
pub(super) fn lines_of(
    subsets: &[core::EndpointSubset],
    is_one: impl Fn(&str) -> bool,
) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for subset in subsets {
        let core::EndpointSubset { addresses, not_ready_addresses, ports } = subset;
        let ports: Vec<Option<Port<'_>>> = match ports.as_deref().unwrap_or_default() {
            [] => vec![None],
            ports => ports.iter().map(|port| Some(read_port(port))).collect(),
        };
        let both = [(addresses, true), (not_ready_addresses, false)];
        for (addresses, ready) in both {
            for address in addresses.iter().flatten().filter(|address| is_one(&address.ip)) {
                let core::EndpointAddress { hostname, ip, node_name, target_ref } = address;
                lines.extend(ports.iter().map(|port| Line {
                    ip,
                    port: *port,
                    ready,
                    hostname: hostname.as_deref(),
                    node_name: node_name.as_deref(),
                    target: target_ref.as_ref().map(read_reference),
                }));
            }
        }
    }
    lines.sort_unstable();
    lines
}

fn read_port(port: &core::EndpointPort) -> Port<'_> {
    let core::EndpointPort { app_protocol, name, port, protocol } = port;
    Port {
        name: name.as_deref().unwrap_or_default(),
        port: *port,
        protocol: protocol.as_deref().unwrap_or("TCP"),
        app_protocol: app_protocol.as_deref(),
    }
}

fn read_reference(reference: &ObjectReference) -> [Option<&str>; 7] {
    let ObjectReference { api_version, field_path, kind, name, namespace, resource_version, uid } =
        reference;
    [api_version, field_path, kind, name, namespace, resource_version, uid]
        .map(|field| field.as_deref())
}

/// Counts the addresses that are added, removed and changed. Both lists must be sorted.
fn tally(before: &[Line<'_>], after: &[Line<'_>]) -> Tally {
    let same_address = |a: &Line<'_>, b: &Line<'_>| a.ip == b.ip;
    let mut before = before.chunk_by(same_address).peekable();
    let mut tally = Tally::default();
    for lines in after.chunk_by(same_address) {
        while before.next_if(|known| address(known) < address(lines)).is_some() {
            tally.removed += 1;
        }
        match before.next_if(|known| address(known) == address(lines)) {
            Some(known) => tally.changed += usize::from(known != lines),
            None => tally.added += 1,
        }
    }
    tally.removed += before.count();
    tally
}

/// The address that all these lines have.
fn address<'a>(lines: &[Line<'a>]) -> Option<&'a str> {
    lines.first().map(|line| line.ip)
}
