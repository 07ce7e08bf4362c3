//! The adoption of hand-written objects: their contents, and whether all of them may be adopted.
//!
//! The adoption is all or nothing. Either every address, port and object can be adopted as it is, or nothing is
//! changed. The [`AdoptionRefusal`] then names the object, the problem and the remedy.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use beatkeeper_api::{InstancePort, status::ADOPTED_INSTANCES_MAX};
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, ObjectReference},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use crate::{
    adoption::{
        adopted::Adopted,
        found::Found,
        refusal::{AdoptionProblem, AdoptionRefusal},
        scene::{AdoptionInputs, ForeignObjects},
        verdicts::{beats_at, has_beaten},
    },
    decide::verdict::Verdict,
    objects::{
        leftovers,
        marks::{
            ENDPOINTS_MANAGED_BY_LABEL, MANAGER, Owner, OwnerMark, SKIP_MIRROR_LABEL,
            SLICE_MANAGED_BY_LABEL, TAKING_OVER_ANNOTATION, copied_from, enforce, label,
        },
        registration::PortTemplate,
    },
    vocabulary::endpoint::Family,
};

/// Values of the managed-by label for people who manage slices by hand. Kubernetes' documentation recommends them.
const PEOPLE: [&str; 2] = ["staff", "cluster-admins"];

/// Annotation of an Endpoints object that serves as a lock. Kubernetes does not mirror such an object.
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";

/// The writes that adopt the objects.
#[derive(Debug, Default, PartialEq)]
pub struct AdoptionPlan {
    /// The instances to store in the status, in addition to those that are already adopted. They must be stored before
    /// anything else is written.
    pub newcomers: Vec<Adopted>,
    /// The slices to be marked with [`mark_slice`].
    pub slices: Vec<EndpointSlice>,
    /// The slices that Kubernetes' own controller left behind. They are deleted once the operator's slices contain
    /// their endpoints.
    pub leftovers: Vec<EndpointSlice>,
    /// The Endpoints object to be marked with [`mark_endpoints`].
    pub endpoints: Option<Endpoints>,
}

/// Plans the adoption of all objects.
///
/// # Errors
/// [`AdoptionRefusal`] for the first object or address that may not be adopted.
pub fn plan(
    scene: &AdoptionInputs<'_>,
    foreign: &ForeignObjects,
) -> Result<AdoptionPlan, AdoptionRefusal> {
    let mut found = Vec::new();
    let mut takeover = AdoptionPlan::default();
    if let Some(endpoints) = &foreign.endpoints {
        let object = name("Endpoints", &endpoints.metadata);
        if !(scene.left_by_cluster && leftovers::is_endpoints(&endpoints.metadata)) {
            by_people(&object, &endpoints.metadata, ENDPOINTS_MANAGED_BY_LABEL)?;
        }
        if endpoints.annotations().contains_key(LOCK) {
            return Err(AdoptionProblem::Lock(LOCK).with(&object));
        }
        found.extend(in_endpoints(scene, &object, endpoints)?);
        takeover.endpoints = Some(endpoints.clone());
    }
    for slice in &foreign.slices {
        let object = name("EndpointSlice", &slice.metadata);
        if leftovers::is_mirror(&slice.metadata) {
            if !foreign.has_endpoints {
                return Err(AdoptionProblem::OrphanedMirror.with(&object));
            }
            continue;
        }
        if scene.left_by_cluster && leftovers::is_slice(&slice.metadata) {
            found.extend(in_slice(scene, &object, slice)?);
            takeover.leftovers.push(slice.clone());
            continue;
        }
        by_people(&object, &slice.metadata, SLICE_MANAGED_BY_LABEL)?;
        found.extend(in_slice(scene, &object, slice)?);
        takeover.slices.push(slice.clone());
    }
    takeover.newcomers = newcomers(scene, found)?;
    Ok(takeover)
}

fn name(kind: &str, metadata: &ObjectMeta) -> String {
    format!("{kind} {}", metadata.name.as_deref().unwrap_or_default())
}

/// Makes a slice the operator's: adds its marks, and leaves the rest unchanged.
pub fn mark_slice(owner: &Owner, slice: &mut EndpointSlice) {
    mark(owner, &mut slice.metadata, &[(SLICE_MANAGED_BY_LABEL, MANAGER)]);
}

