//! One renewal of the probe. It is conditional: the Lease must be as the last renewal left it. After a rollback
//! of the store the condition fails ([`beatkeeper_core::liveness::rollback`]).

use std::time::Duration;

use beatkeeper_api::heartbeat::{self, REGISTRATION_LABEL};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    controller::{
        context::{Context, call_within},
        error::{ApiError, Cause},
        rollback,
    },
    kube_client::throttle::Told,
};
use beatkeeper_core::{
    liveness::rollback::OurLease,
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// The label by which the heartbeat watch includes probes. No registration can have this name, since the name
/// of a registration contains no dots.
pub(crate) const PROBE_LABEL: &str = "probe.beatkeeper.dev";
/// Annotation of a probe: the memory that outlives its process (L5).
pub(crate) const MEMORY_ANNOTATION: &str = "beatkeeper.dev/proven-time";
/// A renewal must be answered within this time. A lost answer must not delay decisions that wait for the next
/// renewal. If the renewal took effect, the watch shows it in any case.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A renewal of the probe.
pub(crate) struct Renewal {
    token: i64,
    /// The state of the probe Lease that the renewal requires; None if that state is not known.
    left: Option<OurLease>,
    pub(crate) memory: Option<String>,
    /// The newest version of any Lease that was seen before the renewal.
    seen: Version,
}

impl Renewal {
    /// Prepares a renewal. It carries the memory only if the Lease must be as this process left it: marks must
    /// not get into another history of the store.
    pub(crate) fn send(memory_is_due: bool, now: MonotonicTime, context: &Context) -> Self {
        let newest = context.index().newest();
        let mut path = context.path();
        let left = path.rollback_detector().left().cloned();
        let seen = left.as_ref().map_or(newest, |left| newest.max(left.version));
        let memory = left.as_ref().filter(|_| memory_is_due);
        let memory = memory.map(|left| path.silence_log().written_into(&left.uid));
        let token = path.send(now, context.clock.wall().as_microsecond());
        Self { token, left, memory, seen }
    }

    pub(crate) async fn carry_out(self, key: &Key, context: &Context) -> Result<(), ApiError> {
        let api = Api::<HeartbeatLease>::namespaced(context.client.clone(), &key.namespace);
        let renewed = Timestamp::from_microsecond(self.token).unwrap_or_default();
        let mut patch = heartbeat::beat_patch(renewed);
        if let Some(OurLease { uid, version, .. }) = &self.left {
            patch["metadata"] = json!({ "uid": **uid, "resourceVersion": version.0.to_string() });
        }
        if let Some(memory) = &self.memory {
            patch["metadata"]["annotations"] = json!({ MEMORY_ANNOTATION: memory });
        }
        let params = PatchParams::default();
        let doing = || format!("renew the probe Lease {key}");
        let (request, told) = patch_once(key, &params, &Patch::Merge(patch))?;
        let renewal = context.client.request::<HeartbeatLease>(request);
        let result = call_within(ANSWER_WITHIN, doing, renewal).await;
        if let Some(pause) = told.to_wait() {
            context.path().pause_for(pause, context.clock.now());
        }
        match result {
            Ok(lease) => self.answered(&lease, context),
            Err(error) if error.is_absent() && self.left.is_some() => refused(None, context),
            Err(error) if error.is_absent() => {
                let lease = create(key, renewed, context).await?;
                self.answered(&lease, context);
            }
            Err(error) if error.is_conflict() && self.left.is_some() => {
                let doing = || format!("read the probe Lease {key}");
                match call_within(ANSWER_WITHIN, doing, api.get(&key.name)).await {
                    Ok(found) => refused(our_lease(&Heartbeat::read(&found)), context),
                    Err(error) if error.is_absent() => refused(None, context),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn answered(&self, lease: &HeartbeatLease, context: &Context) {
        let Heartbeat { token, version, .. } = Heartbeat::read(lease);
        let stored = token.renewed.unwrap_or(self.token);
        let lease = OurLease { uid: token.uid, version, token: stored };
        let mut path = context.path();
        path.stored(self.token, stored);
        let answered = path.rollback_detector().answered(lease, self.seen);
        drop(path);
        if let Err(why) = answered {
            rollback::begin(context, &why);
        }
    }
}

/// A patch that the client does not retry when the API server asks it to wait. Instances get the same answer to
/// their beats, so the answer is information about the path.
fn patch_once(
    key: &Key,
    params: &PatchParams,
    patch: &Patch<Value>,
) -> Result<(http::Request<Vec<u8>>, Told), ApiError> {
    let leases = HeartbeatLease::url_path(&(), Some(&key.namespace));
    let request = kube::core::Request::new(leases).patch(&key.name, params, patch);
    let mut request = request.map_err(|error| ApiError {
        doing: format!("renew the probe Lease {key}"),
        cause: Cause::Kube(Box::new(kube::Error::BuildRequest(error))),
    })?;
    let told = Told::default();
    request.extensions_mut().insert(told.clone());
    Ok((request, told))
}

/// Handles a refused renewal: the Lease is not as the last renewal left it. The next renewal is sent at once, unless
/// the found Lease shows a rollback of the store.
fn refused(found: Option<OurLease>, context: &Context) {
    let refused = context.path().rollback_detector().refused(found);
    match refused {
        Ok(()) => context.probe.hurry(),
        Err(why) => rollback::begin(context, &why),
    }
}

/// The probe Lease as it was read; None if it shows no renewal.
pub(crate) fn our_lease(beat: &Heartbeat) -> Option<OurLease> {
    let Heartbeat { token, version, .. } = beat;
    Some(OurLease { uid: token.uid.clone(), version: *version, token: token.renewed? })
}

async fn create(
    key: &Key,
    renewed: Timestamp,
    context: &Context,
) -> Result<HeartbeatLease, ApiError> {
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
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
    let creation = async { context.client.request::<HeartbeatLease>(request?).await };
    call_within(ANSWER_WITHIN, doing, creation).await
}
