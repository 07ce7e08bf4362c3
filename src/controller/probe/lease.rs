//! The Lease of a probe: its contents, and the requests that write it.

use std::time::Duration;

use beatkeeper_api::{gateway::CARRIERS_ANNOTATION, heartbeat::REGISTRATION_LABEL};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::Value;

use crate::{
    controller::{
        call::call_within,
        error::{ApiError, Cause},
    },
    kube_client::throttle::RequestedPause,
};
use beatkeeper_core::{
    liveness::rollback::OurLease,
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::key::Key,
};

/// The label by which the heartbeat watch includes probes. No registration can have this name, since the name
/// of a registration contains no dots.
pub(crate) const PROBE_LABEL: &str = "probe.beatkeeper.dev";
/// Annotation of a probe: the silence log that outlives its process (L5).
pub(crate) const SILENCE_LOG_ANNOTATION: &str = "beatkeeper.dev/proven-time";
/// A renewal must be answered within this time. A lost answer must not delay decisions that wait for the next
/// renewal. If the renewal took effect, the watch shows it in any case.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A patch that the client does not retry when the API server asks it to wait. Instances get the same answer to
/// their beats, so the answer is information about the path.
pub(crate) fn patch_once(
    key: &Key,
    params: &PatchParams,
    patch: &Patch<Value>,
) -> Result<(http::Request<Vec<u8>>, RequestedPause), ApiError> {
    let leases = HeartbeatLease::url_path(&(), Some(&key.namespace));
    let request = kube::core::Request::new(leases).patch(&key.name, params, patch);
    let mut request = request.map_err(|error| ApiError {
        doing: format!("renew the probe Lease {key}"),
        cause: Cause::Kube(Box::new(kube::Error::BuildRequest(error))),
    })?;
    let requested = RequestedPause::default();
    request.extensions_mut().insert(requested.clone());
    Ok((request, requested))
}

/// The probe Lease as it was read; None if it shows no renewal.
pub(crate) fn our_lease(beat: &Heartbeat) -> Option<OurLease> {
    let Heartbeat { token, version, .. } = beat;
    Some(OurLease { uid: token.uid.clone(), version: *version, token: token.renewed? })
}

/// Creates the Lease of a probe. `knows_carriers` says whether its replica hears gateways (G12).
pub(crate) async fn create(
    key: &Key,
    renewed: Timestamp,
    knows_carriers: bool,
    client: &Client,
) -> Result<HeartbeatLease, ApiError> {
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            annotations: knows_carriers
                .then(|| [(CARRIERS_ANNOTATION.to_owned(), "1".to_owned())].into()),
            labels: Some([(REGISTRATION_LABEL.to_owned(), PROBE_LABEL.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(key.name.clone()),
            renew_time: Some(MicroTime(renewed)),
            lease_duration_seconds: Some(60),
            ..LeaseSpec::default()
        }),
    };
    let doing = || format!("create the probe Lease {key}");
    let lease = serde_json::to_vec(&lease).map_err(kube::Error::SerdeError);
    let leases = HeartbeatLease::url_path(&(), Some(&key.namespace));
    let request = lease.and_then(|lease| {
        let request = kube::core::Request::new(leases).create(&PostParams::default(), lease);
        request.map_err(kube::Error::BuildRequest)
    });
    // With this type, fields that a webhook has added cannot make the answer unreadable.
    let creation = async { client.request::<HeartbeatLease>(request?).await };
    call_within(ANSWER_WITHIN, doing, creation).await
}
