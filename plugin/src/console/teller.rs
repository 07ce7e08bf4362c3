//! Turns the picture of the cluster into messages: all of it for a page that connects, and then what has changed.

use std::collections::BTreeMap;

use beatkeeper_core::vocabulary::key::Key;
use jiff::Timestamp;

use super::{
    cell::{Cell, beat},
    operator::OperatorReport,
    timeline::{self, Timeline},
    wire::{Message, Row},
};
use crate::{
    model::{event::Transition, live::Live, registration::RegistrationView},
    render::document::UnreadReport,
};

/// How often beats are told, even if there are none, in milliseconds.
const HEARTBEAT: i64 = 1000;

/// What was told so far.
#[derive(Debug)]
pub struct Teller {
    context: Option<String>,
    scope: String,
    shared: bool,
    registrations: BTreeMap<Key, Told>,
    timeline: Timeline,
    operator: Option<OperatorReport>,
    health: Option<Message>,
    /// When everything was listed for the first time. What is seen from then on has happened.
    began: Option<Timestamp>,
    /// What the events tell, until everything is listed.
    events: Vec<(Key, Transition)>,
    beats_told: i64,
}

#[derive(Debug)]
struct Told {
    row: Row,
    cells: Vec<Cell>,
}

impl Teller {
    /// A teller that has told nothing. `context` and `scope` say what is looked at, and `shared` whether readers bring a
    /// token each.
    pub fn new(context: Option<String>, scope: String, shared: bool) -> Self {
        Self {
            context,
            scope,
            shared,
            registrations: BTreeMap::new(),
            timeline: Timeline::default(),
            operator: None,
            health: None,
            began: None,
            events: Vec::new(),
            beats_told: 0,
        }
    }

    /// All that a page needs that knows nothing.
    pub fn everything(&self, now: Timestamp) -> Vec<Message> {
        let mut messages = vec![Message::Hello {
            version: env!("CARGO_PKG_VERSION"),
            context: self.context.clone(),
            scope: self.scope.clone(),
            shared: self.shared,
            now: now.as_millisecond(),
        }];
        messages.extend(self.health.clone());
        messages.extend(self.operator.clone().map(Message::Operator));
        for (key, Told { row, cells }) in &self.registrations {
            let (row, cells) = (row.clone(), cells.clone());
            messages.push(Message::Registration { key: key.to_string(), row, cells });
            let marks = self.timeline.of(key);
            messages.push(Message::Marks { key: key.to_string(), marks });
        }
        messages
    }

