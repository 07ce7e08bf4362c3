//! How each kind of watched object is kept: which parts, in which cache, and which registrations a change concerns.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;

use crate::{
    cluster_cache::{
        ClusterCache,
        belongings::Kind,
        deliveries::PendingDelivery,
        object_cache::{Change, ObjectCache, identity},
    },
    objects::{
        decode::Unreadable,
        marks::{
            ENDPOINTS_MANAGED_BY_LABEL, MANAGER, SERVICE_NAME_LABEL, SLICE_MANAGED_BY_LABEL, label,
            mark_of, owner_of,
        },
        pod::PodView,
        service::ServiceView,
    },
    vocabulary::{key::Key, version::Version},
};

/// Label of a Node: its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A watched object: how it is kept, and which registrations a change of it concerns.
pub trait Watched: Sized {
    /// The part of the object that is kept.
    type View: Clone + PartialEq;
    /// The metadata of the object.
    fn metadata(&self) -> &ObjectMeta;
    /// Extracts the part that is kept.
    fn view(self) -> Self::View;
    /// The cache of this kind.
    fn cache(cluster: &mut ClusterCache) -> &mut ObjectCache<Self::View>;
    /// Updates the indexes, and returns the registrations that the change concerns.
    fn changed(cluster: &mut ClusterCache, change: &Change<Self::View>) -> Vec<Key>;
    /// Returns the registrations that an unreadable object concerns, as [`Self::changed`] does.
    fn concerned(cluster: &ClusterCache, object: &Unreadable) -> Vec<Key> {
        cluster.registrations_of(&object.key)
    }
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
}

impl Watched for Pod {
    type View = Arc<PodView>;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn view(self) -> Self::View {
        Arc::new(PodView::of(&self))
    }

    fn cache(cluster: &mut ClusterCache) -> &mut ObjectCache<Self::View> {
        &mut cluster.pods
    }

    /// Returns the key of the Pod. The caller asks the liveness index which registrations the Pod concerns.
    fn changed(cluster: &mut ClusterCache, change: &Change<Self::View>) -> Vec<Key> {
        cluster.pod_changes.note(&change.key);
        let node = "the Node of Pod";
        let owned = |view: &Option<Arc<PodView>>| -> Vec<(IpAddr, &'static str)> {
            let Some(view) = view else { return Vec::new() };
            let kind = if view.host_network { node } else { "Pod" };
            let held = view.holds().iter().map(|address| (*address, kind));
            // A Pod with addresses runs on a Node. Its host addresses belong to that Node, unless the Pod holds them
            // itself.
            let runs = !view.holds().is_empty();
            let hosts = view.host_ips.iter().filter(|host| runs && !view.holds().contains(host));
            held.chain(hosts.map(|host| (*host, node))).collect()
        };
        let old: Vec<IpAddr> = owned(&change.old).into_iter().map(|(address, _)| address).collect();
        cluster.note_addresses(&change.key, &old, &owned(&change.new));
        let Key { namespace, name } = &change.key;
        if change.new.as_ref().is_some_and(|pod| pod.gate.is_some()) {
            cluster.gated.entry(namespace.clone()).or_default().insert(name.clone());
        } else if let Some(names) = cluster.gated.get_mut(namespace) {
            names.remove(name);
            if names.is_empty() {
                cluster.gated.remove(namespace);
            }
        }
        vec![change.key.clone()]
    }

    fn concerned(_: &ClusterCache, object: &Unreadable) -> Vec<Key> {
        vec![object.key.clone()]
    }
}

impl Watched for Service {
    type View = Arc<ServiceView>;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn view(self) -> Self::View {
        Arc::new(ServiceView::of(&self))
    }

    fn cache(cluster: &mut ClusterCache) -> &mut ObjectCache<Self::View> {
        &mut cluster.services
    }

    fn changed(cluster: &mut ClusterCache, change: &Change<Self::View>) -> Vec<Key> {
        let ips = |view: &Option<Arc<ServiceView>>| {
            view.as_ref().map(|view| view.cluster_ips.clone()).unwrap_or_default()
        };
        let new: Vec<_> = ips(&change.new).into_iter().map(|ip| (ip, "Service")).collect();
        cluster.note_addresses(&change.key, &ips(&change.old), &new);
        let [old, new] = [&change.old, &change.new].map(|view| view.as_deref()?.marked());
        cluster.note_owner(Kind::Service, &change.key, old, new);
        cluster.registrations_of(&change.key)
    }
}

impl Watched for EndpointSlice {
    type View = Arc<EndpointSlice>;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Keeps only the metadata of a slice that is neither ours nor the API server's.
    fn view(mut self) -> Self::View {
        self.metadata.managed_fields = None;
        let ours = label(&self.metadata, SLICE_MANAGED_BY_LABEL) == Some(MANAGER)
            || owner_of(&self.metadata).is_some();
        if !ours && !is_api_server(&self.metadata) {
            self.endpoints = Vec::new();
            self.ports = None;
            self.metadata.annotations = None;
            self.metadata.resource_version = None;
            self.metadata.generation = None;
        }
        Arc::new(self)
    }

