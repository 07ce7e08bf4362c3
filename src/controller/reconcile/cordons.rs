//! Writes the cordon of an instance to its Lease if the Lease was created again, so that people see the cordon and
//! can lift it.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::heartbeat::CORDONED_ANNOTATION;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::controller::{
    api::ApiServer, clock::Clock, error::ApiError, liveness::Liveness, states::States,
};
use beatkeeper_core::{
    decide::cordons::Cordons,
    liveness::index::cordon_notes::Unmarked,
    objects::{heartbeat::HeartbeatLease, registration::Registration},
    plan::change_limits::CORDONS,
    vocabulary::monotonic_time::MonotonicTime,
};

/// The pause after a failed write. The cordon holds in the meantime.
const PAUSE: Duration = Duration::from_secs(5);

/// Restores the cordons of instances in Leases that were created again.
pub(crate) struct CordonWriter {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) states: Arc<States>,
}

impl CordonWriter {
    /// Writes the missing annotations (client required). Returns when to retry if a write has failed or must wait.
    pub(crate) async fn mark(&self, registration: &Registration) -> Option<MonotonicTime> {
        if registration.dry_run {
            return None;
        }
        let Registration { key, uid, .. } = registration;
        let unmarked = Cordons::stand(registration, &mut self.liveness.index()).unmarked;
        if unmarked.is_empty() {
            return None;
        }
        let rest_until = self.states.with(key, uid, |state| state.cordons_paused_until);
        if self.clock.now() < rest_until {
            return Some(rest_until);
        }
        let mut failed = None;
        for lease in &unmarked {
            if let Err(until) = self.states.may(key, CORDONS, |limits| &mut limits.cordons) {
                return Some(failed.map_or(until, |failed: MonotonicTime| failed.max(until)));
            }
            match self.write(registration, lease).await {
                Ok(()) => self.liveness.index().cordon_is_written(key, lease),
                // The Lease was created again or deleted. The watch shows it.
                Err(error) if error.is_conflict() || error.is_absent() => {}
                Err(error) => {
                    tracing::warn!(%error, "will try again");
                    let later = self.clock.now() + PAUSE;
                    failed = Some(later);
                    self.states.with(key, uid, |state| state.cordons_paused_until = later);
                }
            }
        }
        failed
    }

    /// Writes the cordon on the condition that the Lease has the same uid. A beat in between does not matter.
    async fn write(
        &self,
        registration: &Registration,
        Unmarked { lease, token, reason, .. }: &Unmarked,
    ) -> Result<(), ApiError> {
        let namespace = &registration.key.namespace;
        let api = Api::<HeartbeatLease>::namespaced(self.api.client.clone(), namespace);
        let patch = json!({ "metadata": { "uid": &*token.uid, "annotations": { CORDONED_ANNOTATION: reason } } });
        let doing = || format!("cordon Lease {namespace}/{lease} again, which was created again");
        let patch = Patch::Merge(patch);
        self.api.write(doing, api.patch(lease, &PatchParams::default(), &patch)).await?;
        tracing::info!(%lease, "cordoned again");
        Ok(())
    }
}
