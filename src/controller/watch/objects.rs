//! The watches. Each keeps the cache of one kind up to date and wakes the registrations concerned.

use std::sync::Arc;

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher::Event},
};
use tokio::sync::oneshot;

use crate::controller::{
    context::Context,
    probe::prover,
    rollback,
    watch::{
        access, address_scope::AddressScope, backoff::WatchBackoff, health::WatchHealth,
        unreadable::UnreadableObjects,
    },
};
use crate::kube_client::{list::Collection, observe::observe};
use beatkeeper_core::{
    cluster_cache::watched::Watched,
    objects::{
        decode::{Decode, Decoded, Unreadable},
        heartbeat::{Heartbeat, HeartbeatLease},
    },
    vocabulary::{key::Key, version::Version},
};

/// The watches of one scope.
pub(crate) struct Watches<'a> {
    context: &'a Arc<Context>,
    namespace: Option<&'a str>,
    first_lists: Vec<(&'static str, oneshot::Receiver<()>)>,
}

impl<'a> Watches<'a> {
    /// Starts all watches. They end when the controller stops.
    ///
    /// Pods, Services and slices of all namespaces are watched where a decision needs to know which object owns
    /// an address. This applies to an operator for one namespace, too ([`AddressScope`]).
    pub(crate) fn start(
        context: &'a Arc<Context>,
        namespace: Option<&'a str>,
        address_scope: AddressScope,
    ) -> Self {
        let mut watches = Self { context, namespace, first_lists: Vec::new() };
        let client = &context.client;
        let beats = Collection::of::<HeartbeatLease>(client, namespace);
        watches.follow("Leases", beats.labelled(REGISTRATION_LABEL), on_lease);
        let addressed = namespace.filter(|_| address_scope == AddressScope::None);
        watches.follow("Pods", Collection::of::<Pod>(client, addressed), on_pod);
        let services = Collection::of::<Service>(client, addressed);
        watches.follow("Services", services, on_object::<Service>);
        let slices = Collection::of::<EndpointSlice>(client, addressed);
        watches.follow("EndpointSlices", slices, on_object::<EndpointSlice>);
        let endpoints = Collection::of::<Endpoints>(client, namespace);
        watches.follow("Endpoints", endpoints, on_object::<Endpoints>);
        if namespace.is_none() {
            // Only the labels of a Node are used. Its status is large and changes often.
            let nodes = Collection::of::<Node>(client, None).metadata_only();
            watches.follow("Nodes", nodes, on_object::<PartialObjectMeta<Node>>);
        }
        watches
    }

    fn follow<K: Decode + Resource<DynamicType = ()> + Send + 'static>(
        &mut self,
        kind: &'static str,
        collection: Collection,
        take_in: fn(&Context, Event<Decoded<K>>),
    ) {
        let (listed, first_list) = oneshot::channel();
        self.first_lists.push((kind, first_list));
        let context = self.context.clone();
        let cache = cache(kind, self.namespace);
        context.health.lock().await_cache(&cache);
        context.read_access.expect(kind);
        let events = context.relists.of(kind, move || {
            let collection = collection.clone();
            access::relist_after_refusal(move || observe::<K>(collection.clone()))
                .backoff(WatchBackoff::new())
        });
        let follow = async move {
            let mut listed = Some(listed);
            let mut health = WatchHealth::of(kind, &context);
            let mut unread = UnreadableObjects::of(kind, &context);
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let Some(event) = health.take(event) else { continue };
                unread.note(&event);
                let done = matches!(event, Event::InitDone);
                take_in(&context, event);
                if done && let Some(listed) = listed.take() {
                    context.health.lock().cache_read(&cache);
                    let _ = listed.send(());
                }
            }
        };
        self.context.spawn_for_ever(follow);
    }

    /// Waits until each kind has been listed once. A decision from incomplete caches would treat the missing
    /// objects as absent. Never returns if a watch has ended before its first list.
    pub(crate) async fn first_lists(self) {
        for (kind, first_list) in self.first_lists {
            tracing::debug!(kind, "waiting for the first list");
            let listed = async {
                if first_list.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = listed => {}
                () = self.context.read_access.not_needed(kind) => {}
            }
        }
    }
}

