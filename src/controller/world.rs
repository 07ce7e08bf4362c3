//! What is known of the cluster besides the heartbeats: trimmed views, and the look-ups that
//! deciding needs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use beatkeeper_api::ServiceRegistration;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;

use super::cache::{Cache, Change};
use crate::core::{
    heartbeat::Version,
    index::Key,
    plan::meta::{MANAGER, SERVICE_NAME_LABEL, SLICE_MANAGED_BY_LABEL},
    pod::PodView,
    registration::Registration,
    service::ServiceView,
};

/// Label of a Node: its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What others need to know of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Brief {
    pub(super) service: String,
    uid: String,
    created: Option<Timestamp>,
    ttl: Duration,
}

/// The cluster as far as it is known.
#[derive(Debug, Default)]
pub(super) struct World {
    pods: Cache<Arc<PodView>>,
    services: Cache<Arc<ServiceView>>,
    slices: Cache<Arc<EndpointSlice>>,
    endpoints: Cache<Arc<Endpoints>>,
    zones: Cache<String>,
    registrations: HashMap<Key, Brief>,
    /// Registrations by their Service.
    by_service: HashMap<Key, BTreeSet<String>>,
    /// Slices by their Service's label, and by the uid of the registration that owns them: either
    /// may be edited away behind our back, and the other still finds them.
    slices_by_service: HashMap<Key, BTreeSet<String>>,
    slices_by_owner: HashMap<String, BTreeSet<Key>>,
    addresses: HashMap<IpAddr, BTreeMap<Key, &'static str>>,
}

/// An object that is watched: how it is kept, and whom its change concerns.
pub(super) trait Watched: Sized {
    /// What is kept of it.
    type View: Clone + PartialEq;
    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Takes the view.
    fn view(self) -> Self::View;
    /// Where the views are kept.
    fn cache(world: &mut World) -> &mut Cache<Self::View>;
    /// Keeps the look-ups up to date, and names the registrations that are concerned.
    fn changed(world: &mut World, change: &Change<Self::View>) -> Vec<Key>;
}

impl World {
    /// Takes in an object: from the watch, or as a write of ours returned it.
    pub(super) fn put<K: Watched>(&mut self, object: K) -> Vec<Key> {
        let (key, version) = identity(object.metadata());
        let change = K::cache(self).put(key, version, object.view());
        change.map(|change| K::changed(self, &change)).unwrap_or_default()
    }

    /// The watch says that an object is gone.
    pub(super) fn remove<K: Watched>(&mut self, object: &K) -> Vec<Key> {
        let (key, version) = identity(object.metadata());
        let change = K::cache(self).remove(&key, version);
        change.map(|change| K::changed(self, &change)).unwrap_or_default()
    }

    /// We deleted an object, or found that there is none.
    pub(super) fn remove_own<K: Watched>(&mut self, key: &Key, version: Version) {
        if let Some(change) = K::cache(self).remove_own(key, version) {
            K::changed(self, &change);
        }
    }

    pub(super) fn begin_list<K: Watched>(&mut self) {
        K::cache(self).begin_list();
    }

    pub(super) fn end_list<K: Watched>(&mut self) -> Vec<Key> {
        let gone = K::cache(self).end_list();
        gone.iter().flat_map(|change| K::changed(self, change)).collect()
    }

    pub(super) fn pod(&self, key: &Key) -> Option<Arc<PodView>> {
        self.pods.get(key).cloned()
    }

    pub(super) fn service(&self, key: &Key) -> Option<Arc<ServiceView>> {
        self.services.get(key).cloned()
    }

    pub(super) fn endpoints(&self, key: &Key) -> Option<Arc<Endpoints>> {
        self.endpoints.get(key).cloned()
    }

    pub(super) fn zone(&self, node: &str) -> Option<String> {
        self.zones.get(&Key::new("", node)).cloned()
    }

