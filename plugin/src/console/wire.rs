//! What the page is told. The page only draws it; it judges nothing.

use std::time::Duration;

use beatkeeper_api::duration;
use serde::Serialize;

use super::{cell::Cell, operator::OperatorReport, timeline::Mark};
use crate::{
    model::registration::RegistrationView,
    render::document::{FindingReport, UnreadReport},
};

/// A message to the page. Moments are milliseconds since 1970 by the clock of the API server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Message {
    /// What does not change. The first message of each connection; all that was told before counts no more.
    /// `shared` says whether readers bring a token each, and choose the namespace.
    Hello { version: &'static str, context: Option<String>, scope: String, shared: bool, now: i64 },
    /// A registration that is new, or whose instances have other names than before.
    Registration { key: String, row: Row, cells: Vec<Cell> },
    /// A registration that has changed, and those of its instances that have, by their places.
    Changed { key: String, row: Row, cells: Vec<(usize, Cell)> },
    /// A registration that is gone.
    Gone { key: String },
    /// The beats since the last message: for each registration the places of instances, and when they beat.
    /// It is sent at least once a second, so that the page notices when nothing comes any more.
    Beats { now: i64, beats: Vec<(String, Vec<(usize, i64)>)> },
    /// What has happened to instances of a registration.
    Marks { key: String, marks: Vec<Mark> },
    /// What is known of the operator.
    Operator(OperatorReport),
    /// Nothing follows, and asking again would change nothing.
    End { why: String },
    /// What could not be read, and which watches fail.
    Health { complete: bool, unread: Vec<UnreadReport>, failing: Vec<UnreadReport> },
}

/// A registration, without its instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/console.md and docs/kubectl.md describe the fields")]
pub struct Row {
    pub namespace: String,
    pub name: String,
    pub service_name: String,
    pub ttl: String,
    pub ttl_millis: u64,
    pub interval: String,
    /// How long after its last beat the Lease of an instance says nothing any more of its beats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carried_after_millis: Option<u64>,
    pub status: String,
    pub severity: Option<&'static str>,
    pub dry_run: bool,
    /// The states that instances have, and how many have each; Ready first.
    pub counts: Vec<(&'static str, usize)>,
    pub total: usize,
    pub findings: Vec<FindingReport>,
    /// What is published, in words.
    pub published: String,
}

impl Row {
    /// What is told of a registration.
    pub fn of(view: &RegistrationView) -> Self {
        let counts = view.counts();
        let ready = beatkeeper_api::InstanceState::Ready;
        let counted = [(ready, counts.of_state(ready))].into_iter().chain(counts.others());
        Self {
            namespace: view.key.namespace.clone(),
            name: view.key.name.clone(),
            service_name: view.service_name.clone(),
            ttl: duration::format(view.ttl),
            ttl_millis: millis(view.longest_ttl()),
            interval: duration::format(view.interval),
            carried_after_millis: view.carried_after().map(millis),
            status: view.reported.reason().to_owned(),
            severity: view.severity().map(crate::model::finding::Severity::as_str),
            dry_run: view.is_dry_run(),
            counts: counted.map(|(state, count)| (state.as_str(), count)).collect(),
            total: counts.total(),
            findings: view.findings.iter().map(FindingReport::of).collect(),
            published: published(view),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The Service and its slices in a few words.
fn published(view: &RegistrationView) -> String {
    let service = &view.service_name;
    if view.service.is_none() {
        return format!("no Service {service}");
    }
    let own = view.slices.iter().filter(|slice| slice.foreign_manager.is_none());
    let (slices, ready) = own.fold((0, 0), |(n, ready), it| (n + 1, ready + it.count.ready));
    let s = if slices == 1 { "" } else { "s" };
    format!("Service {service}, {slices} slice{s}: {ready} ready")
}
