//! What is known of the cluster apart from the heartbeats: trimmed views of its objects, and the look-ups that
//! decisions need.

mod abandoned;
pub mod belongings;
pub mod briefs;
pub mod deliveries;
pub mod dependents;
mod object_cache;
pub mod pod_changes;
mod registrations;
pub mod watched;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{core::v1::Endpoints, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    cluster_cache::{
        belongings::Belongings, briefs::Registrations, dependents::Dependents,
        object_cache::ObjectCache, pod_changes::PodChanges,
    },
    objects::{
        decode::Unreadable,
        leftovers,
        marks::{
            ENDPOINTS_MANAGED_BY_LABEL, MANAGER, SERVICE_NAME_LABEL, SLICE_MANAGED_BY_LABEL,
            copied_from, label, owner_of,
        },
        pod::PodView,
        service::ServiceView,
    },
    vocabulary::{address::AddressSet, key::Key},
};

/// The manager of a slice or an Endpoints object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This registration. An object with the operator's mark also counts as its own if it has no owner, or one that no
    /// longer exists. The registration takes it over before the garbage collector deletes it.
    Ours,
    /// Another registration for the same Service.
    Sibling,
    /// Another manager.
    Foreign,
}

/// The part of the cluster that is known.
#[derive(Debug, Default)]
pub struct ClusterCache {
    pods: ObjectCache<Arc<PodView>>,
    services: ObjectCache<Arc<ServiceView>>,
    slices: ObjectCache<Arc<EndpointSlice>>,
    endpoints: ObjectCache<Arc<Endpoints>>,
    zones: ObjectCache<String>,
    /// The Pods of each namespace that ask for the operator's readiness gate.
    gated: HashMap<String, BTreeSet<String>>,
    registrations: Registrations,
    /// Slices by the label for their Service, and by the uid of the registration that owns them. A user may remove one
    /// of the two; the other then still finds the slice.
    slices_by_service: HashMap<Key, BTreeSet<String>>,
    /// The uid is used instead of the name, because an object in another namespace that carries it is a copy.
    slices_by_owner: HashMap<Key, BTreeSet<String>>,
    /// The addresses in each slice that is kept with its endpoints. They are parsed once, because each decision needs
    /// them.
    addresses_in: HashMap<Key, Box<[IpAddr]>>,
    /// The objects that carry the annotation of a registration.
    belongings: Belongings,
    /// Looked up for each outside instance in each decision; hence this hash function (see [`AddressSet`]).
    addresses: hashbrown::HashMap<IpAddr, BTreeMap<Key, &'static str>>,
    /// Which Pods have changed lately.
    pub pod_changes: PodChanges,
    /// Which registrations have asked for which objects.
    pub dependents: Dependents,
}

impl ClusterCache {
    /// The store has gone back. The next lists show the current state, whatever the versions are.
    pub fn begin_anew(&mut self) {
        self.pods.begin_anew();
        self.services.begin_anew();
        self.slices.begin_anew();
        self.endpoints.begin_anew();
        self.zones.begin_anew();
    }

    /// An unreadable object that prevents decisions for a Service and its registration, if there is one. It is a slice
    /// or the Endpoints, because it is not known what they publish; or the Service, if nothing is known of it.
    pub fn unreadable_for(&self, service: &Key, registration: &str) -> Option<&Unreadable> {
        let unknown = self.services.get(service).is_none();
        let in_the_way = |slice: &&Unreadable| match (&slice.service, &slice.owner) {
            (None, None) => true,
            (of, owner) => {
                of.as_ref() == Some(&service.name) || owner.as_deref() == Some(registration)
            }
        };
        let service_unread = self.services.unreadable(service).filter(|_| unknown);
        let endpoints = self.endpoints.unreadable(service);
        let mut slices = self.slices.unreadable_in(&service.namespace);
        service_unread.or(endpoints).or_else(|| slices.find(in_the_way))
    }

    /// The Pods of a namespace of which nothing is known, because they cannot be read.
    pub fn unreadable_pods(&self, namespace: &str) -> impl Iterator<Item = &Unreadable> {
        let unread = self.pods.unreadable_in(namespace);
        unread.filter(|pod| self.pods.get(&pod.key).is_none())
    }

    /// A Pod of which nothing is known, because it cannot be read.
    pub fn unreadable_pod(&self, key: &Key) -> Option<&Unreadable> {
        self.pods.unreadable(key).filter(|_| self.pods.get(key).is_none())
    }

    /// A Pod.
    pub fn pod(&self, key: &Key) -> Option<Arc<PodView>> {
        self.pods.get(key).cloned()
    }

    /// A Service.
    pub fn service(&self, key: &Key) -> Option<Arc<ServiceView>> {
        self.services.get(key).cloned()
    }

    /// An Endpoints object.
    pub fn endpoints(&self, key: &Key) -> Option<Arc<Endpoints>> {
        self.endpoints.get(key).cloned()
    }

    /// The zone of a Node.
    pub fn zone(&self, node: &str) -> Option<String> {
        self.zones.get(&Key::new("", node)).cloned()
    }

