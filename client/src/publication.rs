//! How the operator treats an instance, according to the status of the registration. Without I/O.
//!
//! An accepted beat only shows that the API server has stored it. Whether the instance is published is for
//! the operator to decide.

use std::{fmt, time::Duration};

use beatkeeper_api::{
    InstanceState, ServiceRegistration, ServiceRegistrationStatus, status::condition, text::plain,
};

/// The pause between the first beat and the first look. The pause doubles until the instance is known to be
/// published, up to the interval at which the registration is read again anyway.
pub const FIRST_READ: Duration = Duration::from_millis(250);

/// The state of an instance that a status does not list.
const UNLISTED: &str = "Unseen";

/// How the operator treats an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// The instance is in the Service's slices.
    Published {
        /// Ready, NotReady, Draining or Held.
        state: String,
        /// One word.
        reason: String,
        /// The details, if there are any.
        message: String,
    },
    /// The instance is not in the Service's slices.
    NotPublished {
        /// Waiting, Cordoned, Expired, Rejected, or Unseen if the status does not list the instance.
        state: String,
        /// One word.
        reason: String,
        /// Why, and what to do.
        message: String,
    },
    /// The registration as a whole is stalled, until a person changes something.
    Stalled {
        /// One word.
        reason: String,
        /// Why, and what to do.
        message: String,
    },
}

impl Publication {
    /// Reads from a registration how the operator treats an instance. `None`: the status does not tell, because there
    /// are more instances than it lists.
    pub fn of(registration: &ServiceRegistration, instance: &str) -> Option<Self> {
        let unseen = || {
            Self::NotPublished {
            state: UNLISTED.to_owned(),
            reason: "NotListed".to_owned(),
            message: "the registration's status does not list it: look whether an operator runs for this \
                      namespace"
                .to_owned(),
        }
        };
        let Some(status) = &registration.status else { return Some(unseen()) };
        if let Some(stalled) = stalled(status) {
            return Some(stalled);
        }
        let Some(listed) = status.instances.iter().find(|one| one.name == instance) else {
            let all =
                usize::try_from(status.total).is_ok_and(|total| total <= status.instances.len());
            return all.then(unseen);
        };
        let state = InstanceState::ALL.into_iter().find(|state| state.as_str() == listed.state)?;
        let (state, reason) = (state.as_str().to_owned(), plain(&listed.reason).into_owned());
        let message = plain(&listed.message).into_owned();
        let published =
            InstanceState::ALL.into_iter().any(|one| one.as_str() == state && one.is_published());
        Some(match published {
            true => Self::Published { state, reason, message },
            false => Self::NotPublished { state, reason, message },
        })
    }

    /// Whether the instance is in the Service's slices.
    pub fn is_published(&self) -> bool {
        matches!(self, Self::Published { .. })
    }

    fn is_unlisted(&self) -> bool {
        matches!(self, Self::NotPublished { state, .. } if state == UNLISTED)
    }

    /// Whether the other one is worth reporting after this one. A difference of the message alone is
    /// not.
    pub fn differs(&self, other: &Self) -> bool {
        let health_report = |publication: &Self| match publication {
            Self::Published { state, .. } => (0, state.clone()),
            Self::NotPublished { state, reason, .. } => (1, format!("{state} {reason}")),
            Self::Stalled { reason, .. } => (2, reason.clone()),
        };
        health_report(self) != health_report(other)
    }
}

fn stalled(status: &ServiceRegistrationStatus) -> Option<Publication> {
    let is_it = |type_: &str| type_ == condition::STALLED;
    let stalled = status.conditions.iter().find(|one| is_it(&one.type_) && one.status == "True")?;
    Some(Publication::Stalled {
        reason: plain(&stalled.reason).into_owned(),
        message: plain(&stalled.message).into_owned(),
    })
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lead, reason, message) = match self {
            Self::Published { state, reason, message } => {
                // For an instance that serves, the state alone is reported.
                let plainly = state == InstanceState::Ready.as_str();
                let lead = format!("published as {}", state.to_lowercase());
                (
                    lead,
                    if plainly { "" } else { reason.as_str() },
                    if plainly { "" } else { message.as_str() },
                )
            }
            Self::NotPublished { state, reason, message } => {
                (format!("not published: {state}"), reason.as_str(), message.as_str())
            }
            Self::Stalled { reason, message } => {
                ("the registration is stalled:".to_owned(), reason.as_str(), message.as_str())
            }
        };
        f.write_str(&lead)?;
        if !reason.is_empty() {
            write!(f, " {reason}")?;
        }
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

/// Turns successive reads of the status into the changes that are worth reporting.
#[derive(Debug, Default)]
pub struct PublicationTracker {
    reported: Option<Publication>,
    doubt: Option<(Publication, u32)>,
}

