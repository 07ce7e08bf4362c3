//! The status of a registration, and the events that tell of its transitions.
//!
//! A status can be made only from what was applied: [`report`] takes the [`Applied`] that the apply
//! step returns, so that nothing is called published that was not.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::{
    AdoptedInstance, InstanceState, InstanceStatus, ServiceRegistrationStatus,
    status::{LISTED_INSTANCES_MAX, condition},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    address::AddressSet,
    adoption::ADOPTED,
    instance::InstanceName,
    moment::Moment,
    standing::Stall,
    verdict::{Reason, Verdict},
};

/// What became of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many objects were written.
    pub writes: usize,
    /// What could not be carried out, and will be tried again.
    pub failure: Option<String>,
    /// The addresses that are published now; in a dry run, those that would be.
    pub published: AddressSet,
    /// In a dry run, what would have been written.
    pub dry_run: Option<String>,
    /// Those of the prior status's adopted instances that are no longer.
    pub adoption_ended: Vec<AdoptedInstance>,
}

/// The two clocks at the moment of a report: the wall clock is for people to read only.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The monotonic clock.
    pub now: Moment,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Clocks {
    fn wall_time_of(&self, moment: Moment) -> Time {
        let ago = Duration::from_secs(self.now.since(moment).as_secs());
        Time(self.wall.checked_sub(ago).unwrap_or(self.wall))
    }
}

