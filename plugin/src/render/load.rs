//! The load of registrations as a table, and as documents.

use serde::Serialize;

use super::text::{Line, Style};
use crate::{model::load::Load, times::span};

/// The heading of the table. The first column is left out for a single namespace.
const HEADING: [&str; 7] =
    ["NAMESPACE", "NAME", "INSTANCES", "READY", "OVERDUE", "BEATS(/s)", "NEXT DEADLINE"];

/// The table: a heading, and a line for each registration.
pub fn table(loads: &[Load], sum: Option<&Load>, namespaces: bool) -> Vec<Line> {
    let mut rows = vec![HEADING.map(str::to_owned)];
    rows.extend(loads.iter().map(cells));
    rows.extend(sum.map(|sum| {
        let mut row = cells(sum);
        row[usize::from(!namespaces)] = "SUM".to_owned();
        row
    }));
    let first = usize::from(!namespaces);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADING.len()).map(|it| width(it).unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        (first..HEADING.len()).fold(Line::new(), |line, column| {
            line.cell(&row[column], widths[column], Style::Normal)
        })
    };
    rows.iter().map(line).collect()
}

fn cells(load: &Load) -> [String; 7] {
    let Load { key, instances, ready, overdue, beats, next } = load;
    let next = next.as_ref();
    [
        key.namespace.clone(),
        key.name.clone(),
        instances.to_string(),
        ready.to_string(),
        overdue.to_string(),
        format!("{beats:.2}"),
        next.map_or_else(|| "-".to_owned(), |it| format!("{} {}", span(it.after), it.instance)),
    ]
}

/// All registrations for programs.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct LoadsReport {
    pub items: Vec<LoadReport>,
}

/// One registration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct LoadReport {
    pub namespace: String,
    pub name: String,
    pub instances: usize,
    pub ready: usize,
    pub overdue: usize,
    pub beats_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_deadline_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_instance: Option<String>,
}

impl LoadsReport {
    /// The report of registrations, in this order.
    pub fn of(loads: &[Load]) -> Self {
        Self { items: loads.iter().map(LoadReport::of).collect() }
    }
}

impl LoadReport {
    fn of(load: &Load) -> Self {
        let Load { key, instances, ready, overdue, beats, next } = load;
        let rounded = |number: f64, parts: f64| (number * parts).round() / parts;
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            instances: *instances,
            ready: *ready,
            overdue: *overdue,
            beats_per_second: rounded(*beats, 1000.0),
            next_deadline_seconds: next.as_ref().map(|it| rounded(it.after.as_secs_f64(), 10.0)),
            next_instance: next.as_ref().map(|it| it.instance.clone()),
        }
    }
}
