//! What has changed between two pictures, a line each: the live view where there is no terminal.

use std::collections::BTreeMap;

use beatkeeper_core::vocabulary::key::Key;
use jiff::Timestamp;

use super::{
    shape,
    text::{Line, Style},
    tree::counts,
};
use crate::{
    model::{
        instance::{Instance, Published},
        registration::{Picture, RegistrationView},
    },
    times,
};

/// What was last told of registrations and instances.
#[derive(Debug, Default)]
pub struct Told {
    registrations: BTreeMap<Key, String>,
    instances: BTreeMap<(Key, String), String>,
}

impl Told {
    /// The lines about what has changed since the last call. The first call tells everything.
    pub fn changes(&mut self, picture: &Picture, now: Timestamp) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut next = Self::default();
        for view in &picture.registrations {
            self.registration(view, &mut next, now, &mut lines);
        }
        let gone = self.instances.keys().filter(|known| !next.instances.contains_key(*known));
        for (key, name) in gone {
            let text = format!("- {key} {name}: gone");
            lines.push(at(now).and(text));
        }
        let gone = self.registrations.keys().filter(|key| !next.registrations.contains_key(*key));
        lines.extend(gone.map(|key| at(now).and(format!("- {key}: gone"))));
        *self = next;
        lines
    }

    fn registration(
        &self,
        view: &RegistrationView,
        next: &mut Self,
        now: Timestamp,
        lines: &mut Vec<Line>,
    ) {
        let text = format!("{}: {}", view.reported.reason(), counts(&view.counts()));
        if self.registrations.get(&view.key) != Some(&text) {
            let (sign, style) = shape::of_severity(view.severity());
            let line = at(now).with(format!("{sign} {}", view.key), style);
            lines.push(line.and(format!(" {text}")));
        }
        next.registrations.insert(view.key.clone(), text);
        for instance in &view.instances {
            let key = (view.key.clone(), instance.name.clone());
            let text = told(instance);
            if self.instances.get(&key) != Some(&text) {
                let (sign, style) = shape::of_state(instance.state);
                let line = at(now).with(format!("{sign} {} {}", view.key, instance.name), style);
                lines.push(line.and(format!(" {text}")));
            }
            next.instances.insert(key, text);
        }
    }
}

/// The moment, at the beginning of a line.
fn at(now: Timestamp) -> Line {
    Line::of(format!("{} ", times::of_day(now)), Style::Faint)
}

/// All of an instance that is worth a line when it changes. Beats are not.
fn told(instance: &Instance) -> String {
    let mut text = format!("{} ({})", instance.state.as_str(), instance.reason);
    if instance.state.is_published() != (instance.published != Published::No) {
        text.push_str(match instance.published {
            Published::No => ", not in the slices",
            _ => ", still in the slices",
        });
    }
    if !instance.message.is_empty() {
        text.push_str(&format!(": {}", instance.message));
    }
    text
}