/// Makes an Endpoints object the operator's: adds its marks, and leaves the rest unchanged. The second label ends the
/// mirrored slices. By then, the operator's slices contain the same endpoints.
pub fn mark_endpoints(owner: &Owner, endpoints: &mut Endpoints) {
    let labels = [(ENDPOINTS_MANAGED_BY_LABEL, MANAGER), (SKIP_MIRROR_LABEL, "true")];
    mark(owner, &mut endpoints.metadata, &labels);
}

fn mark(owner: &Owner, metadata: &mut ObjectMeta, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    metadata.labels.get_or_insert_default().extend(labels);
    enforce(&mut metadata.annotations, &[(TAKING_OVER_ANNOTATION, None)]);
    OwnerMark::of(owner).put_on(metadata);
    // If an update has no managed fields, the API server keeps the existing ones.
    metadata.managed_fields = None;
}

/// Refuses an object that a program manages, because the program would continue to write it; and an object that is
/// being deleted.
fn by_people(object: &str, metadata: &ObjectMeta, managed_by: &str) -> Result<(), AdoptionRefusal> {
    let refuse = |problem: AdoptionProblem| Err(problem.with(object));
    if metadata.deletion_timestamp.is_some() {
        return refuse(AdoptionProblem::BeingDeleted);
    }
    let owners = metadata.owner_references.iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) {
        let owner = format!("{} {}", owner.kind, owner.name);
        return refuse(AdoptionProblem::Controlled { owner });
    }
    // An object that a user copied from another namespace has the operator's label, but the operator does not manage
    // it.
    let is_copy = copied_from(metadata).is_some();
    match label(metadata, managed_by).filter(|manager| !(is_copy && *manager == MANAGER)) {
        Some(manager) if !PEOPLE.contains(&manager) => refuse(AdoptionProblem::Managed {
            label: managed_by.to_owned(),
            manager: manager.to_owned(),
            people: PEOPLE[0],
        }),
        _ => Ok(()),
    }
}

fn in_endpoints(
    scene: &AdoptionInputs<'_>,
    object: &str,
    endpoints: &Endpoints,
) -> Result<Vec<Found>, AdoptionRefusal> {
    let mut found = Vec::new();
    for (n, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let listed = subset
            .ports
            .iter()
            .flatten()
            .map(|port| (port.name.as_deref(), Some(port.port), port.protocol.as_deref()));
        let ports = ports(scene, object, &format!("subsets[{n}].ports"), listed.collect());
        let both = [(&subset.addresses, false), (&subset.not_ready_addresses, true)];
        for (addresses, not_ready) in both {
            for address in addresses.iter().flatten() {
                found.push(Found {
                    address: read(object, &address.ip)?,
                    text: address.ip.clone(),
                    from: object.to_owned(),
                    ports: ports.clone()?,
                    not_ready,
                    node_name: address.node_name.clone(),
                    zone: None,
                    hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
                    pod: pod_of(scene, address.target_ref.as_ref()),
                });
            }
        }
    }
    Ok(found)
}

fn in_slice(
    scene: &AdoptionInputs<'_>,
    object: &str,
    slice: &EndpointSlice,
) -> Result<Vec<Found>, AdoptionRefusal> {
    if ![Family::V4.as_str(), Family::V6.as_str()].contains(&slice.address_type.as_str()) {
        return Err(AdoptionProblem::AddressType(slice.address_type.clone()).with(object));
    }
    let listed = slice
        .ports
        .iter()
        .flatten()
        .map(|port| (port.name.as_deref(), port.port, port.protocol.as_deref()));
    let ports = ports(scene, object, "ports", listed.collect());
    let mut found = Vec::new();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.as_ref();
        for text in &endpoint.addresses {
            found.push(Found {
                address: read(object, text)?,
                text: text.clone(),
                from: object.to_owned(),
                ports: ports.clone()?,
                // The API says that an unknown condition counts as ready.
                not_ready: conditions.and_then(|known| known.ready) == Some(false),
                node_name: endpoint.node_name.clone(),
                zone: endpoint.zone.clone(),
                hostname: endpoint.hostname.clone(),
                pod: pod_of(scene, endpoint.target_ref.as_ref()),
            });
        }
    }
    Ok(found)
}

fn pod_of(
    scene: &AdoptionInputs<'_>,
    target: Option<&ObjectReference>,
) -> Option<(String, String)> {
    let target = target.filter(|_| scene.left_by_cluster)?;
    let is_pod = target.kind.as_deref() == Some("Pod");
    target.name.clone().zip(target.uid.clone()).filter(|_| is_pod)
}