/// The name of the cache of a kind, as people read it.
pub(crate) fn cache(kind: &str, namespace: Option<&str>) -> String {
    namespace.map_or_else(|| kind.to_owned(), |namespace| format!("{kind} of {namespace}"))
}

/// Takes in an event of an object. The `World` knows which registrations it concerns.
fn on_object<K: Watched>(context: &Context, event: Event<Decoded<K>>) {
    let concerned = in_world(context, event);
    context.wake(concerned);
}

/// Takes in an event of a Pod. It concerns the registrations with an instance in the Pod, which the index
/// knows.
fn on_pod(context: &Context, event: Event<Decoded<Pod>>) {
    let pods = in_world(context, event);
    let gated: Vec<Key> = {
        let world = context.world();
        let asks = |key: &&Key| world.pod(key).is_some_and(|pod| pod.gate.is_some());
        pods.iter().filter(asks).cloned().collect()
    };
    pods.iter().filter(|pod| !gated.contains(pod)).for_each(|pod| context.gates().forget_pod(pod));
    context.check_gates(gated);
    let concerned: Vec<Key> = {
        let index = context.index();
        pods.iter().flat_map(|pod| index.registrations_of_pod(pod)).collect()
    };
    context.wake(concerned);
}

fn in_world<K: Watched>(context: &Context, event: Event<Decoded<K>>) -> Vec<Key> {
    let mut world = context.world();
    let concerned = match event {
        Event::Init => {
            world.begin_list::<K>();
            Vec::new()
        }
        Event::InitApply(Ok(object)) | Event::Apply(Ok(object)) => world.put(object),
        Event::InitApply(Err(object)) | Event::Apply(Err(object)) => {
            world.put_unreadable::<K>(*object)
        }
        Event::InitDone => world.end_list::<K>(),
        Event::Delete(Ok(object)) => world.remove(&object),
        Event::Delete(Err(object)) => world.remove_named::<K>(&object.key, object.version),
    };
    let affected = world.dependents.take_affected();
    let went_back = world.went_back::<K>();
    drop(world);
    context.wake(affected);
    if went_back {
        rollback::begin(
            context,
            &"a list shows an object at a lower version than was known before",
        );
    }
    concerned
}

/// Takes in an event of a heartbeat Lease. Every beat takes this path: one parse, one look-up.
fn on_lease(context: &Context, event: Event<Decoded<HeartbeatLease>>) {
    let now = context.clock.now();
    let observed = match event {
        Event::Init => {
            context.index().begin_list();
            return;
        }
        // Whether the instance beats is not known. At its deadline the live read fails, too, and the instance
        // is held. A list that contains the Lease in this form counts as not showing it, so the Lease is read
        // live as well.
        Event::InitApply(Err(_)) | Event::Apply(Err(_)) => return,
        Event::InitApply(Ok(lease)) | Event::Apply(Ok(lease)) => {
            let beat = Heartbeat::read(&lease);
            if prover::take_in(&lease, &beat, now, context) {
                return;
            }
            let namespace = lease.metadata.namespace.as_deref().unwrap_or_default();
            let mut index = context.index();
            let observed = index.observe(namespace, beat, now);
            let went_back = index.went_back();
            drop(index);
            if went_back {
                rollback::begin(
                    context,
                    &"a list shows a Lease at a lower version than was known before",
                );
            }
            observed
        }
        Event::InitDone => context.index().end_list(),
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
            prover::take_out(&key, context);
            context.index().observe_deleted(&key, version)
        }
    };
    if observed.beat {
        context.metrics.beat(observed.since);
    }
    context.wake(observed.wake);
}
