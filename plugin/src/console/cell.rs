//! What the page is told of one instance.

use jiff::Timestamp;
use serde::Serialize;

use crate::model::instance::Instance;

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/console.md and docs/kubectl.md describe the fields")]
pub struct Cell {
    pub name: String,
    pub state: &'static str,
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub judged_by: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// The last beat. It changes without the cell being told again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beat: Option<i64>,
}

impl Cell {
    /// What is told of an instance.
    pub fn of(instance: &Instance) -> Self {
        Self {
            name: instance.name.clone(),
            state: instance.state.as_str(),
            reason: instance.reason.to_string(),
            message: instance.message.clone(),
            judged_by: instance.judged.as_str(),
            addresses: instance.addresses.clone(),
            zone: instance.zone.clone(),
            version: instance.version.clone(),
            since: instance.since.map(Timestamp::as_millisecond),
            beat: beat(instance),
        }
    }
}

/// When an instance beat last.
pub fn beat(instance: &Instance) -> Option<i64> {
    instance.beat.map(|beat| beat.at.as_millisecond())
}
