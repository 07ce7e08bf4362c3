//! A difference as text, in the unified format that `kubectl diff` prints, and as a document.

use serde::Serialize;

use super::text::{Line, Style};
use crate::model::{
    difference::{Difference, ObjectDifference, RowChange},
    kind::Kind,
    registration::RegistrationView,
};

/// How many unchanged rows are shown around a changed one.
const CONTEXT: usize = 3;

/// What is said of a difference that [assumes](Difference::assumes_endpoints) something.
pub const ASSUMES_ENDPOINTS: &str = "no object tells whether the operator writes Endpoints; this assumes that it does, which its flag \
     --publish-endpoints=false would change";

/// A line of the unified format: what it begins with, and its text.
type Piece = (char, String);

/// The difference in the unified format; nothing if there is none.
pub fn unified(difference: &Difference) -> Vec<Line> {
    difference.objects.iter().flat_map(object).collect()
}

fn object(object: &ObjectDifference) -> Vec<Line> {
    let pieces = pieces(object);
    let hunks = hunks(&pieces);
    if hunks.is_empty() {
        return Vec::new();
    }
    let name =
        format!("{}/{}/{}", object.kind.as_str(), object.service.namespace, object.service.name);
    let mut lines = vec![
        Line::of(format!("--- published/{name}"), Style::Strong),
        Line::of(format!("+++ planned/{name}"), Style::Strong),
    ];
    for hunk in hunks {
        let begins = |sign: char| pieces[..hunk.start].iter().filter(|it| it.0 != sign).count();
        let has = |sign: char| pieces[hunk.clone()].iter().filter(|it| it.0 != sign).count();
        let part = |other: char| {
            let (before, length) = (begins(other), has(other));
            // As diff writes it: an empty part names the line before it.
            format!("{},{length}", if length == 0 { before } else { before + 1 })
        };
        lines.push(Line::of(format!("@@ -{} +{} @@", part('+'), part('-')), Style::Faint));
        lines.extend(pieces[hunk].iter().map(|(sign, text)| {
            let style = match sign {
                '-' => Style::Bad,
                '+' => Style::Good,
                _ => Style::Normal,
            };
            Line::of(format!("{sign}{text}"), style)
        }));
    }
    lines
}

/// All rows as lines: those that stay once, and those that change as they are and as they would be.
fn pieces(object: &ObjectDifference) -> Vec<Piece> {
    let longest = |text: fn(&RowChange<'_>) -> usize| object.rows().map(|it| text(&it)).max();
    let address = longest(|it| it.row.address.chars().count()).unwrap_or(0);
    let port = longest(|it| it.row.port.chars().count()).unwrap_or(0);
    let text = |change: &RowChange<'_>, says: &str| {
        let line = format!("{:address$}  {:port$}  {says}", change.row.address, change.row.port);
        line.trim_end().to_owned()
    };
    object
        .rows()
        .flat_map(|change| match (change.before, change.after) {
            (Some(before), Some(after)) if before == after => vec![(' ', text(&change, before))],
            (before, after) => {
                let before = before.map(|says| ('-', text(&change, says)));
                before.into_iter().chain(after.map(|says| ('+', text(&change, says)))).collect()
            }
        })
        .collect()
}

/// The ranges of lines that are shown: the changed ones with those around them.
fn hunks(pieces: &[Piece]) -> Vec<std::ops::Range<usize>> {
    let mut hunks: Vec<std::ops::Range<usize>> = Vec::new();
    for (place, _) in pieces.iter().enumerate().filter(|(_, (sign, _))| *sign != ' ') {
        let (start, end) = (place.saturating_sub(CONTEXT), (place + 1 + CONTEXT).min(pieces.len()));
        match hunks.last_mut() {
            Some(last) if start <= last.end => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

/// One line for each kind of object that would change.
pub fn short(difference: &Difference) -> Vec<Line> {
    let line = |object: &ObjectDifference| {
        let count = |wanted: fn(&RowChange<'_>) -> bool| object.changes().filter(wanted).count();
        let added = count(|it| it.before.is_none());
        let removed = count(|it| it.after.is_none());
        let changed = count(|it| it.before.is_some() && it.after.is_some());
        let parts = [(added, "added"), (removed, "removed"), (changed, "changed")];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        let lead = format!("{} of Service {}: ", object.kind.as_str(), object.service);
        (!parts.is_empty()).then(|| Line::of(lead + &parts.join(", "), Style::Normal))
    };
    difference.objects.iter().filter_map(line).collect()
}

/// A difference for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct DifferenceReport {
    pub namespace: String,
    pub name: String,
    pub service_name: String,
    pub status: String,
    pub message: String,
    pub differs: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub assumes_endpoints: bool,
    pub changes: Vec<ChangeReport>,
}

#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct ChangeReport {
    pub kind: &'static str,
    pub address: String,
    pub port: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl DifferenceReport {
    /// The report of a difference. `message` is what the operator says.
    pub fn of(view: &RegistrationView, difference: &Difference, message: &str) -> Self {
        let changes = |object: &ObjectDifference| {
            let kind = object.kind;
            object.changes().map(|it| ChangeReport::of(kind, &it)).collect::<Vec<_>>()
        };
        Self {
            namespace: view.key.namespace.clone(),
            name: view.key.name.clone(),
            service_name: view.service_name.clone(),
            status: view.reported.reason().to_owned(),
            message: message.to_owned(),
            differs: !difference.is_empty(),
            assumes_endpoints: difference.assumes_endpoints,
            changes: difference.objects.iter().flat_map(changes).collect(),
        }
    }
}

impl ChangeReport {
    fn of(kind: Kind, change: &RowChange<'_>) -> Self {
        Self {
            kind: kind.as_str(),
            address: change.row.address.clone(),
            port: change.row.port.clone(),
            before: change.before.map(str::to_owned),
            after: change.after.map(str::to_owned),
        }
    }
}
