//! Finds the addresses because of which an admission plugin refuses a write, so that the other addresses of the
//! same object can be published. It sends variants of the write with `dryRun`, which the API server does not
//! carry out.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{Api, api::PostParams};

use crate::controller::{api::ApiServer, clock::Clock, error::ApiError, states::States};
use beatkeeper_core::plan::write::Write;
use beatkeeper_core::{
    decide::verdict::Verdict,
    inputs::Inputs,
    objects::{decode::Lenient, registration::Registration},
    plan::{refusals::RefusedNow, trial::Trial},
    vocabulary::monotonic_time::MonotonicTime,
};

/// Finds the addresses that the API server refuses.
#[derive(Clone)]
pub(crate) struct RefusedAddresses {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) states: Arc<States>,
}

impl RefusedAddresses {
    /// What is still refused after a plan was carried out, and when to try it again.
    pub(crate) fn settle(
        &self,
        registration: &Registration,
        inputs: &Inputs,
        verdicts: &[Verdict],
    ) -> (RefusedNow, Option<MonotonicTime>) {
        let now = self.clock.now();
        self.states.with(&registration.key, &registration.uid, |state| {
            let refused = state.refusals.update(verdicts, inputs, now);
            (refused, state.refusals.next())
        })
    }

    /// Finds out which addresses cause the refusal of a write with this message, and remembers them. Returns
    /// whether a new plan can publish the rest. Client required.
    pub(crate) async fn isolate(
        &self,
        registration: &Registration,
        inputs: &Inputs,
        write: &Write,
        words: &str,
    ) -> bool {
        let Some(trial) = Trial::of(write, inputs) else { return false };
        let (place, words) = (trial.place(), Arc::from(words));
        let Registration { key, uid, .. } = registration;
        if let Some(name) = trial.existing() {
            match self.is_accepted(registration, &trial.with(&[])).await {
                Some(true) => {}
                Some(false) => {
                    // Even the current content of the object is refused now.
                    let now = self.clock.now();
                    self.states.with(key, uid, |it| it.refusals.close(place, name, &words, now));
                    return true;
                }
                None => return false,
            }
        }
        let mut search = trial.search();
        while let Some(some) = search.next_trial() {
            match self.is_accepted(registration, &trial.with(&some)).await {
                Some(accepted) => search.answer(some, accepted),
                None => return false,
            }
        }
        let refused = search.refused();
        let now = self.clock.now();
        tracing::warn!(registration = %key, ?refused, %words, "refused; the others are published");
        self.states.with(key, uid, |state| {
            refused.iter().for_each(|it| state.refusals.refuse(place, *it, &words, now));
        });
        !refused.is_empty()
    }

    /// Whether the API server would accept a write; None if it does not say.
    async fn is_accepted(&self, registration: &Registration, write: &Write) -> Option<bool> {
        let namespace = &registration.key.namespace;
        let slices = Api::<Lenient<EndpointSlice>>::namespaced(self.api.client.clone(), namespace);
        let endpoints = Api::<Lenient<Endpoints>>::namespaced(self.api.client.clone(), namespace);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let doing = || format!("try to {write} in namespace {namespace}");
        let name = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            metadata.name.clone().unwrap_or_default()
        };
        let result: Result<(), ApiError> = match write {
            Write::CreateSlice(slice) => self
                .api
                .write(doing, slices.create(&params, &Lenient(slice.clone())))
                .await
                .map(drop),
            Write::UpdateSlice(slice, _) => {
                let name = name(&slice.metadata);
                self.api
                    .write(doing, slices.replace(&name, &params, &Lenient(slice.clone())))
                    .await
                    .map(drop)
            }
            Write::CreateEndpoints(object) => self
                .api
                .write(doing, endpoints.create(&params, &Lenient(object.clone())))
                .await
                .map(drop),
            Write::UpdateEndpoints(object, _) => {
                let name = name(&object.metadata);
                self.api
                    .write(doing, endpoints.replace(&name, &params, &Lenient(object.clone())))
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
}
