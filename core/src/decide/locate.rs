//! Where an instance can be reached: its addresses and ports, proven by its Pod or allowed by the administrator (P5).

use std::net::IpAddr;

use crate::{
    decide::facts::Facts,
    objects::{
        pod::PodView,
        registration::{PortTemplate, TargetPort},
    },
    vocabulary::{
        address::{self, Named},
        endpoint::{EndpointPort, Family, PodRef, PortSet},
        placement::Placement,
        reason::Reason,
    },
};

/// The placement of an instance that runs in a Pod. Everything comes from the Pod, and nothing from its Lease.
///
/// # Errors
/// The reason, and a message that names the Pod.
pub(crate) fn in_pod(
    facts: &Facts<'_>,
    name: &str,
    uid: &str,
) -> Result<Placement, (Reason, String)> {
    let key = &facts.registration.key;
    let Some(pod) = facts.cluster.pods.get(name) else {
        let message = format!("there is no Pod {name} in namespace {}", key.namespace);
        return Err((Reason::PodNotFound, message));
    };
    if pod.uid != uid {
        let message = format!(
            "its Lease belongs to an earlier Pod {name} (uid {uid}); delete the Lease, so that the \
             present Pod can create its own"
        );
        return Err((Reason::PodReplaced, message));
    }
    selected(facts, name, pod)?;
    let addresses: Vec<IpAddr> = pod
        .ips
        .iter()
        .copied()
        .map(|ip| {
            address::publishable(ip).map_err(|error| (Reason::AddressRefused, error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        let message = format!("Pod {name} has no address yet");
        return Err((Reason::NoAddressYet, message));
    }
    let ports = resolve(facts, &addresses, false, |port| match &port.target {
        TargetPort::Number(number) => Ok(*number),
        TargetPort::Name(target) => pod.port(target, port.protocol).ok_or_else(|| {
            format!("Pod {name} has no {} port named {target}", port.protocol.as_str())
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

fn selected(facts: &Facts<'_>, name: &str, pod: &PodView) -> Result<(), (Reason, String)> {
    let message = match &facts.registration.selector {
        // An edit that cannot be applied must not empty the Service.
        _ if (facts.published.frozen.is_some() || facts.registration.selector_unreadable)
            && pod.ips.iter().any(|ip| facts.published.addresses.contains(ip)) =>
        {
            return Ok(());
        }
        None if facts.registration.selector_unreadable => {
            format!(
                "spec.podSelector of {} cannot be read, so Pod {name} may not join; correct it",
                facts.registration.key.name
            )
        }
        None => format!(
            "spec.podSelector of {} is absent, so no Pod may join; Pod {name} wants to",
            facts.registration.key.name
        ),
        Some(selector) if !selector.matches(&pod.labels) => format!(
            "the labels of Pod {name} do not match spec.podSelector of {}",
            facts.registration.key.name
        ),
        Some(_) => return Ok(()),
    };
    Err((Reason::PodNotSelected, message))
}

/// The placement of an outside instance: at its declared addresses, or otherwise at those in its Lease. Both must be
/// in the allowed ranges.
///
/// # Errors
/// The reason, and a message that says who can correct it.
pub(crate) fn outside(
    facts: &Facts<'_>,
    instance: &str,
    named: &[Named],
) -> Result<Placement, (Reason, String)> {
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
                    format!(
                        "port {:?} of instance {instance} is {}; it must be from 1 to 65535",
                        port.name, own.port
                    )
                })
            }
            (None, TargetPort::Number(number)) => Ok(*number),
            (None, TargetPort::Name(target)) => Err(format!(
                "port {:?} has targetPort {target:?}, a name that only Pods can resolve; declare the \
                 instance with a number for that port",
                port.name
            )),
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
fn allowed(facts: &Facts<'_>, named: &[Named]) -> Result<Vec<IpAddr>, (Reason, String)> {
    if named.is_empty() {
        let message = format!(
            "it names no address: declare it in spec.instances, or set annotation {} on its Lease; if it \
             runs in a Pod, its Lease has lost its owner reference: delete the Lease",
            beatkeeper_api::heartbeat::ADDRESSES_ANNOTATION
        );
        return Err((Reason::AddressMissing, message));
    }
    let namespace = &facts.registration.key.namespace;
    named
        .iter()
        .map(|named| {
            address::outside(named, namespace, facts.cluster.ranges, facts.cluster.owner_of)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| (Reason::AddressRefused, error.to_string()))
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
    number_of: impl Fn(&PortTemplate) -> Result<u16, String>,
) -> Result<PortSet, (Reason, String)> {
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
            Err(message) => problem = Some(message),
        }
    }
    match problem {
        // A published instance that may not be changed keeps its ports.
        Some(_) if ports.is_empty() && stays(facts, addresses) => Ok(PortSet::new(ports)),
        Some(message) if ports.is_empty() => Err((Reason::PortUnresolved, message)),
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
/// The reason, and a message that names the addresses and the families.
pub(crate) fn of_families(
    addresses: Vec<IpAddr>,
    facts: &Facts<'_>,
) -> Result<Vec<IpAddr>, (Reason, String)> {
    let families = facts.service.families;
    let matching: Vec<IpAddr> = addresses
        .iter()
        .copied()
        .filter(|address| families.contains(&Family::of(*address)) || stays(facts, &[*address]))
        .collect();
    if matching.is_empty() {
        let list = |items: Vec<String>| items.join(", ");
        let message = format!(
            "its addresses ({}) are of no family that the Service has ({})",
            list(addresses.iter().map(IpAddr::to_string).collect()),
            list(families.iter().map(|family| family.as_str().to_owned()).collect())
        );
        return Err((Reason::AddressFamilyMismatch, message));
    }
    Ok(matching)
}
