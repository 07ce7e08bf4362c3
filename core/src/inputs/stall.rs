//! Why a registration may not publish.

use std::fmt::Display;

use crate::{
    objects::{decode::Unreadable, registration::Registration},
    vocabulary::reason::ConditionReason,
};

/// Why nothing may be added. Instances that are already published stay until they die. A stalled registration must
/// still prune dead instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The reason, as one word.
    pub reason: ConditionReason,
    /// What is wrong, and what the user should do.
    pub message: String,
}

/// The other objects with which a registration may conflict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConflictingObjects {
    /// An older registration for the same Service.
    pub elder: Option<String>,
    /// A slice of the Service that another program manages, and the name of that program.
    pub foreign_slice: Option<(String, String)>,
    /// Whether the Endpoints object of the Service has another owner.
    pub foreign_endpoints: bool,
    /// Whether Kubernetes' own controllers made all foreign objects, for a selector of the Service.
    pub left_by_cluster: bool,
    /// An object that cannot be read. While there is one, nothing may be written or decided.
    pub unreadable: Option<Unreadable>,
}

impl Stall {
    /// The annotation asks for an adoption that is refused.
    pub fn adoption_refused(refusal: &impl Display) -> Self {
        Self { reason: ConditionReason::AdoptionRefused, message: refusal.to_string() }
    }

    /// The selector of the Service has just been removed.
    pub fn letting_go(registration: &Registration) -> Self {
        let message = format!(
            "the selector of Service {} has just been removed; what the cluster's own controllers left \
             is taken over in a moment",
            registration.service_name
        );
        Self { reason: ConditionReason::ServedByOthers, message }
    }

    /// A relevant object cannot be read. Then nothing is written, not even removals.
    pub fn unreadable(object: &Unreadable) -> Self {
        let message = format!(
            "{object}; until it can be read nothing is added, changed or removed here: mend or delete it"
        );
        Self { reason: ConditionReason::ObjectUnreadable, message }
    }

    /// Whether nothing may be changed, not even dead instances removed.
    pub fn is_blind(&self) -> bool {
        self.reason == ConditionReason::ObjectUnreadable
    }

    /// An adoption could not be completed yet.
    pub fn adoption_unfinished(error: &str) -> Self {
        let message = format!("not all is taken over yet, and it is tried again: {error}");
        Self { reason: ConditionReason::AdoptionUnfinished, message }
    }
}