    fn cache(cluster: &mut ClusterCache) -> &mut ObjectCache<Self::View> {
        &mut cluster.slices
    }

    fn concerned(cluster: &ClusterCache, object: &Unreadable) -> Vec<Key> {
        let Unreadable { key, service, owner, .. } = object;
        let of_service = service
            .iter()
            .flat_map(|service| cluster.registrations_of(&Key::new(&key.namespace, service)));
        of_service.chain(owner.iter().map(|owner| Key::new(&key.namespace, owner))).collect()
    }

    fn changed(cluster: &mut ClusterCache, change: &Change<Self::View>) -> Vec<Key> {
        let key = &change.key;
        let mut concerned = Vec::new();
        let [old, new] = [&change.old, &change.new].map(|it| mark_of(&it.as_ref()?.metadata));
        cluster.note_owner(Kind::EndpointSlice, key, old, new);
        for (slice, present) in [(&change.old, false), (&change.new, true)] {
            let Some(slice) = slice else { continue };
            if let Some(service) = label(&slice.metadata, SERVICE_NAME_LABEL) {
                let service = Key::new(&key.namespace, service);
                let names = cluster.slices_by_service.entry(service.clone()).or_default();
                if present {
                    names.insert(key.name.clone())
                } else {
                    names.remove(&key.name)
                };
                if names.is_empty() {
                    cluster.slices_by_service.remove(&service);
                }
                concerned.extend(cluster.registrations_of(&service));
            }
            if let Some((uid, name)) = owner_of(&slice.metadata) {
                let owner = Key::new(&key.namespace, uid);
                let owned = cluster.slices_by_owner.entry(owner.clone()).or_default();
                if present {
                    owned.insert(key.name.clone())
                } else {
                    owned.remove(&key.name)
                };
                if owned.is_empty() {
                    cluster.slices_by_owner.remove(&owner);
                }
                concerned.push(Key::new(&key.namespace, name));
            }
        }
        let read = |slice: &Arc<EndpointSlice>| -> Box<[IpAddr]> {
            let texts = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            texts.filter_map(|address| address.parse().ok()).collect()
        };
        let new = change.new.as_ref().map(read).filter(|addresses| !addresses.is_empty());
        let old = match new {
            Some(new) => cluster.addresses_in.insert(key.clone(), new),
            None => cluster.addresses_in.remove(key),
        };
        if change.new.as_ref().or(change.old.as_ref()).is_some_and(|s| is_api_server(&s.metadata)) {
            let new = cluster.addresses_in.get(key).cloned();
            let new = new.iter().flatten().map(|address| (*address, "the API server"));
            let new: Vec<_> = new.collect();
            cluster.note_addresses(key, &old.unwrap_or_default(), &new);
        }
        concerned
    }
}

impl Watched for Endpoints {
    type View = Arc<Endpoints>;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Keeps only the metadata of an object that is not ours.
    fn view(mut self) -> Self::View {
        self.metadata.managed_fields = None;
        let ours = label(&self.metadata, ENDPOINTS_MANAGED_BY_LABEL) == Some(MANAGER)
            || owner_of(&self.metadata).is_some();
        if !ours {
            self.subsets = None;
            self.metadata.annotations = None;
            self.metadata.resource_version = None;
        }
        Arc::new(self)
    }

    fn cache(cluster: &mut ClusterCache) -> &mut ObjectCache<Self::View> {
        &mut cluster.endpoints
    }

    fn changed(cluster: &mut ClusterCache, change: &Change<Self::View>) -> Vec<Key> {
        let [old, new] = [&change.old, &change.new].map(|it| mark_of(&it.as_ref()?.metadata));
        cluster.note_owner(Kind::Endpoints, &change.key, old, new);
        cluster.registrations_of(&change.key)
    }
}

impl Watched for PartialObjectMeta<Node> {
    type View = String;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn view(self) -> String {
        label(&self.metadata, ZONE_LABEL).unwrap_or_default().to_owned()
    }

    fn cache(cluster: &mut ClusterCache) -> &mut ObjectCache<String> {
        &mut cluster.zones
    }

    /// Marks the registrations with a Pod on the Node, so the result is empty.
    fn changed(cluster: &mut ClusterCache, change: &Change<String>) -> Vec<Key> {
        cluster.dependents.node_changed(&change.key.name);
        Vec::new()
    }
}

/// Whether this is a slice through which Pods reach the API server.
fn is_api_server(metadata: &ObjectMeta) -> bool {
    metadata.namespace.as_deref() == Some("default")
        && label(metadata, SERVICE_NAME_LABEL) == Some("kubernetes")
}
