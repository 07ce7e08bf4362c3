//! The watches: each keeps one kind of object up to date, and wakes the registrations concerned.

use std::{fmt::Debug, sync::Arc};

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::{access, anew, context::Context, pauses::Pauses, probe, pulse::Pulse};
use crate::core::{
    heartbeat::{Heartbeat, HeartbeatLease, Version},
    index::Key,
    world::Watched,
};

/// The watches of one scope.
pub(super) struct Watches<'a> {
    context: &'a Arc<Context>,
    namespace: Option<&'a str>,
    first_lists: Vec<(&'static str, oneshot::Receiver<()>)>,
}

impl<'a> Watches<'a> {
    /// Starts all of them; they end when the controller stops.
    pub(super) fn start(context: &'a Arc<Context>, namespace: Option<&'a str>) -> Self {
        let mut watches = Self { context, namespace, first_lists: Vec::new() };
        let client = &context.client;
        let all = watcher::Config::default;
        let beats = all().labels(REGISTRATION_LABEL);
        watches.follow("Leases", scoped::<HeartbeatLease>(client, namespace), beats, on_lease);
        watches.follow("Pods", scoped::<Pod>(client, namespace), all(), on_pod);
        watches.follow("Services", scoped::<Service>(client, namespace), all(), on_object);
        let slices = scoped::<EndpointSlice>(client, namespace);
        watches.follow("EndpointSlices", slices, all(), on_object);
        let endpoints = scoped::<Endpoints>(client, namespace);
        watches.follow("Endpoints", endpoints, all(), on_object);
        if namespace.is_none() {
            // Of a Node only the labels are of interest, and its status is large and changes often.
            let nodes = Api::<PartialObjectMeta<Node>>::all(client.clone());
            watches.follow("Nodes", nodes, all(), on_object);
        }
        watches
    }

    fn follow<K>(
        &mut self,
        kind: &'static str,
        api: Api<K>,
        config: watcher::Config,
        take_in: fn(&Context, Event<K>),
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (listed, first_list) = oneshot::channel();
        self.first_lists.push((kind, first_list));
        let context = self.context.clone();
        let cache = cache(kind, self.namespace);
        context.health.lock().await_cache(&cache);
        context.accesses.expect(kind);
        let events = context.beginnings.of(kind, move || {
            let (api, config) = (api.clone(), config.clone());
            access::begun_anew(move || watcher(api.clone(), config.clone())).backoff(Pauses::new())
        });
        let follow = async move {
            let mut listed = Some(listed);
            let mut pulse = Pulse::of(kind, &context);
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let Some(event) = pulse.take(event) else { continue };
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

    /// Waits until each has been read once: to decide from a part would take the rest for absent.
    /// Never ends where one has ended before that.
    pub(super) async fn first_lists(self) {
        for (kind, first_list) in self.first_lists {
            tracing::debug!(kind, "waiting for the first list");
            let listed = async {
                if first_list.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = listed => {}
                () = self.context.accesses.dispensed_with(kind) => {}
            }
        }
    }
}

/// What the cache of a kind is called, for people.
pub(super) fn cache(kind: &str, namespace: Option<&str>) -> String {
    namespace.map_or_else(|| kind.to_owned(), |namespace| format!("{kind} of {namespace}"))
}

pub(super) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What is known of the cluster; the World knows whom it concerns.
fn on_object<K: Watched>(context: &Context, event: Event<K>) {
    let concerned = in_world(context, event);
    context.wake(concerned);
}

/// A Pod concerns the registrations that have an instance in it, which the index knows.
fn on_pod(context: &Context, event: Event<Pod>) {
    let pods = in_world(context, event);
    let gated: Vec<Key> = {
        let world = context.world();
        let asks = |key: &&Key| world.pod(key).is_some_and(|pod| pod.gate.is_some());
        pods.iter().filter(asks).cloned().collect()
    };
    pods.iter().filter(|pod| !gated.contains(pod)).for_each(|pod| context.gates().forget_pod(pod));
    context.look_at_gates(gated);
    let concerned: Vec<Key> = {
        let index = context.index();
        pods.iter().flat_map(|pod| index.registrations_of_pod(pod)).collect()
    };
    context.wake(concerned);
}

fn in_world<K: Watched>(context: &Context, event: Event<K>) -> Vec<Key> {
    let mut world = context.world();
    let concerned = match event {
        Event::Init => {
            world.begin_list::<K>();
            Vec::new()
        }
        Event::InitApply(object) | Event::Apply(object) => world.put(object),
        Event::InitDone => world.end_list::<K>(),
        Event::Delete(object) => world.remove(&object),
    };
    let affected = world.dependents.take_affected();
    let went_back = world.went_back::<K>();
    drop(world);
    context.wake(affected);
    if went_back {
        anew::begin(context, &"a list shows an object at a lower version than was known before");
    }
    concerned
}

/// A heartbeat. This is the path that every beat takes: one parse, one look-up.
fn on_lease(context: &Context, event: Event<HeartbeatLease>) {
    let now = context.clock.now();
    let observed = match event {
        Event::Init => {
            context.index().begin_list();
            return;
        }
        Event::InitApply(lease) | Event::Apply(lease) => {
            let beat = Heartbeat::read(&lease);
            if probe::take_in(&lease, &beat, now, context) {
                return;
            }
            let namespace = lease.metadata.namespace.as_deref().unwrap_or_default();
            let mut index = context.index();
            let observed = index.observe(namespace, beat, now);
            let went_back = index.went_back();
            drop(index);
            if went_back {
                anew::begin(
                    context,
                    &"a list shows a Lease at a lower version than was known before",
                );
            }
            observed
        }
        Event::InitDone => context.index().end_list(),
        Event::Delete(lease) => {
            let version = Version::of(lease.metadata.resource_version.as_deref());
            let key = Key::of(&lease.metadata);
            probe::take_out(&key, context);
            context.index().observe_deleted(&key, version)
        }
    };
    if observed.beat {
        context.metrics.beat(observed.since);
    }
    context.wake(observed.wake);
}
