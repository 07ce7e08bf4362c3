//! A registration with all its instances and all that is published of it.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::{Carrier, status::condition};
use beatkeeper_core::vocabulary::{key::Key, reason::ConditionReason};
use jiff::Timestamp;

use super::{
    counts::Counts,
    finding::{Finding, Severity},
    instance::Instance,
    kind::Kind,
    publication::{PublishedEndpoints, PublishedService, PublishedSlice},
};

/// A condition of the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionView {
    /// Its type, such as Ready.
    pub type_: String,
    /// Whether it is True.
    pub holds: bool,
    /// Its reason, as one word.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Since when it has this status.
    pub since: Timestamp,
}

/// What the operator has last reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// Whether it has reported anything.
    pub any: bool,
    /// Whether that is about the present spec.
    pub current: bool,
    /// The conditions.
    pub conditions: Vec<ConditionView>,
    /// How many instances it knows.
    pub total: usize,
    /// When an instance last changed its state.
    pub last_change: Option<Timestamp>,
}

impl Reported {
    /// A condition by its type.
    pub fn condition(&self, type_: &str) -> Option<&ConditionView> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether a condition is present and True.
    pub fn is(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.holds)
    }

    /// The condition Ready if an operator says there why not everything is published. In a dry run it may be True.
    pub fn unpublished(&self) -> Option<&ConditionView> {
        self.condition(condition::READY).filter(|ready| self.any && !publishes(ready))
    }

    /// Whether everything is published as decided.
    pub fn is_published(&self) -> bool {
        self.condition(condition::READY).is_some_and(publishes)
    }

    /// The reason of the condition Ready, which kubectl shows as STATUS.
    pub fn reason(&self) -> &str {
        self.condition(condition::READY).map_or("not reported", |ready| &ready.reason)
    }
}

/// Whether a condition Ready says that everything is published.
fn publishes(ready: &ConditionView) -> bool {
    ready.holds && ready.reason != ConditionReason::DryRun.as_str()
}

/// A kind of object that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unread {
    /// The kind, such as Pod; or the object, if it is only one.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationView {
    /// Namespace and name.
    pub key: Key,
    /// The name of its Service.
    pub service_name: String,
    /// How long an instance may be silent.
    pub ttl: Duration,
    /// A longer ttl that some instances still have.
    pub former_ttl: Option<Duration>,
    /// How often an instance beats.
    pub interval: Duration,
    /// The way of the beats.
    pub carrier: Carrier,
    /// How many ready instances are protected.
    pub min_ready: usize,
    /// Whether only this registration is in a dry run, by its annotation.
    pub dry_run: bool,
    /// The finalizers that its deletion waits for, if it is being deleted.
    pub ending: Option<Vec<String>>,
    /// Errors in the spec.
    pub problems: Vec<String>,
    /// What the operator has last reported.
    pub reported: Reported,
    /// The instances, ordered by name.
    pub instances: Vec<Instance>,
    /// Its Service, if there is one.
    pub service: Option<PublishedService>,
    /// The slices of the Service, those of Beatkeeper first.
    pub slices: Vec<PublishedSlice>,
    /// The Endpoints of the Service.
    pub endpoints: Option<PublishedEndpoints>,
    /// Addresses in the slices of Beatkeeper that belong to no known instance.
    pub orphans: BTreeSet<String>,
    /// What a person should know, the worst first.
    pub findings: Vec<Finding>,
}

impl RegistrationView {
    /// Whether nothing is published because of a dry run, of this registration or of the operator.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run || self.reported.reason() == "DryRun"
    }

    /// How many instances are in each state.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.instances)
    }

    /// How bad the worst finding is.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Whether nothing about it needs a person.
    pub fn is_well(&self) -> bool {
        self.severity().is_none_or(|severity| severity == Severity::Note)
    }

    /// The ttl that an instance may have at most.
    pub fn longest_ttl(&self) -> Duration {
        self.former_ttl.map_or(self.ttl, |former| former.max(self.ttl))
    }

    /// How long after its last beat an instance counts as overdue.
    pub fn overdue_after(&self) -> Duration {
        self.interval + self.ttl.saturating_sub(self.interval) / 2
    }

    /// How long after a renewal the Lease of an instance says nothing any more of its beats: they may go through a
    /// gateway then. `None` if beats renew the Lease.
    pub fn carried_after(&self) -> Option<Duration> {
        (self.carrier == Carrier::Gateway).then(|| self.overdue_after())
    }

    /// An instance by its name.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        let place = self.instances.binary_search_by(|it| it.name.as_str().cmp(name)).ok()?;
        self.instances.get(place)
    }

    /// An instance by its name, to be changed. Its name must stay.
    pub fn instance_mut(&mut self, name: &str) -> Option<&mut Instance> {
        let place = self.instances.binary_search_by(|it| it.name.as_str().cmp(name)).ok()?;
        self.instances.get_mut(place)
    }
}

/// What could not be read, and all registrations that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// The registrations, ordered by namespace and name.
    pub registrations: Vec<RegistrationView>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Picture {
    /// Whether all objects of a kind were read.
    pub fn has_read(&self, kind: Kind) -> bool {
        !self.unread.iter().any(|unread| unread.what == kind.as_str())
    }
}