/// Makes the status that tells of these verdicts. What `prior` says of an unchanged state is kept.
pub fn report(
    prior: &ServiceRegistrationStatus,
    generation: Option<i64>,
    verdicts: &[Verdict],
    stall: Option<&Stall>,
    applied: &Applied,
    clocks: Clocks,
) -> ServiceRegistrationStatus {
    let count = |state| {
        let number = verdicts.iter().filter(|verdict| verdict.state == state).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    // What was decided to be ready may not have been published: the registration may be stalled, or
    // a write have failed.
    let published = |verdict: &&Verdict| {
        let addresses = verdict.placement.iter().flat_map(|placement| &placement.addresses);
        addresses.into_iter().any(|address| applied.published.contains(address))
    };
    let ready = verdicts
        .iter()
        .filter(|verdict| verdict.state == InstanceState::Ready)
        .filter(published)
        .count();
    let mut status = ServiceRegistrationStatus {
        observed_generation: generation,
        conditions: Vec::new(),
        ready: i32::try_from(ready).unwrap_or(i32::MAX),
        expired: count(InstanceState::Expired),
        held: count(InstanceState::Held),
        total: i32::try_from(verdicts.len()).unwrap_or(i32::MAX),
        last_change_time: prior.last_change_time.clone(),
        instances: instances(prior, verdicts, clocks),
        // Who is adopted is written before anything is taken over; a report only ever ends it.
        adopted: {
            let still = |adopted: &&AdoptedInstance| !applied.adoption_ended.contains(adopted);
            prior.adopted.iter().filter(still).cloned().collect()
        },
    };
    status.conditions = conditions(prior, generation, &status, verdicts, stall, applied, clocks);
    if moved(prior, &status) {
        status.last_change_time = Some(Time(whole_seconds(clocks.wall)));
    }
    status
}

/// Whether a reader would see a difference. The time of the last beat alone is none: it would make
/// every beat a write.
pub fn differs(prior: &ServiceRegistrationStatus, next: &ServiceRegistrationStatus) -> bool {
    let without_beats = |status: &ServiceRegistrationStatus| {
        let mut status = status.clone();
        status.instances.iter_mut().for_each(|instance| instance.last_beat = None);
        status
    };
    without_beats(prior) != without_beats(next)
}

/// A status that differs from the last one in what may wait only is written this long after it at
/// the earliest.
pub const FLOOR: Duration = Duration::from_secs(10);

/// When a status that [`differs`] is to be written: at once when its difference is urgent, and else
/// not before [`FLOOR`] has passed since the last one was.
pub fn due(
    prior: Option<&ServiceRegistrationStatus>,
    next: &ServiceRegistrationStatus,
    written: Option<Moment>,
    now: Moment,
) -> Moment {
    match (prior, written) {
        (Some(prior), Some(written)) if !is_urgent(prior, next) => now.max(written + FLOOR),
        _ => now,
    }
}

/// Whether somebody may act on the difference: a state, a count, a condition, an address. What an
/// instance writes as its note, and whether a beat is a little late, may change as often as
/// workloads like, and would make the API server's load theirs to choose.
pub fn is_urgent(prior: &ServiceRegistrationStatus, next: &ServiceRegistrationStatus) -> bool {
    essence(prior) != essence(next)
}

/// A status without what may wait.
fn essence(status: &ServiceRegistrationStatus) -> ServiceRegistrationStatus {
    let mut status = status.clone();
    status.last_change_time = None;
    status.conditions.iter_mut().for_each(|condition| condition.message.clear());
    let is_ready = |instance: &InstanceStatus| instance.state == InstanceState::Ready.as_str();
    if status.instances.len() >= LISTED_INSTANCES_MAX {
        // Who of the ready is listed depends on whose beat is late.
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

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The instances to list: the troubled first, then by name.
fn instances(
    prior: &ServiceRegistrationStatus,
    verdicts: &[Verdict],
    clocks: Clocks,
) -> Vec<InstanceStatus> {
    let known: BTreeMap<&str, &InstanceStatus> =
        prior.instances.iter().map(|instance| (instance.name.as_str(), instance)).collect();
    let mut order: Vec<&Verdict> = verdicts.iter().collect();
    order.sort_by_key(|verdict| (!verdict.is_troubled(), &verdict.instance));
    order
        .into_iter()
        .take(LISTED_INSTANCES_MAX)
        .map(|verdict| {
            let before = known.get(&*verdict.instance).filter(|before| {
                before.state == verdict.state.as_str() && before.reason == verdict.reason.as_str()
            });
            InstanceStatus {
                name: verdict.instance.to_string(),
                state: verdict.state.as_str().to_owned(),
                addresses: verdict
                    .placement
                    .iter()
                    .flat_map(|placement| &placement.addresses)
                    .map(ToString::to_string)
                    .collect(),
                since: before
                    .and_then(|before| before.since.clone())
                    .or_else(|| Some(Time(whole_seconds(clocks.wall)))),
                last_beat: verdict.last_beat.map(|beat| clocks.wall_time_of(beat)).or_else(|| {
                    known.get(&*verdict.instance).and_then(|before| before.last_beat.clone())
                }),
                reason: verdict.reason.as_str().to_owned(),
                message: verdict.message.clone(),
            }
        })
        .collect()
}

fn conditions(
    prior: &ServiceRegistrationStatus,
    generation: Option<i64>,
    status: &ServiceRegistrationStatus,
    verdicts: &[Verdict],
    stall: Option<&Stall>,
    applied: &Applied,
    clocks: Clocks,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut set = |type_: &str, value: bool, reason: &str, message: String| {
        let value = if value { "True" } else { "False" };
        let since = prior
            .conditions
            .iter()
            .find(|before| before.type_ == type_ && before.status == value)
            .map(|before| before.last_transition_time.clone());
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(clocks.wall))),
        });
    };
    let reason = ready_reason(stall, applied);
    match (stall, &applied.failure, &applied.dry_run) {
        // What would be in the way is what a dry run is there to tell.
        (Some(stall), _, Some(dry_run)) => {
            let message = format!("{}; dry run: {dry_run}", stall.message);
            set(condition::READY, false, reason, message);
        }
        (Some(stall), _, None) => {
            set(condition::READY, false, reason, stall.message.clone());
        }
        (None, Some(failure), _) => set(condition::READY, false, reason, failure.clone()),
        (None, None, Some(dry_run)) => {
            let (ready, total) = (status.ready, status.total);
            let message =
                format!("dry run: {ready} of {total} instances would be ready; {dry_run}");
            set(condition::READY, false, reason, message);
        }
        (None, None, None) => set(condition::READY, true, reason, published(status)),
    }
    if status.ready + status.held > 0 {
        let message = available(status, applied.dry_run.is_some());
        set(condition::AVAILABLE, true, "InstancesReady", message);
    } else {
        let message = "no instance is ready, so the Service has nobody to answer".to_owned();
        set(condition::AVAILABLE, false, "NoInstanceReady", message);
    }
    if status.held > 0 {
        let example = verdicts.iter().find(|verdict| verdict.state == InstanceState::Held);
        let message = example.map_or_else(String::new, |verdict| {
            format!("{} held; {}: {}", status.held, verdict.instance, verdict.message)
        });
        let reason = example.map_or(Reason::LeaseUnreadable, |verdict| verdict.reason);
        set(condition::PRUNING_HELD, true, reason.as_str(), message);
    }
    if let Some(failure) = &applied.failure {
        set(condition::RECONCILING, true, "WriteFailed", failure.clone());
    }
    if let Some(stall) = stall {
        set(condition::STALLED, true, stall.reason, stall.message.clone());
    }
    conditions
}

/// The reason of the condition Ready.
pub fn ready_reason(stall: Option<&Stall>, applied: &Applied) -> &'static str {
    match (stall, &applied.failure, &applied.dry_run) {
        (Some(stall), _, _) => stall.reason,
        (None, Some(_), _) => "WriteFailed",
        (None, None, Some(_)) => "DryRun",
        (None, None, None) => "Published",
    }
}

fn published(status: &ServiceRegistrationStatus) -> String {
    format!("published as decided: {} of {} instances ready", status.ready, status.total)
}

