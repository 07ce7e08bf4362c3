//! Finds the addresses because of which an admission plugin refuses a write, so that the other addresses of the
//! same object can be published. It sends variants of the write with `dryRun`, which the API server does not
//! carry out.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{Api, api::PostParams};

use crate::controller::{
    context::{Context, call_write},
    error::ApiError,
};
use beatkeeper_core::{
    decide::verdict::Verdict,
    inputs::{Inputs, held_back::HeldBack},
    objects::{decode::Lenient, registration::Registration},
    plan::{refusals::RefusedNow, trial::Trial, write::Write},
};

/// The addresses and objects that must not be tried now.
pub(crate) fn held_back(registration: &Registration, context: &Context) -> HeldBack {
    let now = context.clock.now();
    let Registration { key, uid, .. } = registration;
    context.remember(key, uid, |memory| memory.refusals.held_back(now))
}

/// What is still refused after a plan was carried out. Sets when to try it again.
pub(crate) fn settle(
    registration: &Registration,
    stage: &mut Inputs,
    verdicts: &[Verdict],
    context: &Context,
) -> RefusedNow {
    let now = context.clock.now();
    let Registration { key, uid, .. } = registration;
    let (refused, next) = context.remember(key, uid, |memory| {
        let refused = memory.refusals.update(verdicts, stage, now);
        (refused, memory.refusals.next())
    });
    stage.requeue_at = stage.requeue_at.into_iter().chain(next).min();
    refused
}

/// Finds out which addresses cause the refusal of a write with this message, and remembers them. Returns
/// whether a new plan can publish the rest. Client required.
pub(crate) async fn isolate(
    registration: &Registration,
    stage: &Inputs,
    write: &Write,
    words: &str,
    context: &Context,
) -> bool {
    let Some(trial) = Trial::of(write, stage) else { return false };
    let (place, words) = (trial.place(), Arc::from(words));
    let Registration { key, uid, .. } = registration;
    if let Some(name) = trial.existing() {
        match is_accepted(registration, &trial.with(&[]), context).await {
            Some(true) => {}
            Some(false) => {
                // Even the current content of the object is refused now.
                let now = context.clock.now();
                context.remember(key, uid, |it| it.refusals.close(place, name, &words, now));
                return true;
            }
            None => return false,
        }
    }
    let mut search = trial.search();
    while let Some(some) = search.next_trial() {
        match is_accepted(registration, &trial.with(&some), context).await {
            Some(accepted) => search.answer(some, accepted),
            None => return false,
        }
    }
    let refused = search.refused();
    let now = context.clock.now();
    tracing::warn!(registration = %key, ?refused, %words, "refused; the others are published");
    context.remember(key, uid, |memory| {
        refused.iter().for_each(|it| memory.refusals.refuse(place, *it, &words, now));
    });
    !refused.is_empty()
}

/// Whether the API server would accept a write; None if it does not say.
async fn is_accepted(
    registration: &Registration,
    write: &Write,
    context: &Context,
) -> Option<bool> {
    let namespace = &registration.key.namespace;
    let slices = Api::<Lenient<EndpointSlice>>::namespaced(context.client.clone(), namespace);
    let endpoints = Api::<Lenient<Endpoints>>::namespaced(context.client.clone(), namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let doing = || format!("try to {write} in namespace {namespace}");
    let name = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        metadata.name.clone().unwrap_or_default()
    };
    let result: Result<(), ApiError> = match write {
        Write::CreateSlice(slice) => {
            call_write(context, doing, slices.create(&params, &Lenient(slice.clone())))
                .await
                .map(drop)
        }
        Write::UpdateSlice(slice, _) => {
            let name = name(&slice.metadata);
            call_write(context, doing, slices.replace(&name, &params, &Lenient(slice.clone())))
                .await
                .map(drop)
        }
        Write::CreateEndpoints(object) => {
            call_write(context, doing, endpoints.create(&params, &Lenient(object.clone())))
                .await
                .map(drop)
        }
        Write::UpdateEndpoints(object, _) => {
            let name = name(&object.metadata);
            call_write(context, doing, endpoints.replace(&name, &params, &Lenient(object.clone())))
                .await
                .map(drop)
        }
        Write::DeleteSlice { .. } | Write::DeleteEndpoints { .. } => return None,
    };
    match result {
        Ok(()) => Some(true),
        Err(error) if error.is_refusal() => Some(false),
        Err(_) => None,
    }
}
