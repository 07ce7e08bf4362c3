//! Adopted instances: addresses that a person wrote by hand. They are taken over with the user's consent, and stay
//! published until they beat for the first time or the consent is withdrawn.
//!
//! An adopted instance has no Lease, so its silence proves nothing and it cannot expire. Its first beat ends the
//! adoption for good. After that, its ttl applies to it as to any other instance.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use beatkeeper_api::{AdoptedInstance, InstanceState, registration::ADOPT_ANNOTATION};

use crate::{
    adoption::adopted::{Adopted, Adoption},
    decide::{
        cordons,
        facts::Facts,
        locate,
        unplaced::{PortUnresolved, Unplaced},
        verdict::Verdict,
    },
    objects::{leftovers, published_addresses::PublishedAddresses},
    vocabulary::{
        address::{self, AddressSet},
        endpoint::{EndpointPort, PodRef, PortSet},
        placement::Placement,
        reason::Reason,
        version::Token,
    },
};

/// How soon to check whether the port of a first beat is published, so that the hand-written port can be removed.
const HANDOVER: Duration = Duration::from_millis(500);

/// How often to check the Pods of the endpoints that Kubernetes' own controllers left behind.
const LOOK_AT_PODS: Duration = Duration::from_secs(1);

impl Adoption {
    /// Whether the objects of other managers may be removed, because the operator's slices contain every address of
    /// them that stays published. An address that the API server refuses in the operator's slices, or that has to
    /// wait, is still published by the other objects.
    pub fn is_complete(&self, verdicts: &[Verdict], ours: &PublishedAddresses) -> bool {
        let theirs = self.held_by_others();
        let staying = verdicts.iter().filter(|verdict| verdict.is_published());
        let mut staying = staying.flat_map(|it| it.placement.iter().flat_map(|it| &it.addresses));
        staying.all(|address| ours.holds(address) || !theirs.contains(address))
    }

    fn held_by_others(&self) -> AddressSet {
        let endpoints = self.leftovers.iter().flat_map(|slice| &slice.endpoints);
        let subsets = self.endpoints.iter().flat_map(|object| object.subsets.iter().flatten());
        let both = subsets.flat_map(|it| [&it.addresses, &it.not_ready_addresses]);
        let listed = both.flatten().flatten().map(|address| &address.ip);
        let texts = endpoints.flat_map(|endpoint| &endpoint.addresses).chain(listed);
        texts.filter_map(|text| text.parse().ok()).collect()
    }
}

/// Decides about the adopted instances, given the verdicts on all others. An instance that has beaten gets no verdict,
/// unless its address would otherwise be missing in the slices for a moment.
pub(crate) fn join(facts: &Facts<'_>, verdicts: &mut Vec<Verdict>) {
    let mut judged = Vec::new();
    for adopted in facts.instances.adopted {
        if adopted.pod().is_some_and(|(name, uid)| {
            leftovers::living(facts.cluster.pods.get(name).map(AsRef::as_ref), uid).is_none()
        }) {
            continue;
        }
        let requeue_at = match () {
            () if adopted.entry.pod.is_some()
                && !has_beaten(adopted, facts.instances.adopted, verdicts) =>
            {
                // No Lease connects the Pod to its registration, so a change of the Pod does not wake it.
                Some(facts.now + LOOK_AT_PODS)
            }
            () if !has_beaten(adopted, facts.instances.adopted, verdicts) => None,
            () if is_needed(facts, adopted, verdicts) => Some(facts.now + HANDOVER),
            () => continue,
        };
        judged.push(Verdict { requeue_at, ..judge(facts, adopted, verdicts) });
    }
    verdicts.extend(judged);
}

/// Whether an adopted instance that has beaten is still the only one that publishes its address. This happens if it
/// beats with another port than the hand-written one, because the old port and the new one are not written at the same
/// time. In a dry run they are never written.
fn is_needed(facts: &Facts<'_>, adopted: &Adopted, verdicts: &[Verdict]) -> bool {
    let successors = || {
        let beating = verdicts.iter().filter(|it| it.lease.is_some() && it.is_published());
        let placed = beating.filter_map(|verdict| verdict.placement.as_ref());
        placed.filter(|placement| placement.addresses.contains(&adopted.address))
    };
    !facts.registration.dry_run
        && !successors().any(|placement| shares_port(placement, adopted))
        && successors().any(|placement| {
            !placement
                .ports
                .ports()
                .iter()
                .any(|port| (facts.published.contains)(adopted.address, port))
        })
}

/// The adopted instances without a verdict; they have beaten.
pub fn weaned(adopted: &[Adopted], verdicts: &[Verdict]) -> Vec<AdoptedInstance> {
    let judged: BTreeSet<&str> = verdicts
        .iter()
        .filter(|verdict| verdict.lease.is_none())
        .map(|verdict| &*verdict.instance)
        .collect();
    let gone = adopted.iter().filter(|it| !judged.contains(it.entry.name.as_str()));
    gone.map(|it| it.entry.clone()).collect()
}

