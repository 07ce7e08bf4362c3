//! Where an instance can be reached: its addresses and ports, proven by its Pod or allowed by the administrator (P5).

use std::net::IpAddr;

use crate::{
    decide::{
        facts::Facts,
        unplaced::{NotSelected, PortUnresolved, Unplaced},
    },
    objects::{
        pod::PodView,
        registration::{PortTemplate, TargetPort},
    },
    vocabulary::{
        address::{self, Named},
        endpoint::{EndpointPort, Family, PodRef, PortSet},
        placement::Placement,
    },
};

/// The placement of an instance that runs in a Pod. Everything comes from the Pod, and nothing from its Lease.
///
/// # Errors
/// [`Unplaced`], which names the Pod.
pub(crate) fn in_pod(facts: &Facts<'_>, name: &str, uid: &str) -> Result<Placement, Unplaced> {
    let key = &facts.registration.key;
    let Some(pod) = facts.cluster.pods.get(name) else {
        return Err(Unplaced::NoPod { pod: name.to_owned(), namespace: key.namespace.clone() });
    };
    if pod.uid != uid {
        return Err(Unplaced::PodReplaced { pod: name.to_owned(), uid: uid.to_owned() });
    }
    selected(facts, name, pod)?;
    let addresses: Vec<IpAddr> =
        pod.ips.iter().copied().map(address::publishable).collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err(Unplaced::NoAddressYet { pod: name.to_owned() });
    }
    let ports = resolve(facts, &addresses, false, |port| match &port.target {
        TargetPort::Number(number) => Ok(*number),
        TargetPort::Name(target) => pod.port(target, port.protocol).ok_or_else(|| {
            let (pod, target) = (name.to_owned(), target.clone());
            PortUnresolved::NotInPod { pod, protocol: port.protocol, target }
        }),
    })?;
    Ok(Placement {
        addresses: of_families(addresses, facts)?,
        ports,
        zone: pod.node.as_ref().and_then(|node| facts.cluster.zones.get(node)).cloned(),
        node_name: pod.node.clone(),
        hostname: pod
            .hostname_in
            .as_ref()
            .filter(|(_, subdomain)| subdomain == facts.service.name)
            .map(|(hostname, _)| hostname.clone()),
        pod: Some(PodRef {
            namespace: key.namespace.clone(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        }),
        kubelet_ready: pod.ready,
    })
}

fn selected(facts: &Facts<'_>, name: &str, pod: &PodView) -> Result<(), NotSelected> {
    let names = || (facts.registration.key.name.clone(), name.to_owned());
    match &facts.registration.selector {
        // An edit that cannot be applied must not empty the Service.
        _ if (facts.published.frozen.is_some() || facts.registration.selector_unreadable)
            && pod.ips.iter().any(|ip| facts.published.addresses.contains(ip)) =>
        {
            Ok(())
        }
        None if facts.registration.selector_unreadable => {
            let (registration, pod) = names();
            Err(NotSelected::SelectorUnreadable { registration, pod })
        }
        None => {
            let (registration, pod) = names();
            Err(NotSelected::NoSelector { registration, pod })
        }
        Some(selector) if !selector.matches(&pod.labels) => {
            let (registration, pod) = names();
            Err(NotSelected::OtherLabels { registration, pod })
        }
        Some(_) => Ok(()),
    }
}

/// The placement of an outside instance: at its declared addresses, or otherwise at those in its Lease. Both must be
/// in the allowed ranges.
///
/// # Errors
/// [`Unplaced`].
pub(crate) fn outside(
    facts: &Facts<'_>,
    instance: &str,
    named: &[Named],
) -> Result<Placement, Unplaced> {
    let declared = facts.registration.declared.get(instance);
    let declared_at: Option<Vec<Named>> = declared
        .map(|declared| declared.addresses.iter().map(|text| text.as_str().into()).collect());
    let wanted = declared_at.as_deref().unwrap_or(named);
    let mut addresses = match still_at(facts, instance, [named, wanted]) {
        addresses if addresses.is_empty() => allowed(facts, wanted)?,
        addresses => addresses,
    };
    addresses.sort();
    addresses.dedup();
    let brings_some = declared.is_some_and(|declared| !declared.ports.is_empty());
    let ports = resolve(facts, &addresses, brings_some, |port| {
        let own =
            declared.iter().flat_map(|declared| &declared.ports).find(|own| own.name == port.name);
        match (own, &port.target) {
            (Some(own), _) => {
                u16::try_from(own.port).ok().filter(|number| *number > 0).ok_or_else(|| {
                    let (port, instance) = (port.name.clone(), instance.to_owned());
                    PortUnresolved::NotANumber { port, instance, number: own.port }
                })
            }
            (None, TargetPort::Number(number)) => Ok(*number),
            (None, TargetPort::Name(target)) => {
                let (port, target) = (port.name.clone(), target.clone());
                Err(PortUnresolved::NeedsPod { port, target })
            }
        }
    })?;
    Ok(Placement {
        addresses: of_families(addresses, facts)?,
        ports,
        node_name: None,
        zone: declared.and_then(|declared| declared.zone.clone()),
        hostname: None,
        pod: None,
        kubelet_ready: true,
    })
}

