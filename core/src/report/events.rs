//! The events that report transitions of instances.

use std::collections::BTreeMap;

use beatkeeper_api::{InstanceState, ServiceRegistrationStatus, text::plain};

use crate::{
    adoption::adopted::ADOPTED,
    report::{
        flapping::Withheld, reported_states::ReportedStates, status::CONTESTED,
        summary::SummaryLine,
    },
    vocabulary::{instance::InstanceName, reason::Reason},
};

/// What to store once all events except the withheld ones are sent. Withheld events are sent later, with the state at
/// that time.
pub fn remember(
    before: &ReportedStates,
    lines: &[SummaryLine],
    withheld: &Withheld,
) -> ReportedStates {
    let now = ReportedStates::of(lines).0.into_iter().filter(|(name, ..)| !withheld.holds(name));
    let still = before.0.iter().filter(|(name, ..)| withheld.holds(name)).cloned();
    ReportedStates::new(now.chain(still).collect())
}

/// Whether anything has changed since `before`.
pub fn is_news(before: &ReportedStates, lines: &[SummaryLine]) -> bool {
    *before != ReportedStates::of(lines)
}

/// What a status has already reported, as far as it lists the instances.
pub fn from_status(status: &ServiceRegistrationStatus) -> ReportedStates {
    let known = status.instances.iter().filter_map(|instance| {
        let state =
            InstanceState::ALL.into_iter().find(|state| state.as_str() == instance.state)?;
        Some((instance.name.as_str().into(), state, instance.message.contains(CONTESTED)))
    });
    ReportedStates::new(known.collect())
}

/// Something that should be reported in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceEvent {
    /// Whether a person should look at it.
    pub warning: bool,
    /// Reason of the event.
    pub reason: &'static str,
    /// What happened, and to which instances.
    pub note: String,
    /// The instance that the event is about, or the first of several. It distinguishes events that would otherwise be
    /// counted as one series.
    pub instance: Option<String>,
}

/// The events for the changes since `before`. There is one for each kind of transition, however many instances made
/// it, so that the death of many instances at once is one event. The lines must be in the order of the names.
pub fn of(
    before: &ReportedStates,
    lines: &[SummaryLine],
    withheld: &Withheld,
) -> Vec<InstanceEvent> {
    let Changes { transitions, contested, gone } = Changes::since(before, lines, withheld);
    let told = transitions.into_iter().map(|(to, lines)| transition(to, &lines, withheld));
    told.chain(conflict(&contested)).chain(departures(&gone)).collect()
}

/// What has changed, except of withheld instances.
#[derive(Default)]
struct Changes<'a> {
    /// The instances with a new state that is worth an event.
    transitions: BTreeMap<(InstanceState, Reason), Vec<&'a SummaryLine>>,
    /// The instances with a name that several processes claim now.
    contested: Vec<&'a SummaryLine>,
    /// The instances that have left.
    gone: Vec<&'a InstanceName>,
}

impl<'a> Changes<'a> {
    fn since(before: &'a ReportedStates, lines: &'a [SummaryLine], withheld: &Withheld) -> Self {
        let mut changes = Self::default();
        let mut before = before.0.iter().peekable();
        for now in lines {
            while let Some((name, ..)) = before.next_if(|(name, ..)| *name < now.instance) {
                changes.gone.push(name);
            }
            let known = before.next_if(|(name, ..)| *name == now.instance);
            if withheld.holds(&now.instance) {
                continue;
            }
            let changed = known.is_none_or(|(_, state, _)| *state != now.state);
            if now.rival.is_some() && known.is_none_or(|(.., contested)| !contested) {
                changes.contested.push(now);
            }
            let is_news =
                now.state != InstanceState::Waiting || now.reason == Reason::PublishFailed;
            if changed && is_news {
                changes.transitions.entry((now.state, now.reason)).or_default().push(now);
            }
        }
        changes.gone.extend(before.map(|(name, ..)| name));
        changes.gone.retain(|name| !withheld.holds(name));
        changes
    }
}

/// The event for the instances that have got this state for this reason.
fn transition(
    (state, why): (InstanceState, Reason),
    lines: &[&SummaryLine],
    withheld: &Withheld,
) -> InstanceEvent {
    let mut message = match lines.first().map(|line| line.message.as_str()) {
        None | Some("") => without_a_note(why).to_owned(),
        Some(message) => message.to_owned(),
    };
    if let [line] = lines
        && let Some(changes) = withheld.changes(&line.instance)
    {
        message
            .push_str(&format!("; its state has changed {changes} times since it was last told"));
    }
    let (warning, reason) = kind(state, why);
    notice(warning, reason, &names(lines), &message)
}

fn conflict(contested: &[&SummaryLine]) -> Option<InstanceEvent> {
    let rival = contested.first().and_then(|line| line.rival.as_deref())?;
    let message = format!("{CONTESTED}: {rival}; give each process an instance name of its own");
    Some(notice(true, "NameConflict", &names(contested), &message))
}