/// Whether an adopted instance has beaten since it was adopted: there is a beat at its address that is not one of the
/// old beats. If several instances were adopted at one address, the beat belongs to those that have its port, if there
/// are any.
pub(crate) fn has_beaten(adopted: &Adopted, all: &[Adopted], verdicts: &[Verdict]) -> bool {
    let here = |other: &&Adopted| other.address == adopted.address;
    beats_at(adopted.address, verdicts)
        .filter(|(_, beat)| !adopted.entry.old_beats.contains(beat))
        .any(|(placement, _)| {
            let is_of = |it: &Adopted| shares_port(placement, it);
            is_of(adopted) || !all.iter().filter(here).any(is_of)
        })
}

/// The beats of instances at an address, including old ones, in the format of the status.
pub(crate) fn beats_at(
    address: IpAddr,
    verdicts: &[Verdict],
) -> impl Iterator<Item = (&Placement, String)> {
    verdicts.iter().filter_map(move |verdict| {
        let placement = verdict.placement.as_ref()?;
        let Token { uid, renewed } = &verdict.lease.as_ref()?.decision.token;
        let beat = format!("{uid}@{}", (*renewed)?);
        placement.addresses.contains(&address).then_some((placement, beat))
    })
}

fn shares_port(placement: &Placement, adopted: &Adopted) -> bool {
    let same = |port: &EndpointPort| {
        let ports = &adopted.entry.ports;
        ports.iter().any(|own| own.name == port.name && own.port == i32::from(port.port))
    };
    placement.ports.ports().iter().any(same)
}

fn judge(facts: &Facts<'_>, adopted: &Adopted, verdicts: &[Verdict]) -> Verdict {
    let cordoned = verdicts.iter().find(|verdict| {
        let addresses = verdict.placement.iter().flat_map(|placement| &placement.addresses);
        verdict.state == InstanceState::Cordoned
            && addresses.into_iter().any(|address| *address == adopted.address)
    });
    let entry = &adopted.entry;
    let remembered = |placement: &Placement| {
        cordons::covering(facts.instances.cordons, &entry.name, None, placement)
    };
    let (state, reason, message, placement) = match place(facts, adopted) {
        Err(why) => (InstanceState::Rejected, why.reason(), why.to_string(), None),
        Ok(placement) if let Some(cordoned) = cordoned => {
            let message = format!("{} at its address is cordoned", cordoned.instance);
            (InstanceState::Cordoned, Reason::Cordoned, message, Some(placement))
        }
        Ok(placement) if let Some(message) = remembered(&placement) => {
            (InstanceState::Cordoned, Reason::Cordoned, message, Some(placement))
        }
        Ok(placement) if let Some((name, _)) = adopted.pod() => {
            let pod = facts.cluster.pods.get(name);
            let (state, reason) = match () {
                () if pod.is_some_and(|pod| pod.deleting) => {
                    (InstanceState::Draining, Reason::PodTerminating)
                }
                () if !placement.kubelet_ready => (InstanceState::NotReady, Reason::PodNotReady),
                () => (InstanceState::Ready, Reason::Adopted),
            };
            let message = format!(
                "Pod {name} was published for the selector that the Service had; it stays until it \
                 beats for the first time, or ends"
            );
            (state, reason, message, Some(placement))
        }
        Ok(placement) => {
            let message = format!(
                "taken over from {}; stays until it beats for the first time, or is removed from \
                 annotation {ADOPT_ANNOTATION}",
                entry.from
            );
            let state =
                if entry.not_ready { InstanceState::NotReady } else { InstanceState::Ready };
            (state, Reason::Adopted, message, Some(placement))
        }
    };
    Verdict::without_lease(&entry.name, state, reason, message, placement)
}

/// The placement of an adopted instance. It is checked in each decision, because the ranges and the ports of the spec
/// may change.
fn place(facts: &Facts<'_>, adopted: &Adopted) -> Result<Placement, Unplaced> {
    let Adopted { address: _, entry } = adopted;
    let namespace = &facts.registration.key.namespace;
    let pod =
        adopted.pod().and_then(|(name, uid)| Some((name, uid, facts.cluster.pods.get(name)?)));
    let address = match &pod {
        Some((.., pod)) if pod.ips.contains(&adopted.address) => Ok(adopted.address),
        _ => {
            let named = entry.address.as_str().into();
            address::outside(&named, namespace, facts.cluster.ranges, facts.cluster.owner_of)
        }
    }?;
    let ports: Vec<EndpointPort> = facts
        .service
        .ports
        .iter()
        .filter_map(|port| {
            let own = entry.ports.iter().find(|own| own.name == port.name)?;
            Some(EndpointPort {
                name: port.name.clone(),
                port: u16::try_from(own.port).ok().filter(|number| *number > 0)?,
                protocol: port.protocol,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    if ports.is_empty() && !locate::stays(facts, &[address]) {
        let names = entry.ports.iter().map(|port| port.name.clone()).collect();
        return Err(PortUnresolved::NoneAdopted(names).into());
    }
    Ok(Placement {
        addresses: locate::of_families(vec![address], facts)?,
        ports: PortSet::new(ports),
        node_name: entry.node_name.clone(),
        zone: entry.zone.clone(),
        hostname: entry.hostname.clone(),
        pod: pod.as_ref().map(|(name, uid, _)| PodRef {
            namespace: namespace.clone(),
            name: (*name).to_owned(),
            uid: (*uid).to_owned(),
        }),
        kubelet_ready: pod.is_none_or(|(.., pod)| pod.ready),
    })
}
