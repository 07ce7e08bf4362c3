//! The conditions in the status of a registration.

use beatkeeper_api::{InstanceState, ServiceRegistrationStatus, status::condition, text::plain};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    inputs::stall::Stall,
    report::{
        applied::Applied,
        dry_run::LEAD,
        lasting::{steady, whole_seconds},
        summary::DecisionSummary,
    },
    vocabulary::reason::{ConditionReason, Reason},
};

/// A condition without what depends on the one before it.
struct Claim {
    type_: &'static str,
    /// True, False or Unknown.
    value: &'static str,
    reason: &'static str,
    message: String,
}

/// The conditions of a registration with these counts in its status. What has not changed since `prior` keeps its time.
pub(super) fn conditions(
    prior: &ServiceRegistrationStatus,
    status: &ServiceRegistrationStatus,
    account: &DecisionSummary,
    stall: Option<&Stall>,
    applied: &Applied,
    wall: Timestamp,
) -> Vec<Condition> {
    let claims = [
        Some(ready(status, stall, applied)),
        Some(available(status, applied.dry_run.is_some())),
        name_conflict(account),
        pruning_held(status, account),
        reconciling(applied),
        stall.map(stalled),
    ];
    let generation = status.observed_generation;
    claims.into_iter().flatten().map(|claim| claim.after(prior, generation, wall)).collect()
}

/// The reason of the condition Ready.
pub fn ready_reason(stall: Option<&Stall>, applied: &Applied) -> &'static str {
    match (stall, &applied.failure, &applied.dry_run) {
        (Some(stall), _, _) => stall.reason.as_str(),
        (None, Some(_), _) => ConditionReason::WriteFailed.as_str(),
        (None, None, Some(_)) => ConditionReason::DryRun.as_str(),
        (None, None, None) if !applied.refused.is_empty() => {
            ConditionReason::PublishFailed.as_str()
        }
        (None, None, None) => ConditionReason::Published.as_str(),
    }
}

impl Claim {
    fn new(type_: &'static str, holds: bool, reason: &'static str, message: String) -> Self {
        let value = if holds { "True" } else { "False" };
        Self { type_, value, reason, message }
    }

    fn after(
        self,
        prior: &ServiceRegistrationStatus,
        generation: Option<i64>,
        wall: Timestamp,
    ) -> Condition {
        let Self { type_, value, reason, message } = self;
        let before = prior.conditions.iter().find(|it| it.type_ == type_ && it.status == value);
        let since = before.map(|before| before.last_transition_time.clone());
        let message = match before.filter(|before| before.reason == reason) {
            Some(before) => steady(reason, &before.message, &message),
            None => message,
        };
        Condition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message: plain(&message).into_owned(),
            observed_generation: generation,
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(wall))),
        }
    }
}

fn ready(status: &ServiceRegistrationStatus, stall: Option<&Stall>, applied: &Applied) -> Claim {
    let (ready, total) = (status.ready, status.total);
    let (is_ready, message) = match (stall, &applied.failure, &applied.dry_run) {
        // A dry run also has to report what would prevent publishing.
        (Some(stall), _, Some(dry_run)) => (false, format!("{}; {LEAD}{dry_run}", stall.message)),
        (Some(stall), _, None) => (false, stall.message.clone()),
        (None, Some(failure), _) => (false, failure.to_string()),
        // True, or tools that wait for Ready would wait until the dry run ends.
        (None, None, Some(dry_run)) => {
            (true, format!("{LEAD}{ready} of {total} instances would be ready; {dry_run}"))
        }
        (None, None, None) if !applied.refused.is_empty() => (false, applied.refused.tell()),
        (None, None, None) => (true, published(status)),
    };
    Claim::new(condition::READY, is_ready, ready_reason(stall, applied), message)
}

fn published(status: &ServiceRegistrationStatus) -> String {
    let (ready, total) = (status.ready, status.total);
    let former = status.former_ttl.as_ref().map(|former| {
        format!(
            "; some instance still beats at a former pace, and is pruned after its ttl of {former}, \
             until its beats follow or it is started anew"
        )
    });
    format!(
        "published as decided: {ready} of {total} instances ready{}",
        former.unwrap_or_default()
    )
}

fn available(status: &ServiceRegistrationStatus, dry_run: bool) -> Claim {
    let ready = status.ready + status.held;
    if dry_run {
        // What the Service answers does not follow from these decisions.
        let message = format!("{LEAD}{ready} instances would be ready; nothing is published");
        let reason = ConditionReason::DryRun.as_str();
        return Claim { type_: condition::AVAILABLE, value: "Unknown", reason, message };
    }
    let (reason, message) = match ready {
        0 => {
            let message = "no instance is ready, so the Service has no endpoint that can answer";
            (ConditionReason::NoInstanceReady, message.to_owned())
        }
        ready => (ConditionReason::InstancesReady, format!("{ready} instances ready")),
    };
    Claim::new(condition::AVAILABLE, ready > 0, reason.as_str(), message)
}

fn name_conflict(account: &DecisionSummary) -> Option<Claim> {
    let (line, rival) = account.contested().next()?;
    let count = account.contested().count();
    let message = format!(
        "{count} instance names are claimed by several processes; {}: {rival}; give each process an \
         instance name of its own",
        line.instance
    );
    let reason = ConditionReason::ClaimedTwice.as_str();
    Some(Claim::new(condition::NAME_CONFLICT, true, reason, message))
}

fn pruning_held(status: &ServiceRegistrationStatus, account: &DecisionSummary) -> Option<Claim> {
    if status.held <= 0 {
        return None;
    }
    let example = account.first(InstanceState::Held);
    let message = example.map_or_else(String::new, |verdict| {
        format!("{} held; {}: {}", status.held, verdict.instance, verdict.message)
    });
    let reason = example.map_or(Reason::LeaseUnreadable, |verdict| verdict.reason);
    Some(Claim::new(condition::PRUNING_HELD, true, reason.as_str(), message))
}

fn reconciling(applied: &Applied) -> Option<Claim> {
    let (reason, message) = match &applied.failure {
        Some(failure) => (ConditionReason::WriteFailed, failure.to_string()),
        None if !applied.refused.is_empty() => {
            (ConditionReason::PublishFailed, applied.refused.tell())
        }
        None => return None,
    };
    Some(Claim::new(condition::RECONCILING, true, reason.as_str(), message))
}

fn stalled(stall: &Stall) -> Claim {
    Claim::new(condition::STALLED, true, stall.reason.as_str(), stall.message.clone())
}