/// The addresses of an outside instance, if they may be published.
fn allowed(facts: &Facts<'_>, named: &[Named]) -> Result<Vec<IpAddr>, Unplaced> {
    if named.is_empty() {
        return Err(Unplaced::NoAddress);
    }
    let namespace = &facts.registration.key.namespace;
    let check =
        |named| address::outside(named, namespace, facts.cluster.ranges, facts.cluster.owner_of);
    Ok(named.iter().map(check).collect::<Result<Vec<_>, _>>()?)
}

/// While nothing may be changed: the addresses at which an outside instance is published, including those that an edit
/// would remove. An address that may no longer be published (P5) is not included.
fn still_at(facts: &Facts<'_>, instance: &str, named: [&[Named]; 2]) -> Vec<IpAddr> {
    let Some(earlier) = facts.published.frozen else { return Vec::new() };
    let namespace = &facts.registration.key.namespace;
    let known = named.into_iter().flatten().chain(earlier.of(instance));
    known
        .filter_map(|named| {
            address::outside(named, namespace, facts.cluster.ranges, facts.cluster.owner_of).ok()
        })
        .filter(|address| facts.published.addresses.contains(address))
        .collect()
}

/// Resolves the ports of one instance. `brings_some` says whether it has ports of its own. As in Kubernetes, a port
/// that cannot be resolved is omitted if another can be resolved. If none can, there is nothing to publish.
fn resolve(
    facts: &Facts<'_>,
    addresses: &[IpAddr],
    brings_some: bool,
    number_of: impl Fn(&PortTemplate) -> Result<u16, PortUnresolved>,
) -> Result<PortSet, PortUnresolved> {
    // Port numbers are the same for all instances, so thousands of instances share one set.
    let shared = !brings_some
        && facts.service.ports.iter().all(|port| matches!(port.target, TargetPort::Number(_)));
    if let Some(ports) = facts.service.shared_ports.get().filter(|_| shared) {
        return Ok(ports.clone());
    }
    let mut ports = Vec::with_capacity(facts.service.ports.len());
    let mut problem = None;
    for template in facts.service.ports {
        match number_of(template) {
            Ok(port) => ports.push(EndpointPort {
                name: template.name.clone(),
                port,
                protocol: template.protocol,
                app_protocol: template.app_protocol.clone(),
            }),
            Err(unresolved) => problem = Some(unresolved),
        }
    }
    match problem {
        // A published instance that may not be changed keeps its ports.
        Some(_) if ports.is_empty() && stays(facts, addresses) => Ok(PortSet::new(ports)),
        Some(unresolved) if ports.is_empty() => Err(unresolved),
        _ if shared => Ok(facts.service.shared_ports.get_or_init(|| PortSet::new(ports)).clone()),
        _ => Ok(PortSet::new(ports)),
    }
}

/// Whether nothing may be changed and one of these addresses is published.
pub(crate) fn stays(facts: &Facts<'_>, addresses: &[IpAddr]) -> bool {
    facts.published.frozen.is_some()
        && addresses.iter().any(|address| facts.published.addresses.contains(address))
}

/// The addresses of the IP families of the Service, and those that stay because nothing may be changed.
///
/// # Errors
/// [`Unplaced::OtherFamily`] if none is left.
pub(crate) fn of_families(
    addresses: Vec<IpAddr>,
    facts: &Facts<'_>,
) -> Result<Vec<IpAddr>, Unplaced> {
    let families = facts.service.families;
    let matching: Vec<IpAddr> = addresses
        .iter()
        .copied()
        .filter(|address| families.contains(&Family::of(*address)) || stays(facts, &[*address]))
        .collect();
    if matching.is_empty() {
        return Err(Unplaced::OtherFamily { addresses, families: families.to_vec() });
    }
    Ok(matching)
}