    /// The slices of a registration; and the name and manager of the first foreign slice of its Service.
    pub fn slices(
        &self,
        service: &Key,
        owner: &str,
    ) -> (Vec<Arc<EndpointSlice>>, Option<(String, String)>) {
        let by_label = self.slices_by_service.get(service).into_iter().flatten();
        let by_owner = self.slices_by_owner.get(&Key::new(&service.namespace, owner));
        let names: BTreeSet<&String> = by_label.chain(by_owner.into_iter().flatten()).collect();
        let mut ours = Vec::new();
        let mut foreign = None;
        for name in names {
            let key = Key::new(&service.namespace, name);
            let Some(slice) = self.slices.get(&key) else { continue };
            match self.ownership(&slice.metadata, owner) {
                Ownership::Ours => ours.push(slice.clone()),
                Ownership::Sibling => {}
                Ownership::Foreign => {
                    let manager = match copied_from(&slice.metadata) {
                        Some(from) => format!("the user who copied it from namespace {from}"),
                        None => label(&slice.metadata, SLICE_MANAGED_BY_LABEL)
                            .unwrap_or("an unnamed manager")
                            .to_owned(),
                    };
                    foreign.get_or_insert((key.name, manager));
                }
            }
        }
        (ours, foreign)
    }

    /// Whether everything that others have published for a Service comes from Kubernetes' own controllers.
    pub fn is_left_by_cluster(&self, service: &Key, uid: &str) -> bool {
        let names = self.slices_by_service.get(service).into_iter().flatten();
        let slices = names.filter_map(|name| self.slices.get(&Key::new(&service.namespace, name)));
        let foreign = |metadata: &&ObjectMeta| self.ownership(metadata, uid) == Ownership::Foreign;
        let endpoints = self.endpoints.get(service).map(|endpoints| &endpoints.metadata);
        let endpoints = endpoints.map(|metadata| (metadata, !foreign(&metadata)));
        leftovers::are_all(slices.map(|slice| &slice.metadata).filter(foreign), endpoints)
    }

    /// The Service that the slices of a registration are for, if all slices name the same one.
    pub fn service_published_by(&self, namespace: &str, uid: &str) -> Option<String> {
        let slices = self.slices_by_owner.get(&Key::new(namespace, uid)).into_iter().flatten();
        let slices = slices.filter_map(|name| self.slices.get(&Key::new(namespace, name)));
        let mut names = slices.map(|slice| label(&slice.metadata, SERVICE_NAME_LABEL));
        let first = names.next()??;
        names.all(|name| name == Some(first)).then(|| first.to_owned())
    }

    /// The addresses in those of these slices that are known.
    pub fn addresses_in(&self, slices: &[Arc<EndpointSlice>]) -> AddressSet {
        let known = slices.iter().filter_map(|it| self.addresses_in.get(&Key::of(&it.metadata)));
        let mut all = AddressSet::default();
        for addresses in known {
            all.extend(addresses);
        }
        all
    }

    /// The manager of an object, from the view of the registration with this uid.
    pub fn ownership(&self, metadata: &ObjectMeta, uid: &str) -> Ownership {
        // A mirrored slice also has the labels of its Endpoints.
        let manager = label(metadata, SLICE_MANAGED_BY_LABEL)
            .or_else(|| label(metadata, ENDPOINTS_MANAGED_BY_LABEL));
        let marked = manager == Some(MANAGER);
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let lives =
            |owner: &str, name: &str| self.registrations.live(&Key::new(namespace, name), owner);
        if copied_from(metadata).is_some() {
            // It belongs to the user who made it, whatever labels were copied along (P6).
            return Ownership::Foreign;
        }
        match owner_of(metadata) {
            Some((owner, _)) if owner == uid => Ownership::Ours,
            None if marked => Ownership::Ours,
            Some((owner, name)) if marked && !lives(owner, name) => Ownership::Ours,
            Some(_) if marked => Ownership::Sibling,
            _ => Ownership::Foreign,
        }
    }

    /// Whether a Service belongs to the registration with this uid. It does if the Service names it as its owner. It
    /// also does if the Service names a registration that no longer exists; it is then taken over before the garbage
    /// collector deletes it.
    pub fn owns_service(&self, service: &ServiceView, namespace: &str, uid: &str) -> bool {
        match (&service.owner, &service.registration) {
            (Some(owner), _) if owner == uid => true,
            (Some(owner), Some(name)) => {
                !self.registrations.live(&Key::new(namespace, name), owner)
            }
            _ => false,
        }
    }

    /// Which object has an address, as far as the watches know.
    pub fn owner_of_address(&self, address: IpAddr) -> Option<String> {
        let (key, kind) = self.addresses.get(&address)?.iter().next()?;
        Some(format!("{kind} {key}"))
    }

    /// Whether a Pod of a namespace asks for the operator's readiness gate.
    pub fn has_gated(&self, namespace: &str) -> bool {
        self.gated.contains_key(namespace)
    }

    /// The Pods of a namespace that ask for the operator's readiness gate.
    pub fn gated(&self, namespace: &str) -> Vec<Key> {
        let names = self.gated.get(namespace).into_iter().flatten();
        names.map(|name| Key::new(namespace, name)).collect()
    }

    /// Records which object has which addresses. The text is the kind of that object, for messages.
    fn note_addresses(&mut self, key: &Key, old: &[IpAddr], new: &[(IpAddr, &'static str)]) {
        let remains = |address: &IpAddr| new.iter().any(|(known, _)| known == address);
        let changed = old.iter().filter(|address| !remains(address));
        let appeared = new.iter().map(|(address, _)| address);
        let changed = changed.chain(appeared.filter(|address| !old.contains(address)));
        changed.for_each(|address| self.dependents.address_changed(*address));
        for address in old {
            if let Some(owners) = self.addresses.get_mut(address) {
                owners.remove(key);
                if owners.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
        for (address, kind) in new {
            self.addresses.entry(*address).or_default().insert(key.clone(), *kind);
        }
    }
}
