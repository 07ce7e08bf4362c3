//! The apply step: carries a plan out, phase by phase, each write conditional on what it was planned
//! from. No other code writes slices and Endpoints.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};

use super::{
    context::{Context, call},
    error::ApiError,
};
use crate::core::{
    heartbeat::Version,
    index::Key,
    plan::{Plan, Write},
    registration::Registration,
    status::Applied,
};

/// How many writes are under way at once.
const SIDE_BY_SIDE: usize = 8;

/// How a plan ended.
pub(super) enum Outcome {
    /// All of it was carried out, or a part of it was refused in a way that planning anew would not
    /// mend.
    Done(Applied),
    /// The world was not as planned from. It has been read anew: plan again.
    Conflict(String),
}

/// Carries a plan out. What it wrote is known to the next plan at once. Client required.
pub(super) async fn apply(registration: &Registration, plan: Plan, context: &Context) -> Outcome {
    let mut applied = Applied::default();
    let mut versions: HashMap<String, String> = HashMap::new();
    for phase in plan.phases {
        let writes = phase.into_iter().map(|mut write| {
            if let Some(version) = write.slice_name().and_then(|name| versions.get(name)) {
                write.rebase(version);
            }
            write
        });
        let results: Vec<_> = stream::iter(writes.collect::<Vec<_>>())
            .map(|write| carry_out(registration, write, context))
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let mut conflict = None;
        for result in results {
            match result {
                Ok(written) => {
                    applied.writes += 1;
                    versions.extend(written);
                }
                Err(error) if error.is_conflict() => conflict = Some(error.to_string()),
                Err(error) => applied.failure = Some(error.to_string()),
            }
        }
        if let Some(conflict) = conflict {
            return Outcome::Conflict(conflict);
        }
        // A phase begins only when all of the one before it has succeeded (P3).
        if applied.failure.is_some() {
            break;
        }
    }
    Outcome::Done(applied)
}

/// One write. Returns name and new resourceVersion of a slice.
async fn carry_out(
    registration: &Registration,
    write: Write,
    context: &Context,
) -> Result<Option<(String, String)>, ApiError> {
    let namespace = &registration.key.namespace;
    let slices = Api::<EndpointSlice>::namespaced(context.client.clone(), namespace);
    let endpoints = Api::<Endpoints>::namespaced(context.client.clone(), namespace);
    let doing = || format!("{write} in namespace {namespace}");
    tracing::debug!(registration = %registration.key, %write, "writing");
    let params = PostParams::default();
    let result = match &write {
        Write::CreateSlice(slice) => call(doing, slices.create(&params, slice)).await.map(Some),
        Write::UpdateSlice(slice, _) => {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            call(doing, slices.replace(name, &params, slice)).await.map(Some)
        }
        Write::DeleteSlice { name, uid, resource_version } => {
            call(doing, slices.delete(name, &exactly(uid, resource_version))).await.map(|_| {
                let key = Key::new(namespace, name);
                let version = Version::of(Some(resource_version));
                context.world().remove_own::<EndpointSlice>(&key, version);
                None
            })
        }
        Write::CreateEndpoints(object) => {
            call(doing, endpoints.create(&params, object)).await.map(|written| {
                context.world().put(written);
                None
            })
        }
        Write::UpdateEndpoints(object, _) => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            call(doing, endpoints.replace(name, &params, object)).await.map(|written| {
                context.world().put(written);
                None
            })
        }
        Write::DeleteEndpoints { name, uid, resource_version } => {
            call(doing, endpoints.delete(name, &exactly(uid, resource_version))).await.map(|_| {
                let key = Key::new(namespace, name);
                let version = Version::of(Some(resource_version));
                context.world().remove_own::<Endpoints>(&key, version);
                None
            })
        }
    };
    match result {
        Ok(Some(slice)) => {
            let named = slice.metadata.name.clone().zip(slice.metadata.resource_version.clone());
            context.world().put(slice);
            Ok(named)
        }
        Ok(None) => Ok(None),
        Err(error) => {
            if error.is_conflict() {
                look_again(registration, &write, context).await;
            }
            Err(error)
        }
    }
}

fn exactly(uid: &str, resource_version: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: Some(resource_version.to_owned()),
    })
}

/// After a conflict: reads the object as it is, so that the next plan need not wait for the watch.
/// When that fails too, the watch will bring it.
async fn look_again(registration: &Registration, write: &Write, context: &Context) {
    let namespace = &registration.key.namespace;
    if let Some(name) = write.slice_name() {
        let api = Api::<EndpointSlice>::namespaced(context.client.clone(), namespace);
        match call(|| format!("read EndpointSlice {namespace}/{name}"), api.get(name)).await {
            Ok(slice) => drop(context.world().put(slice)),
            Err(error) if error.is_absent() => {
                let version = planned_from(write);
                context.world().remove_own::<EndpointSlice>(&Key::new(namespace, name), version);
            }
            Err(_) => {}
        }
    } else if !matches!(write, Write::CreateSlice(_)) {
        let name = &registration.service_name;
        let api = Api::<Endpoints>::namespaced(context.client.clone(), namespace);
        match call(|| format!("read Endpoints {namespace}/{name}"), api.get(name)).await {
            Ok(endpoints) => drop(context.world().put(endpoints)),
            Err(error) if error.is_absent() => {
                let version = planned_from(write);
                context.world().remove_own::<Endpoints>(&Key::new(namespace, name), version);
            }
            Err(_) => {}
        }
    }
}

fn planned_from(write: &Write) -> Version {
    let version = match write {
        Write::UpdateSlice(slice, _) => slice.metadata.resource_version.as_deref(),
        Write::UpdateEndpoints(endpoints, _) => endpoints.metadata.resource_version.as_deref(),
        Write::DeleteSlice { resource_version, .. }
        | Write::DeleteEndpoints { resource_version, .. } => Some(resource_version.as_str()),
        Write::CreateSlice(_) | Write::CreateEndpoints(_) => Some("0"),
    };
    Version::of(version)
}
