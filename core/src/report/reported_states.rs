//! What was last reported of each instance.

use beatkeeper_api::InstanceState;

use super::summary::SummaryLine;
use crate::vocabulary::instance::InstanceName;

/// What is stored of the instances between two decisions, to detect transitions: the state of each name, and whether
/// several processes claim the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedStates(pub(super) Vec<Told>);

/// Name, state, and whether the name is contested.
pub(super) type Told = (InstanceName, InstanceState, bool);

impl ReportedStates {
    pub(super) fn new(mut states: Vec<Told>) -> Self {
        states.sort_by(|a, b| a.0.cmp(&b.0));
        states.dedup_by(|later, first| later.0 == first.0);
        Self(states)
    }

    /// The states of these lines.
    pub fn of(lines: &[SummaryLine]) -> Self {
        let told = |line: &SummaryLine| (line.instance.clone(), line.state, line.rival.is_some());
        Self::new(lines.iter().map(told).collect())
    }

    /// The stored state of each instance, by name.
    pub(crate) fn faces(&self) -> impl Iterator<Item = (&InstanceName, Face)> {
        self.0.iter().map(|(name, state, contested)| (name, Face(*state, *contested)))
    }

    /// Adds the instances of `others` that are not known here.
    pub fn or(self, others: Self) -> Self {
        // If a name is there twice, the first entry stays.
        Self::new(self.0.into_iter().chain(others.0).collect())
    }
}

/// What events report of an instance: its state, and whether several processes claim its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face(pub InstanceState, pub bool);

impl Face {
    /// The face of a line.
    pub fn of(line: &SummaryLine) -> Self {
        Self(line.state, line.rival.is_some())
    }
}
