//! The status of a registration.
//!
//! A status can be made only from what was applied: [`report`] takes the [`Applied`] that the apply step returns. So
//! the status never says that something is published if it is not.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::{
    AdoptedInstance, InstanceState, InstanceStatus, ServiceRegistrationStatus, duration,
    status::LISTED_INSTANCES_MAX, text::plain,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    inputs::stall::Stall,
    report::{
        applied::Applied,
        conditions::conditions,
        lasting::{steady, whole_seconds},
        summary::{DecisionSummary, ListedInstance, SummaryLine},
    },
    vocabulary::monotonic_time::MonotonicTime,
};

/// The two clocks at the moment of a report. The wall clock is only for people to read.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The monotonic clock.
    pub now: MonotonicTime,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Clocks {
    fn wall_time_of(&self, moment: MonotonicTime) -> Time {
        let ago = Duration::from_secs(self.now.since(moment).as_secs());
        Time(self.wall.checked_sub(ago).unwrap_or(self.wall))
    }
}

/// The message of an instance with a name that several processes claim.
pub const CONTESTED: &str = "several processes claim its name";

/// Makes the status for this account. Values of `prior` for an unchanged state are kept.
pub fn report(
    prior: &ServiceRegistrationStatus,
    generation: Option<i64>,
    account: &DecisionSummary,
    stall: Option<&Stall>,
    applied: &Applied,
    clocks: Clocks,
) -> ServiceRegistrationStatus {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut status = ServiceRegistrationStatus {
        observed_generation: generation,
        conditions: Vec::new(),
        ready: number(account.ready),
        expired: number(account.count(InstanceState::Expired)),
        held: number(account.count(InstanceState::Held)),
        total: number(account.lines.len()),
        former_ttl: applied.former_ttl.map(duration::format),
        last_change_time: prior.last_change_time.clone(),
        instances: instances(prior, account, clocks),
        cordoned: applied.cordons.remember(&prior.cordoned, whole_seconds(clocks.wall)),
        // Adopted instances are written to the status before anything is taken over. A report can only remove them.
        adopted: {
            let still = |adopted: &&AdoptedInstance| !applied.adoption_ended.contains(adopted);
            prior.adopted.iter().filter(still).cloned().collect()
        },
    };
    status.conditions = conditions(prior, &status, account, stall, applied, clocks.wall);
    if moved(prior, &status) {
        status.last_change_time = Some(Time(whole_seconds(clocks.wall)));
    }
    status
}

/// Whether the two statuses differ for a reader. The time of the last beat alone is not a difference. Otherwise every
/// beat would cause a write.
pub fn differs(prior: &ServiceRegistrationStatus, next: &ServiceRegistrationStatus) -> bool {
    let without_beats = |status: &ServiceRegistrationStatus| {
        let mut status = status.clone();
        status.instances.iter_mut().for_each(|instance| instance.last_beat = None);
        status
    };
    without_beats(prior) != without_beats(next)
}

/// The shortest time between two writes of a status if the differences are not urgent.
pub const FLOOR: Duration = Duration::from_secs(10);

/// When to write a status that [`differs`]. If the difference is urgent, that is now. Otherwise it is not before
/// [`FLOOR`] has passed since the last write.
pub fn due(
    prior: Option<&ServiceRegistrationStatus>,
    next: &ServiceRegistrationStatus,
    written: Option<MonotonicTime>,
    now: MonotonicTime,
) -> MonotonicTime {
    match (prior, written) {
        (Some(prior), Some(written)) if !is_urgent(prior, next) => now.max(written + FLOOR),
        _ => now,
    }
}

/// Whether a reader may have to act on the difference: a state, a count, a condition or an address. The note of an
/// instance and a slightly late beat are not urgent. They may change as often as the workloads like, so workloads
/// could otherwise decide how much the API server is loaded.
pub fn is_urgent(prior: &ServiceRegistrationStatus, next: &ServiceRegistrationStatus) -> bool {
    essence(prior) != essence(next)
}

/// A status without the parts that are not urgent.
fn essence(status: &ServiceRegistrationStatus) -> ServiceRegistrationStatus {
    let mut status = status.clone();
    status.last_change_time = None;
    status.conditions.iter_mut().for_each(|condition| condition.message.clear());
    let is_ready = |instance: &InstanceStatus| instance.state == InstanceState::Ready.as_str();
    if status.instances.len() >= LISTED_INSTANCES_MAX {
        // Which of the ready instances are listed depends on which beats are late.
        status.instances.retain(|instance| !is_ready(instance));
    }
    for instance in &mut status.instances {
        instance.message.clear();
        instance.last_beat = None;
        if is_ready(instance) {
            instance.reason.clear();
            instance.since = None;
        }
    }
    status.instances.sort_by(|a, b| a.name.cmp(&b.name));
    status
}

fn moved(prior: &ServiceRegistrationStatus, next: &ServiceRegistrationStatus) -> bool {
    let states = |status: &ServiceRegistrationStatus| {
        let listed: Vec<_> = status
            .instances
            .iter()
            .map(|instance| {
                (instance.name.clone(), instance.state.clone(), instance.reason.clone())
            })
            .collect();
        (listed, status.ready, status.expired, status.held, status.total)
    };
    states(prior) != states(next)
}

/// The entries of the instances to list.
fn instances(
    prior: &ServiceRegistrationStatus,
    account: &DecisionSummary,
    clocks: Clocks,
) -> Vec<InstanceStatus> {
    let known: BTreeMap<&str, &InstanceStatus> =
        prior.instances.iter().map(|instance| (instance.name.as_str(), instance)).collect();
    let told = |(line, listed): (&SummaryLine, &ListedInstance)| {
        let before = known.get(&*line.instance).copied();
        let same = before.filter(|before| {
            before.state == line.state.as_str() && before.reason == line.reason.as_str()
        });
        InstanceStatus {
            name: line.instance.to_string(),
            state: line.state.as_str().to_owned(),
            addresses: listed.addresses.iter().map(ToString::to_string).collect(),
            since: same
                .and_then(|before| before.since.clone())
                .or_else(|| Some(Time(whole_seconds(clocks.wall)))),
            last_beat: listed
                .last_beat
                .map(|beat| clocks.wall_time_of(beat))
                .or_else(|| before.and_then(|before| before.last_beat.clone())),
            reason: line.reason.as_str().to_owned(),
            message: {
                let message = match &line.rival {
                    None => plain(&line.message).into_owned(),
                    Some(rival) if line.message.is_empty() => format!("{CONTESTED}: {rival}"),
                    Some(rival) => format!("{}; {CONTESTED}: {rival}", plain(&line.message)),
                };
                match same {
                    Some(before) => steady(&before.reason, &before.message, &message),
                    None => message,
                }
            },
        }
    };
    account.listed().map(told).collect()
}
