//! The gather step: what is known at one moment of a registration and the objects around it.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use crate::{
    adoption::adopted::Adopted,
    cluster_cache::{ClusterCache, Ownership},
    inputs::stall::ConflictingObjects,
    liveness::index::Record,
    objects::{
        heartbeat::Origin, pod::PodView, published_addresses::PublishedAddresses,
        registration::Registration, service::ServiceView,
    },
    vocabulary::{address::AddressSet, endpoint::EndpointPort, key::Key},
};

/// What is known of the objects around a registration, read from caches without a client.
pub struct Snapshot {
    /// The Service of the registration, if it exists.
    pub service: Option<Arc<ServiceView>>,
    /// The operator's slices of that Service.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The Endpoints object of the Service, if it belongs to the operator.
    pub endpoints: Option<Arc<Endpoints>>,
    /// The other objects with which the registration may conflict.
    pub conflicts: ConflictingObjects,
    /// The addresses in the operator's slices.
    pub published: AddressSet,
}

/// Reads a registration. If the name of its Service cannot be read, the name would get its default. Then the Service
/// for which the registration has published is used instead, so that what is published stays there.
pub fn registration(object: &ServiceRegistration, cluster: &ClusterCache) -> Registration {
    let mut registration = Registration::validate(object);
    let says_so = object.spec.service_name.as_ref().is_some_and(|name| !name.is_empty());
    if !says_so
        && !registration.problems.is_empty()
        && let Some(service) =
            cluster.service_published_by(&registration.key.namespace, &registration.uid)
    {
        registration.service_name = service;
    }
    registration
}

/// Collects what is published for the Service, and by which managers.
pub fn take(registration: &Registration, cluster: &ClusterCache) -> Snapshot {
    let service = Key::new(&registration.key.namespace, &registration.service_name);
    let (slices, foreign_slice) = cluster.slices(&service, &registration.uid);
    let elder = cluster.elder(&registration.key);
    let endpoints = cluster.endpoints(&service);
    let ownership = endpoints
        .as_ref()
        .map(|endpoints| cluster.ownership(&endpoints.metadata, &registration.uid));
    // If there are two registrations for one Service, the older one publishes. It takes over the Endpoints object of
    // the other one.
    let yielded = ownership == Some(Ownership::Sibling) && elder.is_none();
    let ours = endpoints.filter(|_| ownership == Some(Ownership::Ours) || yielded);
    let published = cluster.addresses_in(&slices);
    let unreadable = cluster.unreadable_for(&service, &registration.key.name).cloned();
    Snapshot {
        // A Service that waits for finalizers still exists, and no other can be created with its name.
        service: cluster.service(&service),
        conflicts: ConflictingObjects {
            elder,
            foreign_slice,
            foreign_endpoints: ours.is_none() && ownership.is_some(),
            left_by_cluster: cluster.is_left_by_cluster(&service, &registration.uid),
            unreadable,
        },
        slices,
        endpoints: ours,
        published,
    }
}

/// What is published after the writes.
pub fn published(registration: &Registration, cluster: &ClusterCache) -> PublishedAddresses {
    let service = Key::new(&registration.key.namespace, &registration.service_name);
    let (slices, _) = cluster.slices(&service, &registration.uid);
    PublishedAddresses::of(&slices, cluster.addresses_in(&slices))
}

/// Whether a slice contains an address with a port.
pub fn publishes(slices: &[Arc<EndpointSlice>], address: IpAddr, port: &EndpointPort) -> bool {
    let text = address.to_string();
    slices.iter().any(|slice| {
        let mut ports = slice.ports.iter().flatten();
        ports.any(|known| {
            known.name.as_deref().unwrap_or_default() == port.name
                && known.port == Some(port.port.into())
        }) && slice.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&text))
    })
}

/// The Pods that Leases and adopted instances name, and the zones of their Nodes.
#[derive(Default)]
pub struct Pods {
    /// The Pods by their name.
    pub by_name: HashMap<String, Arc<PodView>>,
    /// The zones by the name of the Node.
    pub zones: HashMap<String, String>,
    /// The Nodes of which the zone was looked up.
    pub nodes: BTreeSet<String>,
}

/// Collects the Pods of these records and adopted instances.
pub fn pods(
    namespace: &str,
    records: &[Record],
    adopted: &[Adopted],
    cluster: &ClusterCache,
) -> Pods {
    let mut pods = Pods { by_name: HashMap::new(), zones: HashMap::new(), nodes: BTreeSet::new() };
    let of_records = records.iter().filter_map(|record| match &record.content.origin {
        Origin::Pod { name, .. } => Some(name.as_str()),
        Origin::Outside => None,
    });
    let of_adopted = adopted.iter().filter_map(|adopted| Some(adopted.pod()?.0));
    for name in of_records.chain(of_adopted) {
        let Some(pod) = cluster.pod(&Key::new(namespace, name)) else { continue };
        if let Some(node) = &pod.node
            && !pods.nodes.contains(node)
        {
            pods.nodes.insert(node.clone());
            let zone = cluster.zone(node).filter(|zone| !zone.is_empty());
            pods.zones.extend(zone.map(|zone| (node.clone(), zone)));
        }
        pods.by_name.insert(name.to_owned(), pod);
    }
    pods
}
