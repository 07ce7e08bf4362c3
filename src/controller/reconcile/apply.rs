//! The apply step: carries out a plan phase by phase. Each write is conditional on the state from which it was
//! planned. No other code writes slices and Endpoints.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Endpoints, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams, Preconditions},
};
use serde::Serialize;

use crate::controller::{
    context::{Context, call, call_write},
    error::ApiError,
    reconcile::isolate::isolate,
    report::status_writer::pause_after,
    rollback,
};
use crate::kube_client::list::Collection;
use beatkeeper_core::{
    cluster_cache::watched::Watched,
    inputs::{Inputs, snapshot},
    objects::{
        decode::{Decode, Lenient},
        registration::Registration,
    },
    plan::{
        hold_back,
        write::{Plan, Write},
    },
    report::applied::Applied,
    vocabulary::{key::Key, monotonic_time::MonotonicTime, server_message, version::Version},
};

/// How many writes run at once.
const SIDE_BY_SIDE: usize = 8;

/// After this time the search for refused addresses continues with the next plan, so that no prune waits for
/// the rest of it.
const LONGEST_SEARCH: Duration = Duration::from_secs(1);

/// The longest pause of Endpoints after an update.
const LONGEST_ENDPOINTS_PAUSE: Duration = Duration::from_secs(1);

/// Removes an update of the Endpoints from a plan during the pause after the last update ([`pause_after`]). One
/// Endpoints object holds all instances: each change of one instance writes all of them anew. The work of the
/// API server for that delays the writes of the slices, and nearly all consumers read the slices. Returns the
/// end of the pause if an update was removed. Then the Endpoints are planned anew.
pub(crate) fn pause_endpoints(
    plan: &mut Plan,
    registration: &Registration,
    context: &Context,
) -> Option<MonotonicTime> {
    let Registration { key, uid, .. } = registration;
    let until = context.remember(key, uid, |memory| memory.endpoints_paused_until);
    (context.clock.now() < until && plan.leave_endpoints_as_they_are()).then_some(until)
}

/// How a plan ended.
#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly always the large one")]
pub(crate) enum Outcome {
    /// The whole plan was carried out, or a part was refused in a way that a new plan would not fix.
    Done(Applied),
    /// The state differs from the one that was planned from. It has been read anew, and a new plan is needed.
    Conflict(String),
}

/// Carries out a plan. The next plan sees the written objects at once. Client required.
pub(crate) async fn apply(
    registration: &Registration,
    stage: &Inputs,
    plan: Plan,
    context: &Context,
) -> Outcome {
    let mut applied = Applied::default();
    let mut versions: HashMap<String, String> = HashMap::new();
    for phase in plan.phases {
        let writes = phase.into_iter().map(|mut write| {
            if let Some(version) = write.slice_name().and_then(|name| versions.get(name)) {
                write.rebase(version);
            }
            write
        });
        // Slices are written first: the one list of all addresses takes the API server as long as several
        // slices, and fewer consumers read it.
        let (lists, slices): (Vec<_>, Vec<_>) = writes.partition(Write::is_of_endpoints);
        let send = |writes: Vec<Write>| {
            stream::iter(writes)
                .map(|write| async {
                    let result = carry_out(registration, &write, context).await;
                    (write, result)
                })
                .buffer_unordered(SIDE_BY_SIDE)
        };
        let mut results: Vec<_> = send(slices).collect().await;
        let lists = match results.iter().all(|(_, result)| result.is_ok()) {
            true => lists,
            false => only_published(lists, registration, stage, context),
        };
        results.extend(send(lists).collect::<Vec<_>>().await);
        let (mut conflict, mut refused) = (None, Vec::new());
        tracing::trace!(registration = %registration.key, "a phase is over");
        for (write, result) in results {
            match result {
                Ok(written) => {
                    applied.writes += 1;
                    versions.extend(written);
                }
                Err(error) if error.is_namespace_ending() => {}
                Err(error) if error.is_conflict() => conflict = Some(error.to_string()),
                Err(error) => {
                    let words =
                        server_message::printable(&error.to_string(), write.generate_name());
                    applied.failure = Some(words.clone());
                    refused.extend(error.is_refusal().then_some((write, words)));
                }
            }
        }
        if let Some(conflict) = conflict {
            return Outcome::Conflict(conflict);
        }
        let began = context.clock.now();
        for (write, words) in refused {
            if isolate(registration, stage, &write, &words, context).await {
                conflict = Some(words);
                if context.clock.now().since(began) >= LONGEST_SEARCH {
                    break;
                }
            }
        }
        if let Some(words) = conflict {
            // Without the refused addresses the API server may accept the rest.
            return Outcome::Conflict(words);
        }
        // A phase begins only when all of the one before it has succeeded (P3).
        if applied.failure.is_some() {
            break;
        }
    }
    Outcome::Done(applied)
}

/// Limits writes of Endpoints after a write of a slice has failed: they add no address that is in no slice.
/// Removals do not wait.
fn only_published(
    lists: Vec<Write>,
    registration: &Registration,
    stage: &Inputs,
    context: &Context,
) -> Vec<Write> {
    let published = snapshot::published(registration, &context.world());
    let before = stage.snapshot.endpoints.as_deref();
    let allowed = |write| hold_back::without_unpublished(write, before, published.all());
    lists.into_iter().filter_map(allowed).collect()
}

