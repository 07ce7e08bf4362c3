//! The tree of a registration: its findings, its instances, and what is published of it.

use beatkeeper_api::duration;
use jiff::Timestamp;

use super::{
    bar, shape,
    text::{Line, Style, wrap},
};
use crate::model::{
    counts::Counts,
    finding::Finding,
    instance::{InPod, Instance},
    kind::Kind,
    publication::{EndpointCount, PublishedEndpoints, PublishedService, PublishedSlice},
    registration::{Picture, RegistrationView, Unread},
};
use crate::times;

/// How a tree is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether all columns are shown.
    pub wide: bool,
    /// How wide a finding may be, in characters.
    pub width: usize,
    /// Whether only registrations and instances are shown that need a person.
    pub troubled: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { wide: false, width: 100, troubled: false }
    }
}

/// A line of the tree. Those of instances are drawn when they are seen: there may be thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A line that does not depend on the time.
    Fixed(Line),
    /// An instance, by the places of its registration and of itself in the picture.
    Instance {
        /// The place of the registration.
        registration: usize,
        /// The place of the instance in it.
        instance: usize,
    },
}

/// The rows of a picture, with what is needed to draw them.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// The rows from top to bottom.
    pub rows: Vec<Row>,
    columns: Vec<Columns>,
    wide: bool,
}

impl Rows {
    /// Lays the rows out: registrations with problems first.
    pub fn of(picture: &Picture, look: Look) -> Self {
        let mut rows = Self { wide: look.wide, ..Self::default() };
        rows.columns = picture.registrations.iter().map(|it| Columns::of(it, look)).collect();
        if let Some(summary) = summary(&picture.registrations) {
            rows.rows.extend([Row::Fixed(summary), Row::Fixed(Line::new())]);
        }
        let mut order: Vec<usize> = (0..picture.registrations.len()).collect();
        order.retain(|place| !look.troubled || !picture.registrations[*place].is_well());
        order.sort_by_key(|place| std::cmp::Reverse(picture.registrations[*place].severity()));
        for (n, place) in order.into_iter().enumerate() {
            if n > 0 {
                rows.rows.push(Row::Fixed(Line::new()));
            }
            rows.registration(place, picture, look);
        }
        rows.rows.extend(unread(&picture.unread, look.width).into_iter().map(Row::Fixed));
        rows
    }

    fn registration(&mut self, place: usize, picture: &Picture, look: Look) {
        let view = &picture.registrations[place];
        self.rows.extend(head(view, picture, look).into_iter().map(Row::Fixed));
        if !view.instances.is_empty() {
            self.rows.push(Row::Fixed(self.columns[place].heading(view)));
        }
        let mut order: Vec<usize> = (0..view.instances.len()).collect();
        order.retain(|it| !look.troubled || view.instances[*it].is_troubled());
        // A stable sort: those of one rank stay in the order of their names.
        order.sort_by_key(|it| view.instances[*it].rank());
        let rows =
            order.into_iter().map(|instance| Row::Instance { registration: place, instance });
        self.rows.extend(rows);
        self.rows.extend(published(view, picture).into_iter().map(Row::Fixed));
    }

    /// Draws a row.
    pub fn draw(&self, row: &Row, picture: &Picture, now: Timestamp) -> Line {
        match row {
            Row::Fixed(line) => line.clone(),
            Row::Instance { registration, instance } => {
                let view = &picture.registrations[*registration];
                let columns = &self.columns[*registration];
                columns.instance(&view.instances[*instance], view, self.wide, now)
            }
        }
    }

    /// Draws all rows.
    pub fn lines(&self, picture: &Picture, now: Timestamp) -> Vec<Line> {
        self.rows.iter().map(|row| self.draw(row, picture, now)).collect()
    }
}

/// One line about several registrations; none if there is only one.
fn summary(registrations: &[RegistrationView]) -> Option<Line> {
    let all = registrations.len();
    if all < 2 {
        return None;
    }
    let line = match registrations.iter().filter(|it| !it.is_well()).count() {
        0 => Line::of(format!("✓ all {all} registrations are well"), Style::Good),
        bad => Line::of(format!("! {bad} of {all} registrations need attention"), Style::Warning),
    };
    Some(line)
}

/// The lines above the instances.
fn head(view: &RegistrationView, picture: &Picture, look: Look) -> Vec<Line> {
    let (sign, style) = shape::of_severity(view.severity());
    let counted = match picture.has_read(Kind::Lease) {
        true => counts(&view.counts()),
        false => "its instances are not known".to_owned(),
    };
    let mut lines = vec![
        Line::of(format!("{sign} {}: {counted}", view.key), style),
        Line::of(settings(view), Style::Faint),
    ];
    for finding in &view.findings {
        lines.extend(self::finding(finding, look.width));
    }
    lines
}