fn available(status: &ServiceRegistrationStatus, dry_run: bool) -> String {
    let ready = status.ready + status.held;
    if dry_run {
        format!("dry run: {ready} instances would be ready")
    } else {
        format!("{ready} instances ready")
    }
}

/// What is remembered of the instances between two decisions, to tell transitions: their states, by
/// name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered(Vec<(InstanceName, InstanceState)>);

impl Remembered {
    fn new(mut states: Vec<(InstanceName, InstanceState)>) -> Self {
        states.sort_by(|(a, _), (b, _)| a.cmp(b));
        states.dedup_by(|(later, _), (first, _)| later == first);
        Self(states)
    }

    /// With those of the others that are not known here.
    pub fn or(self, others: Self) -> Self {
        // Of two for one name the first stays.
        Self::new(self.0.into_iter().chain(others.0).collect())
    }
}

/// What to remember of these verdicts.
pub fn remember(verdicts: &[Verdict]) -> Remembered {
    let state = |verdict: &Verdict| (verdict.instance.clone(), verdict.state);
    Remembered::new(verdicts.iter().map(state).collect())
}

/// What a status has told already, as far as it lists the instances.
pub fn told_by(status: Option<&ServiceRegistrationStatus>) -> Remembered {
    let listed = status.into_iter().flat_map(|status| &status.instances);
    let known = listed.filter_map(|instance| {
        let state =
            InstanceState::ALL.into_iter().find(|state| state.as_str() == instance.state)?;
        Some((instance.name.as_str().into(), state))
    });
    Remembered::new(known.collect())
}

/// Something worth an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether a person should look at it.
    pub warning: bool,
    /// Reason of the event.
    pub reason: &'static str,
    /// What happened, to whom.
    pub note: String,
    /// The instance it is about, or the first of several: it tells events apart that would be counted
    /// as one series otherwise.
    pub instance: Option<String>,
}

/// The events for what has changed since `before`: one for each kind of transition, however many
/// instances made it, so that a mass death is one line and not a flood. The verdicts are in order, as
/// they are decided.
pub fn notices(before: &Remembered, verdicts: &[Verdict]) -> Vec<Notice> {
    let mut groups: BTreeMap<(InstanceState, Reason), Vec<&Verdict>> = BTreeMap::new();
    let mut gone: Vec<&str> = Vec::new();
    let mut before = before.0.iter().peekable();
    for verdict in verdicts {
        while let Some((name, _)) = before.next_if(|(name, _)| *name < verdict.instance) {
            gone.push(name);
        }
        let known = before.next_if(|(name, _)| *name == verdict.instance);
        let changed = known.is_none_or(|(_, state)| *state != verdict.state);
        if changed && verdict.state != InstanceState::Waiting {
            groups.entry((verdict.state, verdict.reason)).or_default().push(verdict);
        }
    }
    gone.extend(before.map(|(name, _)| &**name));
    let mut notices: Vec<Notice> = groups
        .into_iter()
        .map(|((state, _), verdicts)| {
            let names: Vec<&str> = verdicts.iter().map(|verdict| &*verdict.instance).collect();
            let message = match verdicts.first().map(|verdict| verdict.message.as_str()) {
                None | Some("") => "its beats arrive in time",
                Some(message) => message,
            };
            let (warning, reason) = kind(state);
            Notice { warning, reason, note: note(&names, message), instance: first(&names) }
        })
        .collect();
    let (grown, gone): (Vec<&str>, Vec<&str>) =
        gone.into_iter().partition(|name| name.starts_with(ADOPTED));
    if !grown.is_empty() {
        notices.push(Notice {
            warning: false,
            reason: "AdoptionEnded",
            note: note(&grown, "it beats by itself now, or was removed from the annotation"),
            instance: first(&grown),
        });
    }
    if !gone.is_empty() {
        notices.push(Notice {
            warning: false,
            reason: "InstanceDeregistered",
            note: note(&gone, "deregistered, or its Pod is gone"),
            instance: first(&gone),
        });
    }
    notices
}

fn kind(state: InstanceState) -> (bool, &'static str) {
    match state {
        InstanceState::Waiting => (false, "InstanceWaiting"),
        InstanceState::Ready => (false, "InstanceReady"),
        InstanceState::NotReady => (true, "InstanceNotReady"),
        InstanceState::Draining => (false, "InstanceDraining"),
        InstanceState::Cordoned => (false, "InstanceCordoned"),
        InstanceState::Expired => (true, "InstanceExpired"),
        InstanceState::Held => (true, "InstanceHeld"),
        InstanceState::Rejected => (true, "InstanceRejected"),
    }
}

fn first(names: &[&str]) -> Option<String> {
    names.first().map(|name| (*name).to_owned())
}

/// At most this many instances are named in one event, whose note is limited to 1024 characters.
const NAMED: usize = 3;

fn note(names: &[&str], message: &str) -> String {
    let mut text = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(message);
    }
    text.chars().take(1000).collect()
}
