//! What was found in files, as text and as a document.

use serde::Serialize;

use super::text::{Line, Style};
use crate::lint::{
    finding::{Finding, Report},
    mistake::Level,
};

/// A finding is one line, as compilers write it, so that editors can jump to it. With `remedies`, what to do follows.
pub fn lines(report: &Report, remedies: bool) -> Vec<Line> {
    let mut lines: Vec<Line> =
        report.findings.iter().flat_map(|finding| self::finding(finding, remedies)).collect();
    if remedies {
        lines.push(summary(report));
    }
    lines
}

fn finding(finding: &Finding, remedies: bool) -> Vec<Line> {
    let Finding { level, file, line, object, field, what, remedy } = finding;
    let style = match level {
        Level::Error => Style::Bad,
        Level::Advice => Style::Warning,
    };
    let mut place = String::new();
    for part in [object, field].into_iter().filter(|part| !part.is_empty()) {
        place.push_str(part);
        place.push_str(": ");
    }
    let line = Line::of(format!("{file}:{line}: "), Style::Strong)
        .with(level.as_str(), style)
        .and(format!(": {place}{what}"));
    let remedy = Some(remedy).filter(|remedy| remedies && !remedy.is_empty());
    let remedy = remedy.map(|remedy| {
        let stop = if remedy.ends_with('?') { "" } else { "." };
        Line::of("  → ", Style::Strong).and(format!("{remedy}{stop}"))
    });
    std::iter::once(line).chain(remedy).collect()
}

fn summary(report: &Report) -> Line {
    let plural = |count: usize, word: &str| {
        let s = if count == 1 { "" } else { "s" };
        format!("{count} {word}{s}")
    };
    let checked = format!(
        "in {} of {}",
        plural(report.registrations, "registration"),
        plural(report.files, "file")
    );
    let (errors, advice) = (report.count(Level::Error), report.count(Level::Advice));
    let sign = match (errors, advice) {
        (0, 0) => Line::of("✓ ", Style::Good),
        (0, _) => Line::of("! ", Style::Warning),
        _ => Line::of("✗ ", Style::Bad),
    };
    let found = format!("{}, {}", plural(errors, "error"), plural(advice, "piece") + " of advice");
    sign.and(format!("{found} {checked}"))
}

/// What was found, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<'a> {
    /// Whether there is no error.
    pub well: bool,
    /// The number of registrations that were checked.
    pub registrations: usize,
    /// The number of files that were read.
    pub files: usize,
    /// The findings.
    pub findings: Vec<Row<'a>>,
}

/// A finding.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row<'a> {
    level: &'static str,
    file: &'a str,
    line: usize,
    object: &'a str,
    field: &'a str,
    what: &'a str,
    remedy: &'a str,
}

/// The report as a document.
pub fn document<'a>(report: &'a Report) -> Document<'a> {
    let row = |finding: &'a Finding| {
        let Finding { level, file, line, object, field, what, remedy } = finding;
        Row { level: level.as_str(), file, line: *line, object, field, what, remedy }
    };
    let rows = report.findings.iter().map(row);
    Document {
        well: report.count(Level::Error) == 0,
        registrations: report.registrations,
        files: report.files,
        findings: rows.collect(),
    }
}
