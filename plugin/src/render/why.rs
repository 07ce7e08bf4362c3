//! The argument about one instance, as text and as a document.

use beatkeeper_api::explain::Explanation;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    document::InstanceReport,
    shape,
    text::{Line, Style, wrap},
};
use crate::{
    model::{
        event::Transition,
        instance::{Instance, Published},
        registration::RegistrationView,
        why::{
            Why,
            leader::Leader,
            step::{Mark, Step},
        },
    },
    times,
};

/// The argument as lines of at most `width` characters.
pub fn lines(
    view: &RegistrationView,
    instance: &Instance,
    why: &Why,
    width: usize,
    now: Timestamp,
) -> Vec<Line> {
    let (sign, style) = shape::of_state(instance.state);
    let published = match instance.published {
        Published::Ready => "published as ready",
        Published::NotReady => "published as not ready",
        Published::Draining => "published as terminating",
        Published::No => "not published",
    };
    let mut head = format!(
        "{sign} {} of {} is {} ({}): {published}",
        instance.name,
        view.key,
        instance.state.as_str(),
        instance.reason
    );
    if let Some(since) = instance.since {
        head.push_str(&format!(", since {}", times::whole_span(times::between(since, now))));
    }
    let mut lines = vec![Line::of(head, style), Line::new()];
    let topic = why.steps.iter().map(|step| step.topic.len()).max().unwrap_or(0);
    lines.extend(why.steps.iter().flat_map(|step| self::step(step, topic, width)));
    if !why.history.is_empty() {
        lines.extend([Line::new(), Line::of("Last transitions, from events:", Style::Faint)]);
        lines.extend(why.history.iter().flat_map(|it| transition(it, width)));
    }
    lines.push(Line::new());
    let (lead, style) = if why.well { ("✓ ", Style::Good) } else { ("→ ", Style::Strong) };
    for (n, text) in wrap(&why.remedy, width.saturating_sub(2)).into_iter().enumerate() {
        lines.push(Line::of(if n == 0 { lead } else { "  " }, style).with(text, style));
    }
    lines
}

fn step(step: &Step, topic: usize, width: usize) -> Vec<Line> {
    let (sign, style) = match step.mark {
        Mark::Fine => ("✓", Style::Good),
        Mark::Note => ("·", Style::Normal),
        Mark::Trouble => ("✗", Style::Bad),
    };
    let indent = topic + 6;
    let texts = wrap(&step.text, width.saturating_sub(indent).max(20));
    let line = |(n, text): (usize, String)| match n {
        0 => Line::of(format!("  {sign} "), style).cell(step.topic, topic, Style::Strong).and(text),
        _ => Line::of(" ".repeat(indent), Style::Normal).and(text),
    };
    texts.into_iter().enumerate().map(line).collect()
}

fn transition(transition: &Transition, width: usize) -> Vec<Line> {
    let Transition { at, reason, note, warning, count, lease: _ } = transition;
    let (sign, style) = if *warning { ("!", Style::Warning) } else { ("·", Style::Normal) };
    let times = if *count > 1 { format!(" (×{count})") } else { String::new() };
    let lead = format!("  {sign} {}  ", times::full(*at));
    let indent = lead.chars().count();
    let texts = wrap(&format!("{reason}{times}: {note}"), width.saturating_sub(indent).max(20));
    let line = |(n, text): (usize, String)| {
        let lead = if n == 0 { lead.clone() } else { " ".repeat(indent) };
        Line::of(lead, style).and(text)
    };
    texts.into_iter().enumerate().map(line).collect()
}

/// The argument as a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct WhyReport {
    pub registration: String,
    pub instance: InstanceReport,
    pub well: bool,
    pub steps: Vec<StepReport>,
    /// What the leader knows; not there if it has not said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<Explanation>,
    /// Why the leader has not said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_not_asked: Option<String>,
    pub history: Vec<TransitionReport>,
    pub remedy: String,
}

#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct StepReport {
    pub topic: &'static str,
    pub mark: &'static str,
    pub text: String,
}

#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct TransitionReport {
    pub at: String,
    pub reason: String,
    pub note: String,
    pub count: u64,
}

/// The argument as a document.
pub fn report(
    view: &RegistrationView,
    instance: &Instance,
    why: &Why,
    now: Timestamp,
) -> WhyReport {
    let step = |step: &Step| StepReport {
        topic: step.topic,
        mark: match step.mark {
            Mark::Fine => "fine",
            Mark::Note => "note",
            Mark::Trouble => "trouble",
        },
        text: step.text.clone(),
    };
    let transition = |it: &Transition| TransitionReport {
        at: times::rfc3339(it.at),
        reason: it.reason.clone(),
        note: it.note.clone(),
        count: it.count,
    };
    WhyReport {
        registration: view.key.to_string(),
        instance: InstanceReport::of(instance, now),
        well: why.well,
        steps: why.steps.iter().map(step).collect(),
        leader: why.leader.explanation().cloned(),
        leader_not_asked: match &why.leader {
            Leader::Unasked(why) => Some(why.clone()),
            Leader::Explained(_) | Leader::NotWanted => None,
        },
        history: why.history.iter().map(transition).collect(),
        remedy: why.remedy.clone(),
    }
}
