//! Reports the kinds that the API server does not let the operator read: in the log, in the metrics, and in the
//! conditions of the registrations concerned.

use std::{collections::HashMap, sync::Arc, time::Duration};

use beatkeeper_api::{ServiceRegistration, ServiceRegistrationStatus, status::condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::reflector::Store,
};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pending::{PendingReports, WrittenStatus};
use crate::controller::{
    api::ApiServer,
    cluster::Cluster,
    error::ApiError,
    liveness::Liveness,
    queue::WorkQueue,
    telemetry::Telemetry,
    watch::{access::ReadAccess, health::cache_name},
};
use beatkeeper_core::{
    objects::decode::Lenient,
    replica::access::{Access, Refusal},
    vocabulary::{key::Key, reason::ConditionReason, version::Version},
};

/// A refusal that lasts this long is reported, and registrations that do not report it yet are looked for as often.
/// A shorter refusal is ignored: an API server that starts may refuse what it grants a moment later. After this time a
/// replica that may not read a scope takes part in the election: the other replicas may lack the right too, and one
/// must report it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Reports what the operator may not read in one scope.
pub(crate) struct AccessReporter {
    pub(crate) namespace: Option<String>,
    pub(crate) api: ApiServer,
    pub(crate) telemetry: Telemetry,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) reports: Arc<PendingReports>,
    pub(crate) read_access: Arc<ReadAccess>,
    pub(crate) registrations: Store<ServiceRegistration>,
    /// Cancelled once this replica may take part in the election.
    pub(crate) warm: CancellationToken,
}

