//! The renewal of the probe: a Lease of this replica, which it renews in the same way as workloads renew theirs. A
//! renewal counts when the heartbeat watch shows it.
//!
//! The registration with the least slack determines the pace of the renewals. In addition, the probe is renewed
//! shortly before each deadline, so that no decision has to wait for the proof: no instance is pruned before
//! the watch shows a renewal that proves the time up to the instance's deadline.
//!
//! A renewal is conditional: the Lease must be as the last renewal left it. After a rollback of the store the
//! condition fails ([`beatkeeper_core::liveness::rollback`]).

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{gateway::CARRIERS_ANNOTATION, heartbeat};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    lease::{ANSWER_WITHIN, SILENCE_LOG_ANNOTATION, create, our_lease, patch_once},
    proofs::{PAUSE_AFTER_FAILURE, Proofs, Wake},
};
use crate::controller::{
    call::call_within, clock::Clock, error::ApiError, liveness::Liveness, rollback::Rollback,
};
use beatkeeper_core::{
    liveness::rollback::OurLease,
    objects::heartbeat::{Heartbeat, HeartbeatLease},
    vocabulary::{failure::Failure, monotonic_time::MonotonicTime, version::Version},
};

/// The silence log is written at most this often, together with a renewal.
const SILENCE_LOG_PERIOD: Duration = Duration::from_secs(1);

/// Renews the probe of this replica in one scope.
pub(crate) struct Renewer {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) rollback: Arc<Rollback>,
}

impl Renewer {
    /// Renews the probe for ever. Must be started after the first list of the Leases is complete.
    pub(crate) async fn run(self) {
        let mut log_written: Option<MonotonicTime> = None;
        loop {
            if let Wake::Reschedule = self.proofs.due().await {
                continue;
            }
            let now = self.clock.now();
            if self.liveness.path().is_paused(now) {
                continue;
            }
            let due = log_written.is_none_or(|written| now.since(written) >= SILENCE_LOG_PERIOD);
            let renewal = self.prepare(due, now);
            let with_log = renewal.log.is_some();
            match self.renew(renewal).await {
                Ok(()) if with_log => log_written = Some(now),
                Ok(()) => {}
                Err(error) => {
                    self.log_failure(&error);
                    self.liveness.path().failed(Failure::of(error).into());
                    self.proofs.failed();
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Logs the first failure in a row as a warning, and the next ones for debugging.
    fn log_failure(&self, error: &ApiError) {
        if self.liveness.path().failure().is_none() {
            tracing::warn!(%error, "the probe cannot be renewed: no instance is pruned until it can");
        } else {
            tracing::debug!(%error, "the probe still cannot be renewed");
        }
    }

    /// Prepares a renewal. It carries the silence log only if the Lease must be as this process left it: marks must
    /// not get into another history of the store.
    fn prepare(&self, log_is_due: bool, now: MonotonicTime) -> Renewal {
        let newest = self.liveness.index().newest();
        let mut path = self.liveness.path();
        let left = path.rollback_detector().left().cloned();
        let seen = left.as_ref().map_or(newest, |left| newest.max(left.version));
        let log = left.as_ref().filter(|_| log_is_due);
        let log = log.map(|left| path.silence_log().written_into(&left.uid));
        let token = path.send(now, self.clock.wall().as_microsecond());
        let knows_carriers = self.liveness.has_gateways();
        Renewal { token, left, log, knows_carriers, seen }
    }

    async fn renew(&self, renewal: Renewal) -> Result<(), ApiError> {
        let key = &self.proofs.key;
        let renewed = Timestamp::from_microsecond(renewal.token).unwrap_or_default();
        let params = PatchParams::default();
        let doing = || format!("renew the probe Lease {key}");
        let (request, requested) = patch_once(key, &params, &Patch::Merge(renewal.patch(renewed)))?;
        let sent = self.client.request::<HeartbeatLease>(request);
        let result = call_within(ANSWER_WITHIN, doing, sent).await;
        if let Some(pause) = requested.to_wait() {
            self.liveness.path().pause_for(pause, self.clock.now());
        }
        match result {
            Ok(lease) => self.answered(&renewal, &lease),
            Err(error) if error.is_absent() && renewal.left.is_some() => self.refused(None),
            Err(error) if error.is_absent() => {
                let lease = create(key, renewed, renewal.knows_carriers, &self.client).await?;
                self.answered(&renewal, &lease);
            }
            Err(error) if error.is_conflict() && renewal.left.is_some() => {
                let api = Api::<HeartbeatLease>::namespaced(self.client.clone(), &key.namespace);
                let doing = || format!("read the probe Lease {key}");
                match call_within(ANSWER_WITHIN, doing, api.get(&key.name)).await {
                    Ok(found) => self.refused(our_lease(&Heartbeat::read(&found))),
                    Err(error) if error.is_absent() => self.refused(None),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn answered(&self, renewal: &Renewal, lease: &HeartbeatLease) {
        let Heartbeat { token, version, .. } = Heartbeat::read(lease);
        let stored = token.renewed.unwrap_or(renewal.token);
        let lease = OurLease { uid: token.uid, version, token: stored };
        let mut path = self.liveness.path();
        path.stored(renewal.token, stored);
        let answered = path.rollback_detector().answered(lease, renewal.seen);
        drop(path);
        if let Err(why) = answered {
            self.rollback.begin(why);
        }
    }

    /// Handles a refused renewal: the Lease is not as the last renewal left it. The next renewal is sent at once,
    /// unless the found Lease shows a rollback of the store.
    fn refused(&self, found: Option<OurLease>) {
        let refused = self.liveness.path().rollback_detector().refused(found);
        match refused {
            Ok(()) => self.proofs.hurry(),
            Err(why) => self.rollback.begin(why),
        }
    }
}

/// A renewal of the probe.
struct Renewal {
    token: i64,
    /// The state of the probe Lease that the renewal requires; None if that state is not known.
    left: Option<OurLease>,
    log: Option<String>,
    /// Whether this replica hears gateways (G12). A binary that could, and is not told to, must not say so.
    knows_carriers: bool,
    /// The newest version of any Lease that was seen before the renewal.
    seen: Version,
}

impl Renewal {
    fn patch(&self, renewed: Timestamp) -> Value {
        let mut patch = heartbeat::beat_patch(renewed);
        if let Some(OurLease { uid, version, .. }) = &self.left {
            patch["metadata"] = json!({ "uid": **uid, "resourceVersion": version.0.to_string() });
        }
        if let Some(log) = &self.log {
            patch["metadata"]["annotations"] = json!({ SILENCE_LOG_ANNOTATION: log });
        }
        if self.knows_carriers {
            patch["metadata"]["annotations"][CARRIERS_ANNOTATION] = json!("1");
        }
        patch
    }
}
