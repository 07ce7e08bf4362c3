//! The watches of objects. Each keeps the cache of one kind up to date and wakes the registrations concerned.

use std::sync::Arc;

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Resource, core::PartialObjectMeta, runtime::watcher::Event};
use tokio::sync::oneshot;

use super::{
    access::ReadAccess, address_scope::AddressScope, begin::WatchStarter,
    unreadable::UnreadableObjects,
};
use crate::{
    controller::{
        cluster::Cluster, liveness::Liveness, probe::others::Probes, queue::WorkQueue,
        report::gates::ReadinessGates, rollback::Rollback,
    },
    kube_client::list::Collection,
};
use beatkeeper_core::{
    cluster_cache::watched::Watched,
    liveness::rollback::RollbackSign,
    objects::{
        decode::{Decode, Decoded, Unreadable},
        heartbeat::{Heartbeat, HeartbeatLease},
    },
    vocabulary::{key::Key, version::Version},
};

/// Follows the objects of one scope.
#[derive(Clone)]
pub(crate) struct ObjectWatches {
    pub(crate) watches: WatchStarter,
    pub(crate) rollback: Arc<Rollback>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) probes: Arc<Probes>,
    pub(crate) gates: Arc<ReadinessGates>,
    pub(crate) queue: Arc<WorkQueue>,
}

/// The first lists of all watches.
pub(crate) struct FirstLists {
    read_access: Arc<ReadAccess>,
    lists: Vec<(&'static str, oneshot::Receiver<()>)>,
}

impl FirstLists {
    /// Waits until each kind has been listed once. A decision from incomplete caches would treat the missing
    /// objects as absent. Never returns if a watch has ended before its first list.
    pub(crate) async fn read(self) {
        for (kind, first_list) in self.lists {
            tracing::debug!(kind, "waiting for the first list");
            let listed = async {
                if first_list.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = listed => {}
                () = self.read_access.not_needed(kind) => {}
            }
        }
    }
}

impl ObjectWatches {
    /// Starts all watches. They end when the controller stops.
    ///
    /// Pods, Services and slices of all namespaces are watched where a decision needs to know which object owns
    /// an address. This applies to an operator for one namespace, too ([`AddressScope`]).
    pub(crate) fn start(&self, addresses: AddressScope) -> FirstLists {
        let (client, namespace) = (&self.watches.client, self.watches.namespace.as_deref());
        let beats = Collection::of::<HeartbeatLease>(client, namespace);
        let mut lists = Vec::new();
        lists.push(self.follow("Leases", beats.labelled(REGISTRATION_LABEL), Self::on_lease));
        let addressed = namespace.filter(|_| addresses == AddressScope::None);
        lists.push(self.follow("Pods", Collection::of::<Pod>(client, addressed), Self::on_pod));
        let services = Collection::of::<Service>(client, addressed);
        lists.push(self.follow("Services", services, Self::on_object::<Service>));
        let slices = Collection::of::<EndpointSlice>(client, addressed);
        lists.push(self.follow("EndpointSlices", slices, Self::on_object::<EndpointSlice>));
        let endpoints = Collection::of::<Endpoints>(client, namespace);
        lists.push(self.follow("Endpoints", endpoints, Self::on_object::<Endpoints>));
        if namespace.is_none() {
            // Only the labels of a Node are used. Its status is large and changes often.
            let nodes = Collection::of::<Node>(client, None).metadata_only();
            lists.push(self.follow("Nodes", nodes, Self::on_object::<PartialObjectMeta<Node>>));
        }
        FirstLists { read_access: self.watches.read_access.clone(), lists }
    }

    fn follow<K: Decode + Resource<DynamicType = ()> + Send + 'static>(
        &self,
        kind: &'static str,
        collection: Collection,
        take_in: fn(&Self, Event<Decoded<K>>),
    ) -> (&'static str, oneshot::Receiver<()>) {
        let (listed, first_list) = oneshot::channel();
        let events = self.watches.begin::<K>(kind, collection);
        let this = self.clone();
        let follow = async move {
            let mut listed = Some(listed);
            let mut health = this.watches.health(kind);
            let mut unreadable = UnreadableObjects::of(kind, &this.watches.telemetry);
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let Some(event) = health.take(event) else { continue };
                unreadable.note(&event);
                let done = matches!(event, Event::InitDone);
                take_in(&this, event);
                if done && let Some(listed) = listed.take() {
                    this.watches.note_first_list(kind);
                    let _ = listed.send(());
                }
            }
        };
        self.watches.tasks.spawn_for_ever(follow);
        (kind, first_list)
    }
}

