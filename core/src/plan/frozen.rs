//! What stays published while a registration may neither add nor change anything.
//!
//! Then an instance leaves only if it is decided to be dead, gone, cordoned or refused. An edit of the registration or
//! of the Service removes no address. What is published keeps its ports and other fields until the edit can be applied
//! as a whole.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use k8s_openapi::api::discovery::v1 as discovery;

use crate::{
    decide::verdict::Verdict,
    inputs::Inputs,
    plan::endpoint_conflicts,
    vocabulary::endpoint::{Endpoint, EndpointPort, Family, PortSet, Protocol},
};

/// The published endpoints that have an instance that is alive, with their present ports.
pub(crate) fn endpoints(
    verdicts: &[Verdict],
    inputs: &Inputs,
    publish_not_ready: bool,
) -> Vec<Endpoint> {
    let published = published(inputs);
    let mut claims: HashMap<IpAddr, Vec<&Verdict>> = HashMap::with_capacity(published.len());
    for verdict in verdicts {
        for address in verdict.placement.iter().flat_map(|placement| &placement.addresses) {
            claims.entry(*address).or_default().push(verdict);
        }
    }
    let mut kept = Vec::new();
    for (address, entries) in &published {
        let claims = claims.get(address).map(Vec::as_slice).unwrap_or_default();
        for (entry, claim) in (Site { claims, entries }).kept() {
            let discovery::Endpoint { hostname, node_name, zone, .. } = entry.endpoint;
            kept.push(Endpoint {
                address: *address,
                ports: entry.ports.clone(),
                conditions: endpoint_conflicts::conditions(claim, publish_not_ready),
                hostname: hostname.clone(),
                node_name: node_name.clone(),
                zone: zone.clone(),
                pod: claim.placement.as_ref().and_then(|placement| placement.pod.clone()),
                in_endpoints: endpoint_conflicts::in_endpoints(claim, publish_not_ready),
            });
        }
    }
    kept
}

/// The family of the addresses in the Endpoints object, if it lists any.
pub(crate) fn listed_family(inputs: &Inputs) -> Option<Family> {
    let subsets = inputs.snapshot.endpoints.as_ref()?.subsets.as_deref()?;
    let listed = subsets.iter().flat_map(|subset| {
        subset.addresses.iter().flatten().chain(subset.not_ready_addresses.iter().flatten())
    });
    listed.filter_map(|address| address.ip.parse().ok()).map(Family::of).next()
}

/// A published address with one set of ports.
struct Entry<'a> {
    endpoint: &'a discovery::Endpoint,
    ports: PortSet,
}

fn published(inputs: &Inputs) -> BTreeMap<IpAddr, Vec<Entry<'_>>> {
    let mut published: BTreeMap<IpAddr, Vec<Entry<'_>>> = BTreeMap::new();
    for slice in &inputs.snapshot.slices {
        let ports = published_ports(slice);
        for endpoint in &slice.endpoints {
            for address in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
                let entries = published.entry(address).or_default();
                if entries.iter().all(|entry| entry.ports != ports) {
                    entries.push(Entry { endpoint, ports: ports.clone() });
                }
            }
        }
    }
    published
}

/// What is known of one address: the instances that claim it, and the entries that are published.
struct Site<'a> {
    claims: &'a [&'a Verdict],
    entries: &'a [Entry<'a>],
}

impl<'a> Site<'a> {
    /// The entries that stay, each with the claim for which it stays. After an edit, an instance may claim other ports
    /// than those with which it is published. If an entry is then claimed by no instance, it stays as long as an
    /// instance that is alive may belong to it, because it is not known which of several entries belongs to which
    /// instance.
    fn kept(&self) -> impl Iterator<Item = (&'a Entry<'a>, &'a Verdict)> {
        let claimed: Vec<Option<&'a Verdict>> = self
            .entries
            .iter()
            .map(|entry| {
                self.living(entry).filter(|it| claims_ports(it, &entry.ports)).min_by_key(order)
            })
            .collect();
        let unplaced = |entry: &Entry<'_>| {
            let living = self.living(entry).count();
            living > claimed.iter().flatten().count()
        };
        let kept: Vec<_> = self
            .entries
            .iter()
            .zip(&claimed)
            .filter_map(|(entry, claimed)| {
                let dead = |claim: &&&Verdict| {
                    !claim.is_published()
                        && is_of(claim, entry)
                        && claims_ports(claim, &entry.ports)
                };
                let heir = || {
                    let left_over = unplaced(entry) && self.claims.iter().find(dead).is_none();
                    self.living(entry).filter(|_| left_over).min_by_key(order)
                };
                Some((entry, claimed.or_else(heir)?))
            })
            .collect();
        kept.into_iter()
    }

    /// The instances that are alive and may belong to an entry.
    fn living(&self, entry: &Entry<'_>) -> impl Iterator<Item = &'a Verdict> {
        self.claims.iter().copied().filter(move |claim| claim.is_published() && is_of(claim, entry))
    }
}

fn order<'a>(verdict: &&'a Verdict) -> endpoint_conflicts::Precedence<'a> {
    endpoint_conflicts::Precedence::of(verdict)
}

/// Whether a published endpoint may belong to this instance. An endpoint of another Pod does not.
fn is_of(claim: &Verdict, entry: &Entry<'_>) -> bool {
    let pod = claim.placement.as_ref().and_then(|placement| placement.pod.as_ref());
    let target = entry.endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    pod.zip(target).is_none_or(|(pod, target)| pod.uid == target)
}

fn claims_ports(claim: &Verdict, ports: &PortSet) -> bool {
    let claimed = claim.placement.as_ref().map(|placement| &placement.ports);
    claimed.is_some_and(|claimed| claimed == ports || claimed.meets(ports))
}

fn published_ports(slice: &discovery::EndpointSlice) -> PortSet {
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
