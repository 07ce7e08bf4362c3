//! What has happened to the instances of a registration in the last hour: joins, prunes, holds and departures.
//!
//! Events tell of the time before the console was started. What it sees itself it notes for each instance.

use std::collections::{BTreeMap, VecDeque};

use beatkeeper_core::vocabulary::key::Key;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::cell::Cell;
use crate::model::event::Transition;

/// How far the timeline reaches back. The API server keeps events as long.
const REACHES: SignedDuration = SignedDuration::from_hours(1);
/// The most marks of one registration. A registration whose instances flap for an hour has more; the latest stay.
const MOST: usize = 2000;

/// What has happened to instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// They get traffic now, and had none before.
    Joined,
    /// Their ttl has passed.
    Pruned,
    /// Their ttl has passed, and they stay published.
    Held,
    /// They have deregistered, or their Pods are gone.
    Left,
}

/// Something that has happened at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What.
    pub what: What,
    /// To how many instances.
    pub count: usize,
    /// To which instance, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The marks of all registrations.
#[derive(Debug, Default)]
pub struct Timeline {
    marks: BTreeMap<Key, VecDeque<Mark>>,
}

impl Timeline {
    /// The marks of a registration, the oldest first.
    pub fn of(&self, key: &Key) -> Vec<Mark> {
        self.marks.get(key).into_iter().flatten().cloned().collect()
    }

    /// Adds what events tell of the time before `until`.
    pub fn add_events(&mut self, key: &Key, events: &[Transition], until: Timestamp) {
        let before = events.iter().filter(|event| event.at < until);
        let told: Vec<Mark> = before.filter_map(told).collect();
        self.add(key, told, until);
    }

    /// Adds marks.
    pub fn add(&mut self, key: &Key, marks: Vec<Mark>, now: Timestamp) {
        let of_key = self.marks.entry(key.clone()).or_default();
        of_key.extend(marks);
        of_key.make_contiguous().sort_by_key(|mark| mark.at);
        let begin = (now - REACHES).as_millisecond();
        let old = of_key.iter().take_while(|mark| mark.at < begin).count();
        of_key.drain(..old.max(of_key.len().saturating_sub(MOST)));
    }

    /// Forgets a registration.
    pub fn forget(&mut self, key: &Key) {
        self.marks.remove(key);
    }
}

/// The mark for an event; none if it tells of something else.
fn told(event: &Transition) -> Option<Mark> {
    let what = match event.reason.as_str() {
        "InstanceReady" => What::Joined,
        "InstanceExpired" => What::Pruned,
        "InstanceHeld" => What::Held,
        "InstanceDeregistered" => What::Left,
        _ => return None,
    };
    let (count, name) = event.instances();
    let name = name.filter(|_| count == 1).map(str::to_owned);
    Some(Mark { at: event.at.as_millisecond(), what, count, name })
}

/// What has happened between two tellings of the instances of a registration, both ordered by name.
pub fn changes(before: &[Cell], after: &[Cell], now: Timestamp) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut note = |what, cell: &Cell| {
        let (at, name) = (now.as_millisecond(), Some(cell.name.clone()));
        marks.push(Mark { at, what, count: 1, name });
    };
    let mut old = before.iter().peekable();
    for cell in after {
        while let Some(gone) = old.next_if(|it| it.name < cell.name) {
            left(gone).into_iter().for_each(|what| note(what, gone));
        }
        let known = old.next_if(|it| it.name == cell.name).map(|it| it.state);
        if known != Some(cell.state) {
            entered(known, cell.state).into_iter().for_each(|what| note(what, cell));
        }
    }
    old.for_each(|gone| left(gone).into_iter().for_each(|what| note(what, gone)));
    marks
}

/// What it means that an instance has got a state.
fn entered(before: Option<&str>, now: &str) -> Option<What> {
    match now {
        "Expired" => Some(What::Pruned),
        "Held" => Some(What::Held),
        "Ready" if !matches!(before, Some("Held" | "NotReady" | "Draining")) => Some(What::Joined),
        _ => None,
    }
}

/// What it means that an instance is gone. One that was not published has left before.
fn left(cell: &Cell) -> Option<What> {
    let was_published = matches!(cell.state, "Ready" | "NotReady" | "Draining" | "Held");
    was_published.then_some(What::Left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, state: &'static str) -> Cell {
        Cell {
            name: name.to_owned(),
            state,
            reason: String::new(),
            message: String::new(),
            judged_by: "operator",
            addresses: Vec::new(),
            zone: None,
            version: None,
            since: None,
            beat: None,
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn event(reason: &str, note: &str, at: &str) -> Transition {
        let (reason, note, at) = (reason.to_owned(), note.to_owned(), at.parse().unwrap());
        Transition { at, reason, note, warning: false, count: 1, lease: None }
    }

    #[test]
    fn a_join_a_prune_a_hold_and_a_departure_are_marks_and_a_lifted_hold_is_none() {
        let before = [
            cell("a", "Waiting"),
            cell("b", "Ready"),
            cell("c", "Ready"),
            cell("d", "Ready"),
            cell("e", "Held"),
            cell("f", "Expired"),
        ];
        let after = [
            cell("a", "Ready"),
            cell("b", "Expired"),
            cell("c", "Held"),
            cell("e", "Ready"),
            cell("g", "Ready"),
            cell("h", "Waiting"),
        ];
        let marks = changes(&before, &after, now());
        let told: Vec<_> =
            marks.iter().map(|it| (it.what, it.name.as_deref().unwrap_or_default())).collect();
        assert_eq!(
            told,
            [
                (What::Joined, "a"),
                (What::Pruned, "b"),
                (What::Held, "c"),
                (What::Left, "d"),
                (What::Joined, "g"),
            ]
        );
        assert_eq!(changes(&after, &after, now()), []);
    }

    #[test]
    fn events_tell_of_the_time_before_the_console_and_of_how_many() {
        let key = Key::new("shop", "greeter");
        let mut timeline = Timeline::default();
        let events = [
            event("InstanceExpired", "a, b, c and 4 more: no beat", "2026-01-01T11:30:00Z"),
            event("InstanceReady", "a: its beats arrive in time", "2026-01-01T11:20:00Z"),
            event("InstanceReady", "a: its beats arrive in time", "2026-01-01T10:20:00Z"),
            event("InstanceReady", "a: its beats arrive in time", "2026-01-01T12:20:00Z"),
            event("AdoptionEnded", "a: it beats by itself now", "2026-01-01T11:20:00Z"),
        ];
        timeline.add_events(&key, &events, now());
        let marks = timeline.of(&key);
        let told: Vec<_> = marks.iter().map(|it| (it.what, it.count, it.name.as_deref())).collect();
        assert_eq!(told, [(What::Joined, 1, Some("a")), (What::Pruned, 7, None)]);
    }

    #[test]
    fn a_timeline_is_an_hour_long_and_bounded() {
        let key = Key::new("shop", "greeter");
        let mut timeline = Timeline::default();
        let mark = |at: i64| Mark { at, what: What::Held, count: 1, name: None };
        let now_millis = now().as_millisecond();
        timeline.add(&key, vec![mark(now_millis - 3_600_001), mark(now_millis)], now());
        assert_eq!(timeline.of(&key), [mark(now_millis)]);
        timeline.add(&key, (0..3000).map(|n| mark(now_millis + n)).collect(), now());
        assert_eq!(timeline.of(&key).len(), MOST);
        assert_eq!(timeline.of(&key).last(), Some(&mark(now_millis + 2999)));
    }
}