    /// The slices that a registration owns, and those of its Service that carry our mark but have
    /// lost their owner; and the first one of the Service that is somebody else's.
    pub(super) fn slices(
        &self,
        service: &Key,
        owner: &str,
    ) -> (Vec<Arc<EndpointSlice>>, Option<(String, String)>) {
        let by_label = self.slices_by_service.get(service).into_iter().flatten();
        let mut keys: BTreeSet<Key> =
            by_label.map(|name| Key::new(&service.namespace, name)).collect();
        keys.extend(self.slices_by_owner.get(owner).into_iter().flatten().cloned());
        let mut ours = Vec::new();
        let mut foreign = None;
        for key in keys {
            let Some(slice) = self.slices.get(&key) else { continue };
            let managed_by = label(&slice.metadata, SLICE_MANAGED_BY_LABEL);
            match owner_of(&slice.metadata) {
                Some((uid, _)) if uid == owner => ours.push(slice.clone()),
                None if managed_by == Some(MANAGER) => ours.push(slice.clone()),
                // Another registration's, or that of an earlier one of our name, which the garbage
                // collector is about to remove.
                Some(_) if managed_by == Some(MANAGER) => {}
                _ => {
                    let manager = managed_by.unwrap_or("somebody who does not say").to_owned();
                    foreign.get_or_insert((key.name, manager));
                }
            }
        }
        (ours, foreign)
    }

    /// Whether an Endpoints object is this registration's.
    pub(super) fn owns(endpoints: &Endpoints, owner: &str) -> bool {
        owner_of(&endpoints.metadata).is_some_and(|(uid, _)| uid == owner)
    }

    /// Whose an address is, as far as the watches know.
    pub(super) fn owner_of_address(&self, address: IpAddr) -> Option<String> {
        let (key, kind) = self.addresses.get(&address)?.iter().next()?;
        Some(format!("{kind} {key}"))
    }

    /// The oldest of the other registrations for the same Service, if it is older than this one.
    pub(super) fn elder(&self, key: &Key) -> Option<String> {
        let own = self.registrations.get(key)?;
        let rank = |brief: &Brief, name: &str| (brief.created, name.to_owned());
        self.by_service
            .get(&Key::new(&key.namespace, &own.service))?
            .iter()
            .filter(|name| **name != key.name)
            .filter_map(|name| {
                let brief = self.registrations.get(&Key::new(&key.namespace, name))?;
                Some(rank(brief, name))
            })
            .min()
            .filter(|other| *other < rank(own, &key.name))
            .map(|(_, name)| name)
    }