impl ObjectWatches {
    /// Takes in an event of an object. The cache knows which registrations it concerns.
    fn on_object<K: Watched>(&self, event: Event<Decoded<K>>) {
        let concerned = self.take_in(event);
        self.queue.wake(concerned);
    }

    /// Takes in an event of a Pod. It concerns the registrations with an instance in the Pod, which the index
    /// knows.
    fn on_pod(&self, event: Event<Decoded<Pod>>) {
        let pods = self.take_in(event);
        let gated: Vec<Key> = {
            let cluster = self.cluster.lock();
            let asks = |key: &&Key| cluster.pod(key).is_some_and(|pod| pod.gate.is_some());
            pods.iter().filter(asks).cloned().collect()
        };
        pods.iter()
            .filter(|pod| !gated.contains(pod))
            .for_each(|pod| self.gates.lock().forget_pod(pod));
        self.gates.check(gated);
        let concerned: Vec<Key> = {
            let index = self.liveness.index();
            pods.iter().flat_map(|pod| index.registrations_of_pod(pod)).collect()
        };
        self.queue.wake(concerned);
    }

    fn take_in<K: Watched>(&self, event: Event<Decoded<K>>) -> Vec<Key> {
        let mut cluster = self.cluster.lock();
        let concerned = match event {
            Event::Init => {
                cluster.begin_list::<K>();
                Vec::new()
            }
            Event::InitApply(Ok(object)) | Event::Apply(Ok(object)) => cluster.put(object),
            Event::InitApply(Err(object)) | Event::Apply(Err(object)) => {
                cluster.put_unreadable::<K>(*object)
            }
            Event::InitDone => cluster.end_list::<K>(),
            Event::Delete(Ok(object)) => cluster.remove(&object),
            Event::Delete(Err(object)) => cluster.remove_named::<K>(&object.key, object.version),
        };
        let affected = cluster.dependents.take_affected();
        let went_back = cluster.went_back::<K>();
        drop(cluster);
        self.queue.wake(affected);
        if went_back {
            self.rollback.begin(RollbackSign::ListedObject);
        }
        concerned
    }

    /// Takes in an event of a heartbeat Lease. Every beat takes this path: one parse, one look-up.
    fn on_lease(&self, event: Event<Decoded<HeartbeatLease>>) {
        let now = self.watches.telemetry.clock.now();
        let observed = match event {
            Event::Init => {
                self.liveness.path().rollback_detector().list_begins();
                self.liveness.index().begin_list();
                return;
            }
            // Whether the instance beats is not known. At its deadline the live read fails, too, and the instance
            // is held. A list that contains the Lease in this form counts as not showing it, so the Lease is read
            // live as well.
            Event::InitApply(Err(_)) | Event::Apply(Err(_)) => return,
            Event::InitApply(Ok(lease)) | Event::Apply(Ok(lease)) => {
                let beat = Heartbeat::read(&lease);
                if self.probes.put(&lease, &beat, now) {
                    // A renewal of our probe is answered with a lower version only if the store has gone back.
                    self.liveness.index().note_version(beat.version);
                    let noticed = self.liveness.path().rollback_detector().take_noticed();
                    noticed.into_iter().for_each(|sign| self.rollback.begin(sign));
                    return;
                }
                let namespace = lease.metadata.namespace.as_deref().unwrap_or_default();
                let mut index = self.liveness.index();
                let observed = index.observe(namespace, beat, now);
                let went_back = index.went_back();
                drop(index);
                if went_back {
                    self.rollback.begin(RollbackSign::ListedLease);
                }
                observed
            }
            Event::InitDone => self.liveness.index().end_list(),
            Event::Delete(lease) => {
                let (key, version) = match lease {
                    Ok(HeartbeatLease { metadata, .. }) => {
                        (Key::of(&metadata), Version::of(metadata.resource_version.as_deref()))
                    }
                    Err(unreadable) => {
                        let Unreadable { key, version, .. } = *unreadable;
                        (key, version)
                    }
                };
                self.probes.remove(&key);
                self.liveness.index().observe_deleted(&key, version)
            }
        };
        if observed.beat {
            self.watches.telemetry.metrics.beat(observed.since);
        }
        self.queue.wake(observed.wake);
    }
}
