//! Writes the cordon of an instance to its Lease if the Lease was made anew, so that people see the cordon and
//! can lift it.

use std::time::Duration;

use beatkeeper_api::heartbeat::CORDONED_ANNOTATION;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::controller::context::{Context, call_write};
use beatkeeper_core::{
    decide::cordons::Cordons,
    liveness::index::cordon_notes::Unmarked,
    objects::{heartbeat::HeartbeatLease, registration::Registration},
    plan::change_limits::CORDONS,
    vocabulary::monotonic_time::MonotonicTime,
};

/// The pause after a failed write. The cordon holds in the meantime.
const PAUSE: Duration = Duration::from_secs(5);

/// Writes the missing annotations (client required). Returns when to retry if a write has failed or must wait.
pub(crate) async fn mark(registration: &Registration, context: &Context) -> Option<MonotonicTime> {
    if registration.dry_run {
        return None;
    }
    let Registration { key, uid, .. } = registration;
    let unmarked = Cordons::stand(registration, &mut context.index()).unmarked;
    if unmarked.is_empty() {
        return None;
    }
    let rest_until = context.remember(key, uid, |memory| memory.cordons_paused_until);
    if context.clock.now() < rest_until {
        return Some(rest_until);
    }
    let mut failed = None;
    for lease in &unmarked {
        if let Err(until) = context.may(key, CORDONS, |paces| &mut paces.cordons) {
            return Some(failed.map_or(until, |failed: MonotonicTime| failed.max(until)));
        }
        match write(registration, lease, context).await {
            Ok(()) => context.index().cordon_is_written(key, lease),
            // The Lease was made anew or deleted. The watch shows it.
            Err(error) if error.is_conflict() || error.is_absent() => {}
            Err(error) => {
                tracing::warn!(registration = %key, %error, "will try again");
                let later = context.clock.now() + PAUSE;
                failed = Some(later);
                context.remember(key, uid, |memory| memory.cordons_paused_until = later);
            }
        }
    }
    failed
}

/// Writes the cordon on the condition that the Lease has the same uid. A beat in between does not matter.
async fn write(
    registration: &Registration,
    Unmarked { lease, token, reason, .. }: &Unmarked,
    context: &Context,
) -> Result<(), crate::controller::error::ApiError> {
    let namespace = &registration.key.namespace;
    let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), namespace);
    let patch = json!({ "metadata": { "uid": &*token.uid, "annotations": { CORDONED_ANNOTATION: reason } } });
    let doing = || format!("cordon Lease {namespace}/{lease} again, which was made anew");
    let patch = Patch::Merge(patch);
    call_write(context, doing, api.patch(lease, &PatchParams::default(), &patch)).await?;
    tracing::info!(registration = %registration.key, %lease, "cordoned again");
    Ok(())
}
