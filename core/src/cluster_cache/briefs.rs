//! The briefs of the known registrations, and the indexes to find them by.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    objects::{consent::Consent, labels::LabelMatch},
    vocabulary::{
        key::{Key, in_namespace},
        pace::Pace,
    },
};

/// What the rest of the operator needs to know about a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    pub(super) service: String,
    pub(super) uid: String,
    pub(super) created: Option<Timestamp>,
    pub(super) pace: Pace,
    /// Together with the following fields, this distinguishes a change of the status alone from one that needs a
    /// reaction.
    pub(super) generation: Option<i64>,
    pub(super) deleting: bool,
    /// A changed annotation does not increase the generation.
    pub(super) dry_run: bool,
    pub(super) consent: Consent,
    pub(super) uncordon: Vec<String>,
    /// Which Pods are to be published. None if the selector accepts every Pod.
    pub(super) selector: Option<LabelMatch>,
}

/// All registrations.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    /// In order, so that the registrations of a namespace are adjacent.
    pub(super) briefs: BTreeMap<Key, Brief>,
    /// The names of the registrations of each Service.
    pub(super) by_service: HashMap<Key, BTreeSet<String>>,
    /// The registrations in the order of their slack.
    pub(super) by_slack: BTreeSet<(Duration, Key)>,
    /// How many briefs were looked at.
    #[cfg(test)]
    pub(super) steps: std::cell::Cell<usize>,
}

impl Registrations {
    pub(super) fn get(&self, key: &Key) -> Option<&Brief> {
        self.briefs.get(key)
    }

    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Key, &Brief)> {
        let all = in_namespace(&self.briefs, namespace);
        #[cfg(test)]
        let all = all.inspect(|_| self.steps.update(|steps| steps + 1));
        all
    }

    /// Whether any registration names this Service.
    pub(super) fn name_service(&self, service: &Key) -> bool {
        self.by_service.contains_key(service)
    }

    /// Whether a registration with this name and uid exists.
    pub(super) fn live(&self, key: &Key, uid: &str) -> bool {
        self.get(key).is_some_and(|brief| brief.uid == uid)
    }
}