    /// Takes in a registration; returns those that share a Service with it, before or now.
    pub(super) fn put_registration(&mut self, object: &ServiceRegistration) -> Vec<Key> {
        let (key, _) = identity(&object.metadata);
        let brief = Brief {
            service: object.service_name().to_owned(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            ttl: Registration::validate(object).ttl,
        };
        if self.registrations.get(&key) == Some(&brief) {
            return Vec::new();
        }
        let mut concerned = self.remove_registration(&key);
        let service = Key::new(&key.namespace, &brief.service);
        self.by_service.entry(service.clone()).or_default().insert(key.name.clone());
        self.registrations.insert(key, brief);
        concerned.extend(self.registrations_of(&service));
        concerned
    }

    /// Forgets a registration; returns those that shared its Service.
    pub(super) fn remove_registration(&mut self, key: &Key) -> Vec<Key> {
        let Some(brief) = self.registrations.remove(key) else { return Vec::new() };
        let service = Key::new(&key.namespace, brief.service);
        if let Some(names) = self.by_service.get_mut(&service) {
            names.remove(&key.name);
        }
        let concerned = self.registrations_of(&service);
        if concerned.is_empty() {
            self.by_service.remove(&service);
        }
        concerned
    }

    /// The registrations that are not among these, after a list.
    pub(super) fn registrations_beyond(&self, listed: &BTreeSet<Key>) -> Vec<Key> {
        self.registrations.keys().filter(|key| !listed.contains(key)).cloned().collect()
    }

    /// The ttl of a registration, if there is such a one.
    pub(super) fn ttl_of(&self, key: &Key) -> Option<Duration> {
        self.registrations.get(key).map(|brief| brief.ttl)
    }

    fn registrations_of(&self, service: &Key) -> Vec<Key> {
        let names = self.by_service.get(service).into_iter().flatten();
        names.map(|name| Key::new(&service.namespace, name)).collect()
    }

    fn note_addresses(&mut self, key: &Key, kind: &'static str, old: &[IpAddr], new: &[IpAddr]) {
        for address in old {
            if let Some(owners) = self.addresses.get_mut(address) {
                owners.remove(key);
                if owners.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
        for address in new {
            self.addresses.entry(*address).or_default().insert(key.clone(), kind);
        }
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

    fn cache(world: &mut World) -> &mut Cache<Self::View> {
        &mut world.pods
    }

    /// Whom a Pod concerns is known to the liveness index, which the caller asks.
    fn changed(world: &mut World, change: &Change<Self::View>) -> Vec<Key> {
        let ips = |view: &Option<Arc<PodView>>| {
            view.as_ref().map(|view| view.ips.clone()).unwrap_or_default()
        };
        world.note_addresses(&change.key, "Pod", &ips(&change.old), &ips(&change.new));
        vec![change.key.clone()]
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

    fn cache(world: &mut World) -> &mut Cache<Self::View> {
        &mut world.services
    }

    fn changed(world: &mut World, change: &Change<Self::View>) -> Vec<Key> {
        let ips = |view: &Option<Arc<ServiceView>>| {
            view.as_ref().map(|view| view.cluster_ips.clone()).unwrap_or_default()
        };
        world.note_addresses(&change.key, "Service", &ips(&change.old), &ips(&change.new));
        world.registrations_of(&change.key)
    }
}

impl Watched for EndpointSlice {
    type View = Arc<EndpointSlice>;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Of a slice that is neither ours nor the API server's only the metadata is kept.
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

    fn cache(world: &mut World) -> &mut Cache<Self::View> {
        &mut world.slices
    }

    fn changed(world: &mut World, change: &Change<Self::View>) -> Vec<Key> {
        let key = &change.key;
        let mut concerned = Vec::new();
        for (slice, present) in [(&change.old, false), (&change.new, true)] {
            let Some(slice) = slice else { continue };
            if let Some(service) = label(&slice.metadata, SERVICE_NAME_LABEL) {
                let service = Key::new(&key.namespace, service);
                let names = world.slices_by_service.entry(service.clone()).or_default();
                if present {
                    names.insert(key.name.clone())
                } else {
                    names.remove(&key.name)
                };
                if names.is_empty() {
                    world.slices_by_service.remove(&service);
                }
                concerned.extend(world.registrations_of(&service));
            }
            if let Some((uid, name)) = owner_of(&slice.metadata) {
                let owned = world.slices_by_owner.entry(uid.to_owned()).or_default();
                if present {
                    owned.insert(key.clone())
                } else {
                    owned.remove(key)
                };
                if owned.is_empty() {
                    world.slices_by_owner.remove(uid);
                }
                concerned.push(Key::new(&key.namespace, name));
            }
        }
        if change.new.as_ref().or(change.old.as_ref()).is_some_and(|s| is_api_server(&s.metadata)) {
            let addresses = |slice: &Option<Arc<EndpointSlice>>| -> Vec<IpAddr> {
                slice
                    .iter()
                    .flat_map(|slice| &slice.endpoints)
                    .flat_map(|endpoint| &endpoint.addresses)
                    .filter_map(|address| address.parse().ok())
                    .collect()
            };
            world.note_addresses(
                key,
                "the API server",
                &addresses(&change.old),
                &addresses(&change.new),
            );
        }
        concerned
    }
}

impl Watched for Endpoints {
    type View = Arc<Endpoints>;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Of an object that is not ours only the metadata is kept.
    fn view(mut self) -> Self::View {
        self.metadata.managed_fields = None;
        if owner_of(&self.metadata).is_none() {
            self.subsets = None;
            self.metadata.annotations = None;
            self.metadata.resource_version = None;
        }
        Arc::new(self)
    }

    fn cache(world: &mut World) -> &mut Cache<Self::View> {
        &mut world.endpoints
    }

    fn changed(world: &mut World, change: &Change<Self::View>) -> Vec<Key> {
        world.registrations_of(&change.key)
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

    fn cache(world: &mut World) -> &mut Cache<String> {
        &mut world.zones
    }

    /// A Node has its zone before its first Pod; nobody waits for it.
    fn changed(_: &mut World, _: &Change<String>) -> Vec<Key> {
        Vec::new()
    }
}

fn identity(metadata: &ObjectMeta) -> (Key, Version) {
    let key = Key::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    );
    (key, Version::of(metadata.resource_version.as_deref()))
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Uid and name of the ServiceRegistration that owns an object.
fn owner_of(metadata: &ObjectMeta) -> Option<(&str, &str)> {
    metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| {
            owner.kind == "ServiceRegistration" && owner.api_version.starts_with("beatkeeper.dev/")
        })
        .map(|owner| (owner.uid.as_str(), owner.name.as_str()))
}

/// The slices by which Pods reach the API server.
fn is_api_server(metadata: &ObjectMeta) -> bool {
    metadata.namespace.as_deref() == Some("default")
        && label(metadata, SERVICE_NAME_LABEL) == Some("kubernetes")
}
