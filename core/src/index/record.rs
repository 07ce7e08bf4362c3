//! What the liveness index keeps, takes in and gives out.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    heartbeat::{Claim, Heartbeat, Token, Version},
    moment::Moment,
    proven::Silence,
    rhythm::{Rhythm, Wanted},
};

/// Namespace and name, of a registration or of anything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// A key of these two.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How this controller came to know the token it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It was there when the controller started: whether anything beats is not known (L5).
    Inherited,
    /// It was there when the controller started, and published: it has one full ttl to beat (L5).
    Granted,
    /// It appeared with a beat that is older than itself: it was restored from a backup.
    Restored,
    /// It was seen to change, or to appear: something beats.
    Changed,
}

impl Sight {
    /// Whether anything beats is not known, nor whether it was published when it came to be known.
    pub fn awaits_beat(self) -> bool {
        matches!(self, Self::Inherited | Self::Restored)
    }
}

/// What an instance is granted that was known when the store went back to an earlier state, until it beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// Its silence counts from here.
    pub from: Moment,
    /// Whether it was published, as far as this process had decided.
    pub published: bool,
    /// Whether the history that goes on has shown its Lease.
    pub shown: bool,
}

/// Whether the watch still shows a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The watch shows it.
    Watched,
    /// The watch no longer shows it. It may be deleted, or have lost its label (L4): a live read
    /// decides.
    Missing,
    /// It exists without its label, so that its beats are seen by live reads only.
    Unlabelled,
}

/// What is known of one heartbeat Lease.
#[derive(Debug, Clone)]
pub struct Record {
    /// Name of the Lease.
    pub lease: Arc<str>,
    /// The token of life as last read.
    pub token: Token,
    /// The version it was read at.
    pub version: Version,
    /// When the token was last seen to change (L1).
    pub seen: Moment,
    /// For how long before that an earlier process had proven the silence (L5).
    pub silent_before: Duration,
    /// How the token came to be known.
    pub sight: Sight,
    /// Whether the watch shows the Lease.
    pub presence: Presence,
    /// The latest moment of which a live read proves that the token was still this one (L2).
    pub silent_at: Option<Moment>,
    /// Since when the instance is decided to be dead; only a new token revives it, no edit of ttl.
    pub expired_at: Option<Moment>,
    /// Set where the store went back to an earlier state since the last beat.
    pub grace: Option<Grace>,
    /// The rest of what the Lease says.
    pub claim: Arc<Claim>,
    /// Whether it was ever known where the instance is: then a Pod that is not there has gone, and is
    /// not one that never was.
    pub placed: bool,
    /// Whether the last decision was to publish it.
    pub published: bool,
    /// Whether only protection.minReady keeps it published, however long it is silent (L7).
    pub protected: bool,
    /// How it beats.
    pub rhythm: Rhythm,
    /// Whether a beat changes no decision, so that none needs to be taken.
    pub(super) quiet: bool,
    /// When the version was taken in.
    pub(super) read_at: Moment,
}

impl Record {
    /// How long the instance has been silent.
    pub fn silence(&self) -> Silence {
        let since = self.grace.map_or(self.seen, |grace| grace.from.max(self.seen));
        Silence { since, before: self.silent_before }
    }

    /// Whether it was published when the store went back, and is still to be, whatever the slices hold now.
    pub fn stays_published(&self) -> bool {
        self.grace.is_some_and(|grace| grace.published)
    }
}

/// What became of an observation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether a token of life changed.
    pub beat: bool,
    /// How long after the beat before it, where that one was seen to arrive.
    pub since: Option<Duration>,
    /// The registrations whose decision may change.
    pub wake: Vec<Key>,
}

/// What a live read of one Lease found (L2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly always the large one")]
pub enum LiveRead {
    /// The Lease as it is.
    Found(Heartbeat),
    /// There is no such Lease: the API server said 404.
    Absent,
}

/// What was decided about one Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The Lease.
    pub lease: Arc<str>,
    /// The token the decision was taken from.
    pub token: Token,
    /// Whether a further beat would change nothing.
    pub quiet: bool,
    /// Whether the instance is decided to be dead.
    pub expired: bool,
    /// What its beats are watched for.
    pub wanted: Wanted,
    /// Whether it is known where the instance is.
    pub placed: bool,
    /// Whether it is to be published.
    pub published: bool,
    /// Whether only protection.minReady keeps it published (L7).
    pub protected: bool,
    /// Whether it was found published at a cold start, and so has a ttl to beat in.
    pub granted: bool,
    /// Whether it takes somebody out, for silence, who is published.
    pub takes_out: bool,
}

/// Whether a decision may be carried out, once the index has noted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decision may have been overtaken"]
pub enum Settlement {
    /// It stands.
    Stands,
    /// It may be carried out, and another is to be taken soon: a beat that came in since the snapshot
    /// makes a difference, and has woken no registration.
    StandsForNow,
    /// It must not be carried out: a beat since the snapshot speaks for somebody whom it takes out, or a
    /// Lease has gone for which there is a verdict.
    Overtaken,
}