    /// What has changed since the last time. `judged` says whether the picture was judged again since then; if not, there
    /// can be new beats only.
    pub fn changes(&mut self, live: &Live, judged: bool, now: Timestamp) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut beats = Vec::new();
        if judged {
            self.tell_health(live, &mut messages);
        }
        // Before everything is listed, what is missing is only not known yet.
        if self.began.is_some() || (judged && live.is_complete()) {
            for view in &live.picture().registrations {
                let told = match judged {
                    true => self.tell(view, now, &mut messages),
                    false => self.registrations.get_mut(&view.key).map(|it| it.beats(view)),
                };
                let told = told.unwrap_or_default();
                if !told.is_empty() {
                    beats.push((view.key.to_string(), told));
                }
            }
            if judged {
                self.tell_gone(&live.picture().registrations, &mut messages);
                let began = *self.began.get_or_insert(now);
                self.tell_events(began, &mut messages);
            }
        }
        self.tell_beats(beats, now, &mut messages);
        messages
    }

    /// Takes in what events tell of the time before the console was started.
    pub fn take_events(&mut self, events: Vec<(Key, Transition)>) {
        self.events.extend(events);
    }

    /// Takes in what is known of the operator. Returns what has changed.
    pub fn take_operator(&mut self, report: OperatorReport) -> Option<Message> {
        let is_news = self.operator.as_ref() != Some(&report);
        self.operator = Some(report.clone());
        is_news.then_some(Message::Operator(report))
    }

    /// Tells of one registration. Returns the places of instances that have beaten, and when; none if they were told
    /// anyway.
    fn tell(
        &mut self,
        view: &RegistrationView,
        now: Timestamp,
        messages: &mut Vec<Message>,
    ) -> Option<Vec<(usize, i64)>> {
        let key = view.key.to_string();
        let (row, cells) = (Row::of(view), view.instances.iter().map(Cell::of).collect::<Vec<_>>());
        let known = self.registrations.get_mut(&view.key);
        let before = known.as_ref().map_or(&[][..], |told| &told.cells);
        // What is there at the first look has not just happened.
        let marks = match self.began {
            Some(_) => timeline::changes(before, &cells, now),
            None => Vec::new(),
        };
        let beats = match known {
            Some(told) if told.has_names_of(&cells) => {
                let beats = told.beats(view);
                let changed = told.take(&cells);
                if !changed.is_empty() || told.row != row {
                    told.row = row.clone();
                    messages.push(Message::Changed { key: key.clone(), row, cells: changed });
                }
                Some(beats)
            }
            _ => {
                let told = Told { row: row.clone(), cells: cells.clone() };
                self.registrations.insert(view.key.clone(), told);
                messages.push(Message::Registration { key: key.clone(), row, cells });
                None
            }
        };
        if !marks.is_empty() {
            self.timeline.add(&view.key, marks, now);
            messages.push(Message::Marks { key, marks: self.timeline.of(&view.key) });
        }
        beats
    }

    fn tell_gone(&mut self, views: &[RegistrationView], messages: &mut Vec<Message>) {
        let is_there = |key: &Key| views.binary_search_by(|view| view.key.cmp(key)).is_ok();
        let gone: Vec<Key> =
            self.registrations.keys().filter(|key| !is_there(key)).cloned().collect();
        for key in gone {
            self.registrations.remove(&key);
            self.timeline.forget(&key);
            messages.push(Message::Gone { key: key.to_string() });
        }
    }

    fn tell_events(&mut self, began: Timestamp, messages: &mut Vec<Message>) {
        let mut touched = BTreeMap::<Key, Vec<Transition>>::new();
        for (key, event) in std::mem::take(&mut self.events) {
            touched.entry(key).or_default().push(event);
        }
        for (key, events) in touched {
            if self.registrations.contains_key(&key) {
                self.timeline.add_events(&key, &events, began);
                let marks = self.timeline.of(&key);
                messages.push(Message::Marks { key: key.to_string(), marks });
            }
        }
    }

    fn tell_health(&mut self, live: &Live, messages: &mut Vec<Message>) {
        let unread = live.picture().unread.iter().map(UnreadReport::of);
        let failing = live.failing().map(|(kind, why)| UnreadReport {
            what: kind.as_str().to_owned(),
            why: why.to_owned(),
        });
        let health = Message::Health {
            complete: live.is_complete(),
            unread: unread.collect(),
            failing: failing.collect(),
        };
        if self.health.as_ref() != Some(&health) {
            self.health = Some(health.clone());
            messages.push(health);
        }
    }

    fn tell_beats(
        &mut self,
        beats: Vec<(String, Vec<(usize, i64)>)>,
        now: Timestamp,
        messages: &mut Vec<Message>,
    ) {
        let now = now.as_millisecond();
        if !beats.is_empty() || now - self.beats_told >= HEARTBEAT {
            self.beats_told = now;
            messages.push(Message::Beats { now, beats });
        }
    }
}

impl Told {
    fn has_names_of(&self, cells: &[Cell]) -> bool {
        self.cells.len() == cells.len()
            && self.cells.iter().zip(cells).all(|(old, new)| old.name == new.name)
    }

    /// Takes in what else has changed than beats, which were taken in before. Returns it, with its places.
    fn take(&mut self, cells: &[Cell]) -> Vec<(usize, Cell)> {
        let mut changed = Vec::new();
        for (place, (told, cell)) in self.cells.iter_mut().zip(cells).enumerate() {
            if told != cell {
                *told = cell.clone();
                changed.push((place, cell.clone()));
            }
        }
        changed
    }

    /// Takes in new beats. Returns them, with their places.
    fn beats(&mut self, view: &RegistrationView) -> Vec<(usize, i64)> {
        let mut beats = Vec::new();
        for (place, (told, instance)) in self.cells.iter_mut().zip(&view.instances).enumerate() {
            let at = beat(instance);
            if told.name == instance.name && told.beat != at {
                told.beat = at;
                beats.extend(at.map(|at| (place, at)));
            }
        }
        beats
    }
}