/// Carries out one write. Returns the object's name and its new resourceVersion, unless the object was deleted.
async fn carry_out(
    registration: &Registration,
    write: &Write,
    context: &Context,
) -> Result<Option<(String, String)>, ApiError> {
    let namespace = &registration.key.namespace;
    tracing::debug!(registration = %registration.key, %write, "writing");
    let slices = Kind::<EndpointSlice>::new(namespace, write, context);
    let endpoints = Kind::<Endpoints>::new(namespace, write, context);
    match write {
        Write::CreateSlice(slice) => slices.create(slice).await,
        Write::UpdateSlice(slice, _) => slices.replace(slice).await,
        Write::DeleteSlice { name, uid, resource_version } => {
            slices.delete(name, uid, resource_version).await
        }
        Write::CreateEndpoints(object) => endpoints.create(object).await,
        Write::UpdateEndpoints(object, _) => {
            let began = context.clock.now();
            let result = endpoints.replace(object).await;
            let Registration { key, uid, .. } = registration;
            if result.is_ok() {
                let ended = context.clock.now();
                let rest = pause_after(ended.since(began)).min(LONGEST_ENDPOINTS_PAUSE);
                context.remember(key, uid, |memory| memory.endpoints_paused_until = ended + rest);
            }
            result
        }
        Write::DeleteEndpoints { name, uid, resource_version } => {
            endpoints.delete(name, uid, resource_version).await
        }
    }
}

/// The writes that slices and Endpoints have in common.
struct Kind<'a, K> {
    api: Api<Lenient<K>>,
    namespace: &'a str,
    write: &'a Write,
    context: &'a Context,
}

impl<'a, K> Kind<'a, K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Watched
        + Decode
        + Serialize
        + Clone
        + Debug
        + Send
        + Sync,
{
    fn new(namespace: &'a str, write: &'a Write, context: &'a Context) -> Self {
        Self { api: Api::namespaced(context.client.clone(), namespace), namespace, write, context }
    }

    async fn create(&self, object: &K) -> Result<Option<(String, String)>, ApiError> {
        let result = call_write(
            self.context,
            || self.doing(),
            self.api.create(&PostParams::default(), &Lenient(object.clone())),
        )
        .await;
        // A creation is planned from the state in which the object does not exist.
        let name = Resource::meta(object).name.as_deref();
        self.known(result, name, Version(0)).await
    }

    async fn replace(&self, object: &K) -> Result<Option<(String, String)>, ApiError> {
        let metadata = Resource::meta(object);
        let name = metadata.name.as_deref().unwrap_or_default();
        let from = Version::of(metadata.resource_version.as_deref());
        let (params, wanted) = (PostParams::default(), Lenient(object.clone()));
        let result =
            call_write(self.context, || self.doing(), self.api.replace(name, &params, &wanted))
                .await;
        self.known(result, Some(name), from).await
    }

    async fn delete(
        &self,
        name: &str,
        uid: &str,
        resource_version: &str,
    ) -> Result<Option<(String, String)>, ApiError> {
        let exactly = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(resource_version.to_owned()),
        });
        let from = Version::of(Some(resource_version));
        let objects = Collection::of::<K>(&self.context.client, Some(self.namespace));
        match call_write(self.context, || self.doing(), objects.delete(name, &exactly)).await {
            Ok(()) => {
                self.context.world().remove_own::<K>(&Key::new(self.namespace, name), from);
                Ok(None)
            }
            Err(error) => self.known(Err(error), Some(name), from).await,
        }
    }

    /// Makes the result known to the next plan. This is the object as it was written or, after a conflict, as
    /// it is read now. If that read fails, the watch brings the object.
    async fn known(
        &self,
        result: Result<Lenient<K>, ApiError>,
        name: Option<&str>,
        from: Version,
    ) -> Result<Option<(String, String)>, ApiError> {
        match result {
            Ok(Lenient(object)) => {
                let metadata = Resource::meta(&object);
                let named = metadata.name.clone().zip(metadata.resource_version.clone());
                self.context.world().put_own(object);
                Ok(named)
            }
            Err(error) => {
                if error.is_conflict()
                    && let Some(name) = name
                {
                    if from != Version(0) || !error.is_absent() {
                        let key = Key::new(self.namespace, name);
                        self.context.world().refused::<K>(&key, from);
                    }
                    self.requeue_at(name, from).await;
                }
                Err(error)
            }
        }
    }

    async fn requeue_at(&self, name: &str, from: Version) {
        let read = call(|| format!("read {name}, to plan anew"), self.api.get(name)).await;
        match read {
            Ok(Lenient(object)) => rollback::take_in(object, from, self.context),
            Err(error) if error.is_absent() => {
                self.context.world().remove_own::<K>(&Key::new(self.namespace, name), from);
            }
            Err(_) => {}
        }
    }

    fn doing(&self) -> String {
        format!("{} in namespace {}", self.write, self.namespace)
    }
}
