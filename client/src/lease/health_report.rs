//! What an instance reports about its health.

use beatkeeper_api::heartbeat::{self, Health};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

/// What an instance says about its health, with a note on the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// The health of the instance.
    pub health: Health,
    /// The reason; at most [`heartbeat::NOTE_MAX`] characters of it are shown.
    pub note: Option<String>,
    /// Whether no check has had a result yet. Until one has, the Lease keeps the health that an earlier
    /// process wrote a moment ago: a restart of the agent or the client says nothing about the health of the
    /// instance.
    pub provisional: bool,
}

impl HealthReport {
    /// Returns what an earlier process wrote into its Lease, if it still holds. `Draining` does not hold any
    /// more: it was about the end of that process.
    pub fn from_earlier_process(lease: &Lease) -> Option<Self> {
        let said = |name: &str| lease.metadata.annotations.as_ref()?.get(name);
        let health = match said(heartbeat::HEALTH_ANNOTATION) {
            None => Health::Passing,
            Some(text) => text.parse().ok().filter(|health| *health != Health::Draining)?,
        };
        Some(Self { health, note: said(heartbeat::NOTE_ANNOTATION).cloned(), provisional: false })
    }

    /// Returns what a Lease says. A value that names no health counts as `Failing`, because the operator publishes
    /// such an instance as not ready.
    pub fn on(lease: &Lease) -> Self {
        let said = |name: &str| lease.metadata.annotations.as_ref()?.get(name);
        let health = said(heartbeat::HEALTH_ANNOTATION);
        let health = health.map_or(Health::Passing, |text| text.parse().unwrap_or(Health::Failing));
        Self { health, note: said(heartbeat::NOTE_ANNOTATION).cloned(), provisional: false }
    }

    /// Whether the two reports are the same to readers.
    pub fn same_as(&self, other: &Self) -> bool {
        self.annotations() == other.annotations()
    }

    /// The report as annotations; an annotation that must be absent is `null`.
    pub fn annotations(&self) -> Value {
        let health = (self.health != Health::Passing).then(|| self.health.as_str());
        let note = self.note.as_ref();
        let note = note.map(|note| note.chars().take(heartbeat::NOTE_MAX).collect::<String>());
        json!({ heartbeat::HEALTH_ANNOTATION: health, heartbeat::NOTE_ANNOTATION: note })
    }
}