/// How many instances are ready, and how many are in each other state.
pub fn counts(counts: &Counts) -> String {
    let ready = counts.of_state(beatkeeper_api::InstanceState::Ready);
    let mut text = match counts.total() {
        0 => "no instances".to_owned(),
        1 => format!("{ready} of 1 instance ready"),
        total => format!("{ready} of {total} instances ready"),
    };
    for (state, count) in counts.others() {
        text.push_str(&format!(", {count} {}", words(state)));
    }
    text
}

/// A state in words.
pub fn words(state: beatkeeper_api::InstanceState) -> &'static str {
    use beatkeeper_api::InstanceState as State;
    match state {
        State::Ready => "ready",
        State::NotReady => "not ready",
        State::Draining => "draining",
        State::Waiting => "waiting",
        State::Cordoned => "cordoned",
        State::Expired => "expired",
        State::Held => "held",
        State::Rejected => "rejected",
    }
}

fn settings(view: &RegistrationView) -> String {
    let mut text = format!(
        "  Service {}, ttl {}, interval {}, status {}",
        view.service_name,
        duration::format(view.ttl),
        duration::format(view.interval),
        view.reported.reason(),
    );
    if let Some(former) = view.former_ttl {
        text.push_str(&format!(", former ttl {}", duration::format(former)));
    }
    if view.min_ready > 0 {
        text.push_str(&format!(", minReady {}", view.min_ready));
    }
    text
}

/// A finding, with what to do on a line of its own.
pub fn finding(finding: &Finding, width: usize) -> Vec<Line> {
    let (sign, style) = shape::of_severity(Some(finding.severity));
    let room = width.saturating_sub(4).max(20);
    let mut lines = Vec::new();
    for (n, text) in wrap(&finding.what, room).into_iter().enumerate() {
        let lead = if n == 0 { format!("  {sign} ") } else { "    ".to_owned() };
        lines.push(Line::of(lead, style).with(text, style));
    }
    if !finding.remedy.is_empty() {
        for (n, text) in wrap(&finding.remedy, room.saturating_sub(2)).into_iter().enumerate() {
            let lead = if n == 0 { "    → " } else { "      " };
            lines.push(Line::of(lead, Style::Normal).and(text));
        }
    }
    lines
}

/// The widths of the columns of a registration's instances.
#[derive(Debug, Clone, Default)]
struct Columns {
    state: usize,
    name: usize,
    addresses: usize,
    zone: usize,
    pod: usize,
    version: usize,
}

/// The width of the bar and of the time behind it.
const BEAT: usize = bar::CELLS + 2 + 1 + 6;

/// What stands there if the Lease says nothing of the beats. It is no longer than that.
const THROUGH_GATEWAY: &str = "through a gateway";

impl Columns {
    fn of(view: &RegistrationView, look: Look) -> Self {
        let mut columns = Self { state: 8, name: 8, addresses: 7, ..Self::default() };
        for instance in &view.instances {
            let wider = |width: &mut usize, text: usize| *width = (*width).max(text);
            wider(&mut columns.name, instance.name.chars().count());
            wider(&mut columns.addresses, addresses(instance).chars().count());
            if let Some(zone) = &instance.zone {
                wider(&mut columns.zone, zone.chars().count().max(4));
            }
            if look.wide {
                if let Some(pod) = &instance.pod {
                    wider(&mut columns.pod, node(pod).chars().count().max(4));
                }
                if let Some(version) = &instance.version {
                    wider(&mut columns.version, version.chars().count().max(7));
                }
            }
        }
        columns
    }

    fn heading(&self, view: &RegistrationView) -> Line {
        let beat = format!("LAST BEAT OF {}", duration::format(view.longest_ttl()));
        Line::of("       ", Style::Faint)
            .cell("STATE", self.state, Style::Faint)
            .cell("INSTANCE", self.name, Style::Faint)
            .cell(&beat, BEAT, Style::Faint)
            .cell("ADDRESS", self.addresses, Style::Faint)
            .cell("ZONE", self.zone, Style::Faint)
            .cell("NODE", self.pod, Style::Faint)
            .cell("VERSION", self.version, Style::Faint)
            .with("WHY", Style::Faint)
    }

    fn instance(&self, it: &Instance, view: &RegistrationView, wide: bool, now: Timestamp) -> Line {
        let (sign, style) = shape::of_state(it.state);
        let late = if it.is_troubled() { style } else { Style::Normal };
        let line = Line::of("  ├─ ", Style::Faint);
        line.with(format!("{sign} "), style)
            .cell(it.state.as_str(), self.state, style)
            .cell(&it.name, self.name, Style::Strong)
            .cell(&beat(it, view, now), BEAT, late)
            .cell(&addresses(it), self.addresses, Style::Normal)
            .cell(it.zone.as_deref().unwrap_or_default(), self.zone, Style::Normal)
            .cell(&it.pod.as_ref().map(node).unwrap_or_default(), self.pod, Style::Normal)
            .cell(it.version.as_deref().unwrap_or_default(), self.version, Style::Normal)
            .with(why(it, wide), late)
    }
}