/// How many looks in a row have to find that an instance is not published: a status is written after the
/// slices, and may still describe an earlier process.
const READS: u32 = 2;
/// How many looks in a row have to find that an instance is not listed: an operator may just be starting.
const READS_UNLISTED: u32 = 5;

impl PublicationTracker {
    /// Takes one read of the registration, and returns a change that is worth reporting. That an instance is
    /// not published counts only when several looks in a row find so.
    pub fn update(&mut self, seen: Option<Publication>) -> Option<Publication> {
        let seen = seen?;
        let before = self.doubt.take();
        if !seen.is_published() {
            let same = before.filter(|(doubt, _)| !doubt.differs(&seen));
            let count = same.map_or(0, |(_, count)| count).saturating_add(1);
            self.doubt = Some((seen.clone(), count));
            if count < if seen.is_unlisted() { READS_UNLISTED } else { READS } {
                return None;
            }
        }
        let news = self.reported.as_ref().is_none_or(|reported| reported.differs(&seen));
        news.then(|| self.reported.insert(seen).clone())
    }

    /// Whether the instance is known to be published.
    pub fn is_published(&self) -> bool {
        self.reported.as_ref().is_some_and(Publication::is_published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_api::{InstanceStatus, ServiceRegistrationSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    fn registration(total: i32, instances: &[(&str, &str, &str)]) -> ServiceRegistration {
        let listed = |(name, state, reason): &(&str, &str, &str)| InstanceStatus {
            name: (*name).to_owned(),
            state: (*state).to_owned(),
            reason: (*reason).to_owned(),
            message: "a\nb".to_owned(),
            ..InstanceStatus::default()
        };
        let mut registration =
            ServiceRegistration::new("greeter", ServiceRegistrationSpec::default());
        registration.status = Some(ServiceRegistrationStatus {
            total,
            instances: instances.iter().map(listed).collect(),
            ..ServiceRegistrationStatus::default()
        });
        registration
    }

    fn reported(registration: &ServiceRegistration) -> Option<String> {
        Publication::of(registration, "vm-1").map(|publication| publication.to_string())
    }

    #[test]
    fn what_becomes_of_an_instance_is_one_line_with_the_reason() {
        for (state, reason, line) in [
            ("Ready", "Beating", "published as ready"),
            ("Held", "PathUnproven", "published as held PathUnproven: a\\nb"),
            ("NotReady", "HealthFailing", "published as notready HealthFailing: a\\nb"),
            ("Rejected", "AddressRefused", "not published: Rejected AddressRefused: a\\nb"),
            ("Cordoned", "Cordoned", "not published: Cordoned Cordoned: a\\nb"),
        ] {
            let registration = registration(1, &[("vm-1", state, reason)]);
            assert_eq!(reported(&registration).as_deref(), Some(line));
        }
    }

    #[test]
    fn one_that_is_not_listed_is_unseen_unless_the_list_is_cut() {
        let unseen = reported(&registration(1, &[("vm-2", "Ready", "Beating")])).expect("told");
        assert!(unseen.starts_with("not published: Unseen NotListed: "), "{unseen}");
        assert_eq!(reported(&registration(300, &[("vm-2", "Ready", "Beating")])), None);
        let mut fresh = registration(0, &[]);
        fresh.status = None;
        assert_eq!(reported(&fresh), Some(unseen));
    }

    #[test]
    fn a_stall_is_told_before_anything_else() {
        let mut registration = registration(1, &[("vm-1", "Ready", "Beating")]);
        let status = registration.status.as_mut().expect("a status");
        status.conditions = vec![Condition {
            type_: "Stalled".to_owned(),
            status: "True".to_owned(),
            reason: "ServiceHasSelector".to_owned(),
            message: "remove it".to_owned(),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }];
        assert_eq!(
            reported(&registration).as_deref(),
            Some("the registration is stalled: ServiceHasSelector: remove it")
        );
    }

    #[test]
    fn only_what_lasts_and_is_news_is_told() {
        let of = |state: &str, reason: &str| {
            Publication::of(&registration(1, &[("vm-1", state, reason)]), "vm-1")
        };
        let mut reads = PublicationTracker::default();
        assert_eq!(reads.update(of("Expired", "TTLPassed")), None, "of an earlier life");
        assert_eq!(reads.update(of("Ready", "Beating")), of("Ready", "Beating"));
        assert!(reads.is_published());
        assert_eq!(reads.update(of("Ready", "BeatOverdue")), None);
        assert_eq!(reads.update(None), None);
        assert_eq!(reads.update(of("Rejected", "AddressRefused")), None);
        assert_eq!(
            reads.update(of("Rejected", "AddressRefused")),
            of("Rejected", "AddressRefused")
        );
        assert_eq!(reads.update(of("Rejected", "AddressRefused")), None);
        assert!(!reads.is_published());
    }
}
