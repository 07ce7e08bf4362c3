//! What is known of the cluster apart from the heartbeats: trimmed views of its objects, and the look-ups that
//! decisions need.

mod abandoned;
mod deliveries;
mod object_cache;
mod registrations;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{core::v1::Endpoints, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub use abandoned::{Abandoned, Kind};
pub use deliveries::PendingDelivery;
pub use watched::Watched;

use self::{abandoned::Belongings, object_cache::ObjectCache, registrations::Registrations};
use super::{
    address::AddressSet,
    decode::Unreadable,
    depends::Dependents,
    heartbeat::Version,
    index::Key,
    leftovers,
    plan::meta::{
        self, ENDPOINTS_MANAGED_BY_LABEL, MANAGER, Marked, SERVICE_NAME_LABEL,
        SLICE_MANAGED_BY_LABEL,
    },
    pod::PodView,
    service::ServiceView,
};

/// The suffix of the names of Kubernetes' own controllers.
const CLUSTERS: &str = "-controller.k8s.io";

/// The manager of a slice or an Endpoints object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This registration. An object with the operator's mark also counts as its own if it has no owner, or one that no
    /// longer exists. The registration takes it over before the garbage collector deletes it.
    Ours,
    /// Another registration for the same Service.
    Sibling,
    /// Another manager.
    ForeignObjects,
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
    /// Which registrations have asked for which objects.
    pub dependents: Dependents,
}

impl ClusterCache {
    /// Stores an object that the watch shows. Returns the registrations that it concerns.
    pub fn put<K: Watched>(&mut self, object: K) -> Vec<Key> {
        let (key, version) = identity(object.metadata());
        let change = K::cache(self).put(key, version, object.view());
        change.map(|change| K::changed(self, &change)).unwrap_or_default()
    }

    /// Stores an object that a call of the operator returned.
    pub fn put_own<K: Watched>(&mut self, object: K) {
        let (key, version) = identity(object.metadata());
        if let Some(change) = K::cache(self).put_own(key, version, object.view()) {
            K::changed(self, &change);
        }
    }

    /// Records that a write was refused because the object is no longer at this version. The watch must then still
    /// show its current state.
    pub fn refused<K: Watched>(&mut self, key: &Key, from: Version) {
        K::cache(self).refused(key, from);
    }

    /// Stores an object that a read returned; `known` is the version that was known when the read was sent.
    pub fn put_read<K: Watched>(&mut self, object: K, known: Version) {
        let (key, version) = identity(object.metadata());
        if let Some(change) = K::cache(self).put_read(key, version, known, object.view()) {
            K::changed(self, &change);
        }
    }

    /// An object of this kind that was written, and that the watch has not shown yet.
    pub fn debt<K: Watched>(&mut self) -> Option<PendingDelivery> {
        K::cache(self).debt()
    }

    /// The newest version that the watch of this kind has shown since its last list began.
    pub fn shown<K: Watched>(&mut self) -> Version {
        K::cache(self).shown()
    }

    /// Whether the versions of this kind have gone back since the last call.
    pub fn went_back<K: Watched>(&mut self) -> bool {
        K::cache(self).went_back()
    }

    /// The store has gone back. The next lists show the current state, whatever the versions are.
    pub fn begin_anew(&mut self) {
        self.pods.begin_anew();
        self.services.begin_anew();
        self.slices.begin_anew();
        self.endpoints.begin_anew();
        self.zones.begin_anew();
    }

    /// Removes an object that the watch reports as deleted. Returns the registrations that this concerns.
    pub fn remove<K: Watched>(&mut self, object: &K) -> Vec<Key> {
        let (key, version) = identity(object.metadata());
        self.remove_named::<K>(&key, version)
    }

    /// Removes an object by name that the watch reports as deleted. Returns the registrations that this concerns.
    pub fn remove_named<K: Watched>(&mut self, key: &Key, version: Version) -> Vec<Key> {
        let change = K::cache(self).remove(key, version);
        change.map(|change| K::changed(self, &change)).unwrap_or_default()
    }