impl AccessReporter {
    /// Runs for ever. Reports what is refused in a scope, and wakes its registrations when the refusal is over.
    pub(crate) async fn run(self: Arc<Self>) {
        let scope = self.namespace.as_deref().unwrap_or("all namespaces").to_owned();
        let mut read_access = self.read_access.subscribe();
        let mut logged: Option<Refusal> = None;
        let mut conditions = Conditions::because(ConditionReason::CannotRead.as_str());
        let mut woken_after = 0;
        let mut due: Option<Instant> = None;
        loop {
            let access = read_access.borrow_and_update().clone();
            self.note(&access);
            if !access.is_wanting() && access.times_wanting() != woken_after {
                woken_after = access.times_wanting();
                self.queue.wake(
                    self.registrations.state().iter().map(|object| Key::of(&object.metadata)),
                );
            }
            let refusal = access.told(self.namespace.as_deref());
            if refusal.is_none() && logged.take().is_some() {
                conditions.reported.clear();
                tracing::info!(scope, "the operator may read everything now");
            }
            due = refusal.as_ref().map(|_| due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN));
            tokio::select! {
                biased;
                Ok(()) = read_access.changed() => continue,
                () = reached(due) => due = None,
            }
            let Some(refusal) = refusal else { continue };
            if refusal.adds_to(logged.as_ref()) {
                tracing::warn!(scope, "{refusal}");
            }
            if refusal.is_wanting() {
                self.warm.cancel();
                let why = refusal.to_string();
                self.set_all(&mut conditions, &why, &why).await;
            }
            logged = Some(refusal);
        }
    }

    /// Notes the refused kinds in the health and in the metrics. A refusal does not make the process unready, since
    /// waiting would not fix it.
    fn note(&self, access: &Access) {
        let namespace = self.namespace.as_deref();
        let mut health = self.telemetry.health.lock();
        access
            .answered_kinds()
            .for_each(|kind| health.cache_answered(&cache_name(kind, namespace)));
        drop(health);
        let refused: Vec<&'static str> = access.refused_kinds().collect();
        self.telemetry.metrics.unreadable(namespace.unwrap_or_default(), &refused);
    }

    /// For as long as no proof has come, writes to the registrations that nothing is published before. A missing
    /// right may be the reason.
    pub(crate) async fn report_unproven(&self) {
        let reason = ConditionReason::PathUnproven.as_str();
        let mut conditions = Conditions::because(reason);
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let doubt = self.liveness.path().failure().cloned();
            if let Some(doubt) = doubt {
                let why = format!(
                    "nothing is published or pruned before the operator's probe is back: {doubt}"
                );
                self.set_all(&mut conditions, reason, &why).await;
            }
        }
    }

    /// Writes `why` to each registration that does not report `what` yet. A failed write is retried.
    async fn set_all(&self, conditions: &mut Conditions, what: &str, why: &str) {
        for object in self.registrations.state() {
            if !self.api.may_write() {
                // The next leader reports it again.
                conditions.reported.clear();
                return;
            }
            let key = Key::of(&object.metadata);
            let reported = (object.metadata.uid.clone().unwrap_or_default(), what.to_owned());
            if conditions.reported.get(&key) == Some(&reported) {
                continue;
            }
            if let Err(error) = self.set(&key, &object, conditions.reason, why).await {
                // The writes of the others would most likely fail as well.
                tracing::debug!(%error, "the registrations cannot say why nothing is decided");
                return;
            }
            conditions.reported.insert(key, reported);
        }
    }

    async fn set(
        &self,
        key: &Key,
        object: &ServiceRegistration,
        reason: &str,
        why: &str,
    ) -> Result<(), ApiError> {
        let nothing = ServiceRegistrationStatus::default();
        let prior = object.status.as_ref().unwrap_or(&nothing);
        let wall = self.telemetry.clock.clocks().wall;
        let next = conditions(prior, object.metadata.generation, reason, why, wall);
        if next == prior.conditions {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": { "conditions": next } }));
        let params = PatchParams::default();
        let Some(_turn) = self.api.background_permit().await else { return Ok(()) };
        let api = Api::<Lenient<ServiceRegistration>>::namespaced(
            self.api.client.clone(),
            &key.namespace,
        );
        let doing = || format!("write the conditions of ServiceRegistration {key}");
        let call = api.patch_status(&key.name, &params, &patch);
        match self.api.write(doing, call).await {
            Ok(Lenient(written)) => {
                // A report that follows at once is compared with this status, and not with the last one that the
                // watch has shown.
                let version = Version::of(written.metadata.resource_version.as_deref());
                let status = written.status.unwrap_or_default();
                let uid = written.metadata.uid.unwrap_or_default();
                if self.cluster.lock().has_registration(key) {
                    let written = WrittenStatus { version, status, at: self.telemetry.clock.now() };
                    self.reports.note_condition(key, &uid, written);
                }
                Ok(())
            }
            Err(error) if error.is_absent() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Waits for an instant. Never returns without one.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The registrations that report why nothing is decided about them, and what they report.
struct Conditions {
    reason: &'static str,
    /// The uid and the reported text, by registration.
    reported: HashMap<Key, (String, String)>,
}

impl Conditions {
    fn because(reason: &'static str) -> Self {
        Self { reason, reported: HashMap::new() }
    }
}

/// The conditions of a registration about which nothing is decided. The published endpoints stay, and so does
/// the condition about availability.
fn conditions(
    prior: &ServiceRegistrationStatus,
    generation: Option<i64>,
    reason: &str,
    why: &str,
    wall: Timestamp,
) -> Vec<Condition> {
    let mut conditions = prior.conditions.clone();
    conditions.retain(|it| it.type_ == condition::AVAILABLE);
    let wall = Timestamp::from_second(wall.as_second()).unwrap_or(wall);
    for (type_, status) in [
        (condition::READY, "False"),
        (condition::PRUNING_HELD, "True"),
        (condition::STALLED, "True"),
    ] {
        let before = prior.conditions.iter().find(|it| it.type_ == type_ && it.status == status);
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: why.to_owned(),
            observed_generation: generation,
            last_transition_time: before
                .map_or(Time(wall), |before| before.last_transition_time.clone()),
        });
    }
    conditions
}