fn read(object: &str, text: &str) -> Result<IpAddr, AdoptionRefusal> {
    text.parse().map_err(|_| AdoptionProblem::NotAnAddress(text.to_owned()).with(object))
}

type Listed<'a> = (Option<&'a str>, Option<i32>, Option<&'a str>);

/// The ports of an object, if each matches a port of the registration by name and protocol. The number may differ, as
/// for a declared instance.
fn ports(
    scene: &AdoptionInputs<'_>,
    object: &str,
    field: &str,
    listed: Vec<Listed<'_>>,
) -> Result<Vec<InstancePort>, AdoptionRefusal> {
    let refuse = |problem: AdoptionProblem| Err(problem.with(object));
    let wanted = || {
        let names = scene.ports.iter().map(|port| format!("{:?}", port.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let field = || field.to_owned();
    if listed.is_empty() {
        return refuse(AdoptionProblem::NoPorts { field: field(), wanted: wanted() });
    }
    let mut ports = Vec::new();
    for (name, number, protocol) in listed {
        let (name, protocol) = (name.unwrap_or_default(), protocol.unwrap_or("TCP"));
        let is_it = |port: &&PortTemplate| port.name == name && port.protocol.as_str() == protocol;
        if !scene.ports.iter().any(|port| is_it(&port)) {
            let (name, protocol) = (name.to_owned(), protocol.to_owned());
            let (field, wanted) = (field(), wanted());
            return refuse(AdoptionProblem::OtherPort { field, name, protocol, wanted });
        }
        let Some(number) = number.filter(|number| (1..=65535).contains(number)) else {
            let (field, name) = (field(), name.to_owned());
            return refuse(AdoptionProblem::NoPortNumber { field, name });
        };
        ports.push(InstancePort { name: name.to_owned(), port: number });
    }
    Ok(ports)
}

/// The instances to store in the status. Those that are already stored are omitted. So are those that beat, because
/// their ttl applies to them.
fn newcomers(
    scene: &AdoptionInputs<'_>,
    found: Vec<Found>,
) -> Result<Vec<Adopted>, AdoptionRefusal> {
    let known: HashSet<IpAddr> = scene.adopted.iter().map(|adopted| adopted.address).collect();
    let mut by_address: BTreeMap<IpAddr, Vec<Found>> = BTreeMap::new();
    for one in found.into_iter().filter(|one| !known.contains(&one.address)) {
        let others = by_address.entry(one.address).or_default();
        match others.iter_mut().find(|other| other.agrees_with(&one)) {
            Some(other) => other.absorb(one),
            None => others.push(one),
        }
    }
    let candidates: Vec<(Adopted, Found)> = by_address
        .into_values()
        .flat_map(|group| group.into_iter().enumerate())
        .map(|(n, found)| (found.adopted(n, scene.wall), found))
        .collect();
    let all: Vec<Adopted> = candidates.iter().map(|(adopted, _)| adopted.clone()).collect();
    let published: Vec<Verdict> =
        scene.verdicts.iter().filter(|verdict| verdict.is_published()).cloned().collect();
    let mut newcomers = Vec::new();
    for (mut adopted, found) in candidates {
        if has_beaten(&adopted, &all, &published) {
            continue;
        }
        if let Some((pod, _)) = found.pod.as_ref().filter(|(name, _)| (scene.is_unread)(name)) {
            // The Pod may be alive. If it counted as gone, its endpoint would be removed with the next write.
            let (pod, address) = (pod.clone(), found.text);
            return Err(AdoptionProblem::UnreadablePod { pod, address }.with(&found.from));
        }
        if found.pod.as_ref().is_some_and(|(name, uid)| {
            leftovers::living((scene.pod)(name).as_deref(), uid).is_none()
        }) {
            // Its endpoint is removed with the next write; no other controller would ever remove it.
            continue;
        }
        found.check(scene)?;
        let beats = beats_at(adopted.address, scene.verdicts).map(|(_, beat)| beat);
        adopted.entry.old_beats = beats.collect();
        newcomers.push(adopted);
    }
    let total = newcomers.len() + scene.adopted.len();
    if total > ADOPTED_INSTANCES_MAX {
        let object = format!("Service {}", scene.registration.service_name);
        return Err(AdoptionProblem::TooMany(total).with(&object));
    }
    Ok(newcomers)
}