    /// Records that the watch shows an object that cannot be read. What was known of it before stays. Returns the
    /// registrations that it concerns.
    pub fn put_unreadable<K: Watched>(&mut self, object: Unreadable) -> Vec<Key> {
        let concerned = K::concerned(self, &object);
        K::cache(self).put_unreadable(object);
        concerned
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

    /// Removes an object that the operator has deleted or has found to be missing.
    pub fn remove_own<K: Watched>(&mut self, key: &Key, version: Version) {
        if let Some(change) = K::cache(self).remove_own(key, version) {
            K::changed(self, &change);
        }
    }

    /// Records that a list of this kind begins.
    pub fn begin_list<K: Watched>(&mut self) {
        K::cache(self).begin_list();
    }

    /// Records that the list has ended. Objects that it did not show are gone. Returns the registrations that this
    /// concerns.
    pub fn end_list<K: Watched>(&mut self) -> Vec<Key> {
        let gone = K::cache(self).end_list();
        gone.iter().flat_map(|change| K::changed(self, change)).collect()
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
                Ownership::ForeignObjects => {
                    let manager = match meta::copied_from(&slice.metadata) {
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
        let foreign =
            |metadata: &&ObjectMeta| self.ownership(metadata, uid) == Ownership::ForeignObjects;
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
        if meta::copied_from(metadata).is_some() {
            // It belongs to the user who made it, whatever labels were copied along (P6).
            return Ownership::ForeignObjects;
        }
        match owner_of(metadata) {
            Some((owner, _)) if owner == uid => Ownership::Ours,
            None if marked => Ownership::Ours,
            Some((owner, name)) if marked && !lives(owner, name) => Ownership::Ours,
            Some(_) if marked => Ownership::Sibling,
            _ => Ownership::ForeignObjects,
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

/// The entries of a namespace in a map, found without visiting the others.
fn in_namespace<'a, V>(
    map: &'a BTreeMap<Key, V>,
    namespace: &str,
) -> impl Iterator<Item = (&'a Key, &'a V)> {
    let from = map.range(Key::new(namespace, "")..);
    from.take_while(move |(key, _)| key.namespace == namespace)
}

fn identity(metadata: &ObjectMeta) -> (Key, Version) {
    (Key::of(metadata), Version::of(metadata.resource_version.as_deref()))
}

/// A label of an object.
pub fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Uid and name of the ServiceRegistration that an object belongs to. They come from the operator's annotation, or
/// from the owner reference that earlier versions wrote.
pub fn owner_of(metadata: &ObjectMeta) -> Option<(&str, &str)> {
    if let Some(Marked { uid, name, .. }) = mark_of(metadata) {
        return Some((uid, name));
    }
    metadata
        .owner_references
        .iter()
        .flatten()
        // A reference without `controller` only asks for the object to be deleted with the registration.
        .find(|owner| owner.controller == Some(true) && meta::is_registration(owner))
        .map(|owner| (owner.uid.as_str(), owner.name.as_str()))
}

/// The content of the operator's annotation on an object; `None` if it was copied from another object.
pub fn mark_of(metadata: &ObjectMeta) -> Option<Marked<'_>> {
    let marked = Marked::read(meta::owned_by(metadata)?)?;
    // The cluster's controller copies annotations from Endpoints to the slices that it mirrors.
    let mirrored = label(metadata, SLICE_MANAGED_BY_LABEL).is_some_and(|it| it.ends_with(CLUSTERS));
    // On a Service: no registration owns a copy of the Service under another name.
    let renamed = marked.service.is_some_and(|service| metadata.name.as_deref() != Some(service));
    let copied = mirrored || renamed || meta::copied_from(metadata).is_some();
    (!copied).then_some(marked)
}
