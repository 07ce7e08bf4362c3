//! One instance of a registration.

use std::{borrow::Cow, time::Duration};

use beatkeeper_api::InstanceState;
use jiff::Timestamp;

use super::beat::Beat;

/// Who says which state an instance has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgedBy {
    /// The operator, in the status of the registration.
    Operator,
    /// This program, from the Lease and the slices: the status lists at most 100 instances.
    Plugin,
}

impl JudgedBy {
    /// The word for it in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Plugin => "plugin",
        }
    }
}

/// How the operator's slices contain an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Published {
    /// Not at all.
    No,
    /// As not ready.
    NotReady,
    /// As serving and terminating.
    Draining,
    /// As ready.
    Ready,
}

impl Published {
    /// The word in JSON and YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::NotReady => "notReady",
            Self::Draining => "draining",
            Self::Ready => "ready",
        }
    }
}

/// The Pod of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPod {
    /// Its name.
    pub name: String,
    /// The uid that the Lease names.
    pub uid: String,
    /// The Pod of this name; `None` if there is none, or it was not read.
    pub found: Option<FoundPod>,
}

/// What is read of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPod {
    /// Its uid.
    pub uid: String,
    /// Its Node.
    pub node: Option<String>,
    /// Whether the registration selects it.
    pub selected: bool,
    /// Whether its kubelet and its readiness gates say that it is ready.
    pub ready: bool,
    /// Whether it has ended.
    pub terminal: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: InstanceState,
    /// The reason for the state, as one word.
    pub reason: Cow<'static, str>,
    /// The reason in words; may be empty.
    pub message: String,
    /// Who says so.
    pub judged: JudgedBy,
    /// When it entered the state.
    pub since: Option<Timestamp>,
    /// The last beat that renewed its Lease.
    pub beat: Option<Beat>,
    /// How long after that its Lease says nothing any more of its beats; `None` if beats renew the Lease.
    pub carried_after: Option<Duration>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its Pod, if it runs in one.
    pub pod: Option<InPod>,
    /// The name of its Lease, if it has one.
    pub lease: Option<String>,
    /// What it says about its health.
    pub note: Option<String>,
    /// The version of its app.
    pub version: Option<String>,
    /// How the operator's slices contain it.
    pub published: Published,
}

impl Instance {
    /// How long it has been silent; `None` if it has never beaten, and if its beats go through a gateway.
    pub fn silent(&self, now: Timestamp) -> Option<Duration> {
        self.since_renewal(now).filter(|it| !self.tells_nothing(*it))
    }

    /// Whether its beats go through a gateway, as far as can be seen: then only the leader knows of them. The Lease of
    /// such an instance stays as the first beat has left it.
    pub fn is_carried(&self, now: Timestamp) -> bool {
        self.since_renewal(now).is_some_and(|it| self.tells_nothing(it))
    }

    fn since_renewal(&self, now: Timestamp) -> Option<Duration> {
        let beat = self.beat?;
        Some(Duration::try_from(now.duration_since(beat.at)).unwrap_or(Duration::ZERO))
    }

    fn tells_nothing(&self, since_renewal: Duration) -> bool {
        self.carried_after.is_some_and(|after| since_renewal >= after)
    }

    /// Whether a person should look at it.
    pub fn is_troubled(&self) -> bool {
        match self.state {
            InstanceState::Ready => self.reason == "BeatOverdue",
            InstanceState::Draining => false,
            InstanceState::Waiting
            | InstanceState::NotReady
            | InstanceState::Cordoned
            | InstanceState::Expired
            | InstanceState::Held
            | InstanceState::Rejected => true,
        }
    }

    /// The order in which instances are shown: those that need a person first.
    pub fn rank(&self) -> u8 {
        match self.state {
            InstanceState::Expired => 0,
            InstanceState::Rejected => 1,
            InstanceState::Held => 2,
            InstanceState::NotReady => 3,
            InstanceState::Waiting => 4,
            InstanceState::Cordoned => 5,
            InstanceState::Ready if self.is_troubled() => 6,
            InstanceState::Draining => 7,
            InstanceState::Ready => 8,
        }
    }
}