fn departures(gone: &[&InstanceName]) -> impl Iterator<Item = InstanceEvent> {
    let names = gone.iter().map(|name| &***name);
    let (grown, gone): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with(ADOPTED));
    let ends = [
        ("AdoptionEnded", grown, "it beats by itself now, or was removed from the annotation"),
        ("InstanceDeregistered", gone, "deregistered, or its Pod is gone"),
    ];
    let ends = ends.into_iter().filter(|(_, names, _)| !names.is_empty());
    ends.map(|(reason, names, message)| notice(false, reason, &names, message))
}

fn names<'a>(lines: &[&'a SummaryLine]) -> Vec<&'a str> {
    lines.iter().map(|line| &*line.instance).collect()
}

fn notice(warning: bool, reason: &'static str, names: &[&str], message: &str) -> InstanceEvent {
    let instance = names.first().map(|name| (*name).to_owned());
    InstanceEvent { warning, reason, note: note(names, message), instance }
}

fn kind(state: InstanceState, reason: Reason) -> (bool, &'static str) {
    match state {
        InstanceState::Waiting if reason == Reason::PublishFailed => (true, "InstanceNotPublished"),
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

/// What an event says of an instance without a note of its own. The reason is that of the event.
fn without_a_note(why: Reason) -> &'static str {
    match why {
        Reason::Beating => "its beats arrive in time",
        Reason::HealthFailing => "it says that it cannot serve, and not why",
        Reason::HealthDraining => "it says that it is leaving",
        _ => "",
    }
}

/// The largest number of instances that are named in one event. The note of an event is limited to 1024 characters.
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
    plain(&text).chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_several_claim_is_told_once_and_known_from_the_status_after_a_restart() {
        let ready = SummaryLine::beating("a", InstanceState::Ready);
        let rival = Some("held by vm-b/2, and also claimed by vm-a/1".to_owned());
        let lines = [SummaryLine { rival, ..ready.clone() }];
        let told = of(&ReportedStates::of(&[ready]), &lines, &Withheld::default());
        let [conflict] = &told[..] else { panic!("{told:?}") };
        assert!(conflict.warning);
        assert_eq!(conflict.reason, "NameConflict");
        assert_eq!(
            conflict.note,
            "a: several processes claim its name: held by vm-b/2, and also claimed by vm-a/1; give each \
             process an instance name of its own"
        );
        assert_eq!(of(&ReportedStates::of(&lines), &lines, &Withheld::default()), []);
        let status = ServiceRegistrationStatus {
            instances: vec![beatkeeper_api::InstanceStatus {
                name: "a".to_owned(),
                state: "Ready".to_owned(),
                message: format!("{CONTESTED}: x"),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(of(&from_status(&status), &lines, &Withheld::default()), []);
    }

    fn told(before: &ReportedStates, lines: &[SummaryLine]) -> Vec<String> {
        let line = |notice: InstanceEvent| {
            format!("{} {}", notice.reason, notice.instance.unwrap_or_default())
        };
        of(before, lines, &Withheld::default()).into_iter().map(line).collect()
    }

    #[test]
    fn joins_changes_and_departures_are_reported_and_unchanged_instances_are_not() {
        use InstanceState::{Expired, Ready, Waiting};
        let before = ReportedStates::of(&[
            SummaryLine::beating("a", Ready),
            SummaryLine::beating("c", Ready),
            SummaryLine::beating("e", Ready),
        ]);
        let lines = [
            SummaryLine::beating("b", Waiting),
            SummaryLine::beating("c", Expired),
            SummaryLine::beating("d", Ready),
            SummaryLine::beating("e", Ready),
        ];
        assert_eq!(
            told(&before, &lines),
            ["InstanceReady d", "InstanceExpired c", "InstanceDeregistered a"]
        );
        assert_eq!(told(&ReportedStates::of(&lines), &lines), [""; 0]);
        assert_eq!(told(&before, &[]), ["InstanceDeregistered a"], "and 2 more");
    }

    #[test]
    fn what_a_status_lists_counts_before_what_is_taken_for_told() {
        let listed = ReportedStates::of(&[SummaryLine::beating("b", InstanceState::Expired)]);
        let all = [
            SummaryLine::beating("a", InstanceState::Ready),
            SummaryLine::beating("b", InstanceState::Ready),
        ];
        assert_eq!(told(&listed.or(ReportedStates::of(&all)), &all), ["InstanceReady b"]);
    }

    #[test]
    fn an_event_without_a_reason_of_the_instance_names_its_state() {
        let reasons = [
            (InstanceState::Ready, Reason::Beating),
            (InstanceState::NotReady, Reason::HealthFailing),
            (InstanceState::Draining, Reason::HealthDraining),
        ];
        let notes = reasons.map(|(state, reason)| {
            let line = SummaryLine { reason, ..SummaryLine::beating("vm-1", state) };
            of(&ReportedStates::default(), &[line], &Withheld::default()).remove(0).note
        });
        assert_eq!(
            notes,
            [
                "vm-1: its beats arrive in time",
                "vm-1: it says that it cannot serve, and not why",
                "vm-1: it says that it is leaving",
            ]
        );
    }
}
