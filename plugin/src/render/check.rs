//! The verdicts of checks, as text and as a document.

use serde::Serialize;

use super::text::{Line, Style, wrap};
use crate::check::{
    id::Check,
    verdict::{Outcome, Verdict},
};

/// The verdicts as lines of at most `width` characters; with `short`, only of what is not fine.
pub fn lines(verdicts: &[Verdict], short: bool, width: usize) -> Vec<Line> {
    let shown = verdicts.iter().filter(|it| !short || it.is_noted());
    let mut lines: Vec<Line> = shown.flat_map(|it| self::verdict(it, width)).collect();
    if !short {
        lines.push(summary(verdicts));
    }
    lines
}

fn verdict(verdict: &Verdict, width: usize) -> Vec<Line> {
    let Verdict { check, outcome } = verdict;
    let (sign, style) = sign(outcome);
    let (detail, remedy) = match outcome {
        Outcome::Fine(detail) => (detail.clone(), None),
        Outcome::Failed { what, remedy } | Outcome::Warning { what, remedy } => {
            (what.clone(), Some(remedy))
        }
        Outcome::Unknown(why) => (format!("unknown: {why}"), None),
        Outcome::Skipped(because) => (format!("skipped, because of {}", because.name()), None),
    };
    let colon = if detail.is_empty() { "" } else { ": " };
    let text = format!("{}{colon}{detail}", check.claim());
    let mut lines = Vec::new();
    for (n, text) in wrap(&text, width.saturating_sub(2).max(20)).into_iter().enumerate() {
        let lead = if n == 0 { format!("{sign} ") } else { "  ".to_owned() };
        lines.push(Line::of(lead, style).and(text));
    }
    if let Some(remedy) = remedy {
        for (n, text) in wrap(remedy, width.saturating_sub(4).max(20)).into_iter().enumerate() {
            lines.push(Line::of(if n == 0 { "  → " } else { "    " }, Style::Strong).and(text));
        }
    }
    if verdict.is_noted() {
        lines.push(Line::of(format!("    {}", check.link()), Style::Faint));
    }
    lines
}

fn sign(outcome: &Outcome) -> (&'static str, Style) {
    match outcome {
        Outcome::Fine(_) => ("✓", Style::Good),
        Outcome::Failed { .. } => ("✗", Style::Bad),
        Outcome::Warning { .. } => ("!", Style::Warning),
        Outcome::Unknown(_) => ("?", Style::Warning),
        Outcome::Skipped(_) => ("·", Style::Faint),
    }
}

fn summary(verdicts: &[Verdict]) -> Line {
    let count =
        |wanted: fn(&Outcome) -> bool| verdicts.iter().filter(|it| wanted(&it.outcome)).count();
    let failed = count(|it| matches!(it, Outcome::Failed { .. }));
    let warned = count(|it| matches!(it, Outcome::Warning { .. } | Outcome::Unknown(_)));
    let skipped = count(|it| matches!(it, Outcome::Skipped(_)));
    let s = if verdicts.len() == 1 { "" } else { "s" };
    let mut text = format!("{} check{s}: {failed} failed", verdicts.len());
    for (count, word) in [(warned, "to look at"), (skipped, "skipped")] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    let style = if failed > 0 { Style::Bad } else { Style::Good };
    Line::of(text, style)
}

/// The verdicts, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Whether no check fails.
    pub well: bool,
    /// The checks.
    pub checks: Vec<Row>,
}

/// A check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    name: &'static str,
    claim: &'static str,
    outcome: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
    link: String,
}

/// The verdicts as a document.
pub fn document(verdicts: &[Verdict]) -> Document {
    Document {
        well: !verdicts.iter().any(Verdict::is_failed),
        checks: verdicts.iter().map(|it| row(it.check, &it.outcome)).collect(),
    }
}

fn row(check: Check, outcome: &Outcome) -> Row {
    let (word, detail, remedy) = match outcome {
        Outcome::Fine(detail) => ("fine", detail.clone(), String::new()),
        Outcome::Failed { what, remedy } => ("failed", what.clone(), remedy.clone()),
        Outcome::Warning { what, remedy } => ("warning", what.clone(), remedy.clone()),
        Outcome::Unknown(why) => ("unknown", why.clone(), String::new()),
        Outcome::Skipped(because) => ("skipped", because.name().to_owned(), String::new()),
    };
    let (name, claim, link) = (check.name(), check.claim(), check.link());
    Row { name, claim, outcome: word, detail, remedy, link }
}