fn beat(instance: &Instance, view: &RegistrationView, now: Timestamp) -> String {
    if instance.is_carried(now) {
        return if instance.state.is_published() { THROUGH_GATEWAY } else { "-" }.to_owned();
    }
    let silent = instance.silent(now);
    let bar = bar::bar(silent, view.longest_ttl());
    silent.map_or_else(|| format!("{bar} never"), |silent| format!("{bar} {}", times::span(silent)))
}

fn addresses(instance: &Instance) -> String {
    if instance.addresses.is_empty() { "-".to_owned() } else { instance.addresses.join(",") }
}

fn node(pod: &InPod) -> String {
    let node = pod.found.as_ref().and_then(|found| found.node.as_deref());
    node.unwrap_or("-").to_owned()
}

/// Why it is in its state. The usual reason is left out, unless all is to be shown.
fn why(instance: &Instance, wide: bool) -> String {
    match (wide, &*instance.reason) {
        (false, "Beating") => String::new(),
        (false, reason) => reason.to_owned(),
        (true, reason) if instance.message.is_empty() => reason.to_owned(),
        (true, reason) => format!("{reason}: {}", instance.message),
    }
}

/// The lines below the instances. What could not be read has none.
fn published(view: &RegistrationView, picture: &Picture) -> Vec<Line> {
    let mut lines: Vec<Line> = view.service.iter().map(service).collect();
    if view.service.is_none() && picture.has_read(Kind::Service) {
        let text = format!("Service {}: not found", view.service_name);
        lines.push(Line::of(text, Style::Warning));
    }
    lines.extend(view.slices.iter().map(slice));
    if view.slices.is_empty() && picture.has_read(Kind::EndpointSlice) {
        lines.push(Line::of("EndpointSlice: none", Style::Normal));
    }
    lines.extend(view.endpoints.iter().map(endpoints));
    let last = lines.len().saturating_sub(1);
    let branch = |(n, line): (usize, Line)| {
        let lead = if n == last { "  └─ " } else { "  ├─ " };
        let mut whole = Line::of(lead, Style::Faint);
        whole.spans.extend(line.spans);
        whole
    };
    lines.into_iter().enumerate().map(branch).collect()
}

fn service(service: &PublishedService) -> Line {
    let mut text = format!(", {}", service.kind);
    match service.cluster_ips.as_slice() {
        [] if service.kind == "ClusterIP" => text.push_str(", headless"),
        ips => ips.iter().for_each(|ip| text.push_str(&format!(" {ip}"))),
    }
    if !service.ports.is_empty() {
        text.push_str(&format!(", {}", service.ports.join(", ")));
    }
    let line =
        Line::of("Service ", Style::Normal).with(service.name.clone(), Style::Strong).and(text);
    if service.selects { line.with(", with a selector", Style::Warning) } else { line }
}

fn slice(slice: &PublishedSlice) -> Line {
    let mut text = format!(", {}", slice.family);
    if !slice.ports.is_empty() {
        text.push_str(&format!(" {}", slice.ports.join(", ")));
    }
    text.push_str(&format!(": {}", endpoint_count(slice.count)));
    let line =
        Line::of("EndpointSlice ", Style::Normal).with(slice.name.clone(), Style::Strong).and(text);
    match &slice.foreign_manager {
        None => line,
        Some(manager) => line.with(format!(", managed by {manager}"), Style::Warning),
    }
}

fn endpoints(endpoints: &PublishedEndpoints) -> Line {
    let text = format!(": {}", endpoint_count(endpoints.count));
    let line =
        Line::of("Endpoints ", Style::Normal).with(endpoints.name.clone(), Style::Strong).and(text);
    let line = if endpoints.truncated { line.and(", truncated") } else { line };
    if endpoints.ours { line } else { line.with(", not managed by Beatkeeper", Style::Warning) }
}

fn endpoint_count(count: EndpointCount) -> String {
    let EndpointCount { ready, not_ready, draining } = count;
    let mut text = format!("{ready} ready");
    for (count, word) in [(not_ready, "not ready"), (draining, "draining")] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

/// What could not be read.
pub fn unread(unread: &[Unread], width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for Unread { what, why } in unread {
        let text =
            format!("? {what} could not be read, and what depends on it is missing above: {why}");
        let wrapped = wrap(&text, width);
        lines.extend(wrapped.into_iter().map(|text| Line::of(text, Style::Warning)));
    }
    lines
}
