//! The last step: writes the status and sends the events of what was decided and applied.

use std::sync::Arc;

use beatkeeper_api::{
    ServiceRegistration, ServiceRegistrationStatus, heartbeat, status::LISTED_INSTANCES_MAX,
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;

use crate::controller::{
    api::ApiServer,
    clock::Clock,
    error::ApiError,
    report::{
        event_recorder::EventRecorder,
        pending::{PendingReports, Report, WrittenStatus},
    },
    states::States,
};
use beatkeeper_core::objects::decode::Lenient;
use beatkeeper_core::report::{events, reported_states::ReportedStates};
use beatkeeper_core::{
    objects::registration::Registration,
    plan::change_limits::{EVENTS, STATUSES},
    report::{status, summary::SummaryLine},
    vocabulary::{monotonic_time::MonotonicTime, version::Version},
};

/// The result of reporting a status.
pub(crate) enum Written {
    /// The status is up to date for readers.
    All,
    /// The rest of the report may wait until this moment.
    NotBefore(MonotonicTime),
}

/// Writes statuses and sends events.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) states: Arc<States>,
    pub(crate) reports: Arc<PendingReports>,
    pub(crate) events: Arc<EventRecorder>,
}

impl Reporter {
    /// Writes the status if readers would see a difference. Client required.
    pub(crate) async fn status(&self, report: &Report) -> Result<Written, ApiError> {
        let Report { object, registration, .. } = report;
        let key = &registration.key;
        let seen =
            (Version::of(object.metadata.resource_version.as_deref()), object.status.clone());
        let written = self.reports.written(key, &registration.uid);
        let written_at = written.as_ref().map(|written| written.at);
        // The watch may not have shown the last status that this process wrote.
        let (mut version, mut prior) = match written {
            Some(written) if written.version > seen.0 => (written.version, Some(written.status)),
            _ => seen,
        };
        let api = Api::<Lenient<ServiceRegistration>>::namespaced(
            self.api.client.clone(),
            &key.namespace,
        );
        for attempt in 0.. {
            let next = self.render(prior.as_ref(), report);
            if prior.as_ref().is_some_and(|prior| !status::differs(prior, &next)) {
                return Ok(Written::All);
            }
            let now = self.clock.now();
            let due = status::due(prior.as_ref(), &next, written_at, now);
            if due > now {
                return Ok(Written::NotBefore(due));
            }
            if let Err(due) = self.states.may(key, STATUSES, |paces| &mut paces.statuses) {
                return Ok(Written::NotBefore(due));
            }
            let patch = json!({
                "metadata": { "resourceVersion": version.0.to_string() },
                "status": with_nulls(prior.as_ref(), &next),
            });
            // If the controller stops now, the next process reports what is left.
            let Some(_turn) = self.api.background_permit().await else { return Ok(Written::All) };
            tracing::debug!(registration = %key, "writing the status");
            let doing = || format!("write the status of ServiceRegistration {key}");
            let params = PatchParams::default();
            match self
                .api
                .write(doing, api.patch_status(&key.name, &params, &Patch::Merge(patch)))
                .await
            {
                Ok(Lenient(written)) => {
                    let version = Version::of(written.metadata.resource_version.as_deref());
                    let written = WrittenStatus { version, status: next, at: self.clock.now() };
                    self.reports.note_written(key, &registration.uid, written);
                    return Ok(Written::All);
                }
                Err(error) if error.is_absent() => return Ok(Written::All),
                // Another client has changed the object since. Read it, and compare again what readers would see.
                Err(error) if error.is_conflict() && attempt < 2 => {
                    let doing = || format!("read ServiceRegistration {key}");
                    let Lenient(current) = self.api.read(doing, api.get_status(&key.name)).await?;
                    version = Version::of(current.metadata.resource_version.as_deref());
                    prior = current.status;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    fn render(
        &self,
        prior: Option<&ServiceRegistrationStatus>,
        report: &Report,
    ) -> ServiceRegistrationStatus {
        let Report { object: _, registration, account, stall, applied, at: _ } = report;
        let nothing = ServiceRegistrationStatus::default();
        status::report(
            prior.unwrap_or(&nothing),
            registration.generation,
            account,
            stall.as_ref(),
            applied,
            self.clock.clocks(),
        )
    }

    /// Sends events for the transitions since the last events. A lost event is not sent again, since the status has
    /// all the information. Returns when to send the events that have to wait.
    pub(crate) async fn events(&self, report: &Report) -> Option<MonotonicTime> {
        let Report { object, registration, account, stall: _, applied, at: _ } = report;
        if applied.failure.is_some() {
            return None;
        }
        let now = self.clock.now();
        let Registration { key, uid, .. } = registration;
        let (mut notices, later) = self.states.with(key, uid, |state| {
            let before =
                state.reported.take().unwrap_or_else(|| known_from(object, &account.lines));
            if events::is_news(&before, &account.lines)
                && let Err(due) = self.states.may(key, EVENTS, |paces| &mut paces.events)
            {
                state.reported = Some(before);
                return (Vec::new(), Some(due));
            }
            let withheld = state.flaps.withhold(&before, &account.lines, now);
            let notices = events::of(&before, &account.lines, &withheld);
            state.reported = Some(events::remember(&before, &account.lines, &withheld));
            (notices, withheld.until())
        });
        if registration.dry_run {
            notices.iter_mut().for_each(|notice| notice.note.insert_str(0, "dry run: "));
        }
        let regarding = object.object_ref(&());
        for notice in notices {
            let _turn = self.api.background_permit().await?;
            let level = if notice.warning { EventType::Warning } else { EventType::Normal };
            tracing::info!(registration = %key, reason = notice.reason, "{}", notice.note);
            let event = Event {
                type_: level,
                reason: notice.reason.to_owned(),
                note: Some(notice.note),
                action: "Publish".to_owned(),
                secondary: notice.instance.map(|instance| lease_of(&regarding, &instance)),
            };
            let recorder = self.events.recorder();
            let doing = || format!("send an event about {key}");
            match self.api.write(doing, recorder.publish(&event, &regarding)).await {
                Ok(_) => {}
                // The process that leads now reports what it finds.
                Err(_) if !self.api.may_write() => return None,
                Err(error) => tracing::warn!(%error, "an event is lost"),
            }
        }
        later
    }
}

/// A merge patch does not change fields that it does not contain. So lists that became empty are set to null.
fn with_nulls(
    prior: Option<&ServiceRegistrationStatus>,
    next: &ServiceRegistrationStatus,
) -> serde_json::Value {
    let value = |status| serde_json::to_value(status).unwrap_or_default();
    let mut patch = value(next);
    let before = prior.map(value);
    if let (Some(patch), Some(before)) =
        (patch.as_object_mut(), before.as_ref().and_then(|before| before.as_object()))
    {
        for field in before.keys() {
            patch.entry(field.clone()).or_insert(serde_json::Value::Null);
        }
    }
    patch
}

/// The states that count as reported after a start. Those in the status are not reported again. If the status
/// is full, instances that it does not list count as reported, too.
fn known_from(object: &ServiceRegistration, lines: &[SummaryLine]) -> ReportedStates {
    let Some(status) = &object.status else { return ReportedStates::default() };
    let known = events::from_status(status);
    match status.instances.len() >= LISTED_INSTANCES_MAX {
        true => known.or(ReportedStates::of(lines)),
        false => known,
    }
}

fn lease_of(registration: &ObjectReference, instance: &str) -> ObjectReference {
    let name = registration.name.clone().unwrap_or_default();
    ObjectReference {
        api_version: Some("coordination.k8s.io/v1".to_owned()),
        kind: Some("Lease".to_owned()),
        namespace: registration.namespace.clone(),
        name: Some(heartbeat::lease_name(&name, instance)),
        ..ObjectReference::default()
    }
}
