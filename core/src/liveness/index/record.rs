//! The data types of the liveness index: its records, its input and its results.

use std::{sync::Arc, time::Duration};

use crate::{
    liveness::rhythm::{Rhythm, Wanted},
    objects::heartbeat::{Heartbeat, LeaseContent},
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::Silence,
        version::{Token, Version},
    },
};

/// How this controller came to know the current token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// The token was there when the controller started. It is not known whether the instance beats (L5).
    Inherited,
    /// The token was there when the controller started, and the instance was published. It has one full ttl to beat
    /// (L5).
    Granted,
    /// The Lease appeared with a beat that is older than the Lease itself, so it was restored from a backup.
    Restored,
    /// The token was seen to change, or to appear: the instance beats.
    Changed,
}

impl Provenance {
    /// Whether two things are unknown: whether the instance beats, and whether it was published before it came to be
    /// known.
    pub fn awaits_beat(self) -> bool {
        matches!(self, Self::Inherited | Self::Restored)
    }
}

/// The time that an instance known before a rollback of the store is granted to beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// The moment from which the silence of the instance counts.
    pub from: MonotonicTime,
    /// Whether the instance was published, according to the decisions of this process.
    pub published: bool,
    /// Whether the new history has shown its Lease.
    pub shown: bool,
}

/// Whether the watch still shows a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The watch shows it.
    Watched,
    /// The watch no longer shows it. The Lease may be deleted, or may have lost its label (L4). A live read decides.
    Missing,
    /// The Lease exists without its label, so only live reads show its beats.
    Unlabelled,
}

/// The number of one process of a gateway in this replica. It is not given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CarrierId(u32);

impl CarrierId {
    /// The number of the gateway at this place of a list that only grows.
    pub fn at_place(place: usize) -> Self {
        Self(u32::try_from(place).expect("no replica sees that many gateways"))
    }

    /// The place in that list.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// What is known of one heartbeat Lease.
#[derive(Debug, Clone)]
pub struct Record {
    /// The name of the Lease.
    pub lease: Arc<str>,
    /// The token as last read.
    pub token: Token,
    /// The version of the Lease as last read.
    pub version: Version,
    /// When the token was last seen to change (L1).
    pub seen: MonotonicTime,
    /// How long the instance had been silent before `seen`, as an earlier process has proven (L5).
    pub silent_before: Duration,
    /// How the token came to be known.
    pub provenance: Provenance,
    /// The gateway that carried its last beat; `None` if that beat was a write of its Lease.
    pub carrier: Option<CarrierId>,
    /// When its beats last changed from one way to the other: from writes of its Lease to gateways, or back (G12).
    pub way_changed: Option<MonotonicTime>,
    /// Whether the watch shows the Lease.
    pub presence: Presence,
    /// The latest moment for which a live read proves that the token had not changed (L2).
    pub silent_at: Option<MonotonicTime>,
    /// Since when the instance is decided to be dead. Only a new token revives it; a changed ttl does not.
    pub expired_at: Option<MonotonicTime>,
    /// Set if the store was rolled back since the last beat.
    pub grace: Option<Grace>,
    /// The remaining content of the Lease.
    pub content: Arc<LeaseContent>,
    /// Whether the location of the instance was ever known. If so, a missing Pod is gone. If not, it was never seen.
    pub placed: bool,
    /// Whether the last decision was to publish it.
    pub published: bool,
    /// Whether only protection.minReady keeps the instance published, however long it is silent (L7).
    pub protected: bool,
    /// The rhythm of its beats.
    pub rhythm: Rhythm,
    /// What the next beat does, by the last decision.
    pub(super) next_beat: NextBeat,
    /// When the version was read.
    pub(super) read_at: MonotonicTime,
}

impl Record {
    /// How long the instance has been silent.
    pub fn silence(&self) -> Silence {
        let since = self.grace.map_or(self.seen, |grace| grace.from.max(self.seen));
        Silence { since, before: self.silent_before }
    }

    /// Whether its next beat may be a write of its Lease: its last one was, or its beats have changed their way less
    /// than a ttl before its last one (G12). Then its silence needs the proof of that way.
    pub fn may_beat_by_lease(&self, ttl: Duration) -> bool {
        self.carrier.is_none() || self.has_just_changed_way(ttl)
    }

    /// Whether a gateway may carry its next beat, so that its silence needs the proof of gateways (G12). It cannot be
    /// excluded as long as this process has seen no beat.
    pub fn may_beat_by_gateway(&self, ttl: Duration) -> bool {
        self.carrier.is_some()
            || self.provenance != Provenance::Changed
            || self.has_just_changed_way(ttl)
    }

    fn has_just_changed_way(&self, ttl: Duration) -> bool {
        self.way_changed.is_some_and(|changed| self.seen < changed + ttl)
    }

    /// When its last beat was carried; `None` if that beat was a write of its Lease.
    pub fn carried_at(&self) -> Option<MonotonicTime> {
        self.carrier.map(|_| self.seen)
    }

    /// Whether the next beat wakes the registration, by the last decision.
    pub fn next_beat_wakes(&self) -> bool {
        self.next_beat == NextBeat::Wakes
    }

    /// Keeps what was seen of the beats of the same Lease under another label.
    pub(super) fn keep_beats_of(&mut self, before: Self) {
        self.seen = before.seen;
        self.silent_before = before.silent_before;
        self.provenance = before.provenance;
        self.carrier = before.carrier;
        self.way_changed = before.way_changed;
        self.silent_at = before.silent_at;
        self.expired_at = before.expired_at;
        self.grace = before.grace;
        self.rhythm = before.rhythm;
    }

    /// The instance has beaten. Returns the time since the beat before, if that was seen to arrive, and whether the
    /// decision may change.
    pub(super) fn beat(
        &mut self,
        carrier: Option<CarrierId>,
        now: MonotonicTime,
    ) -> (Option<Duration>, bool) {
        let since = (self.provenance == Provenance::Changed).then(|| now.since(self.seen));
        let rhythm_changed = self.rhythm.beat(self.seen, now);
        self.seen = now;
        self.silent_before = Duration::ZERO;
        self.provenance = Provenance::Changed;
        self.note_way(carrier, now);
        self.silent_at = None;
        self.expired_at = None;
        self.grace = None;
        (since, rhythm_changed || self.next_beat == NextBeat::Wakes)
    }

    /// The instance has beaten at an unknown moment in the past. If it is published, it has a ttl to beat again. If it
    /// is not, it is not known to be alive, and has to beat first.
    pub(super) fn beat_late(&mut self, carrier: CarrierId, now: MonotonicTime) {
        self.doubt_death(now);
        self.note_way(Some(carrier), now);
    }

    /// A decision of an earlier term that it is dead may have been overtaken: it may have beaten since, on a way that this
    /// process did not hear. If it is published, it has a ttl to beat again.
    pub(super) fn doubt_death(&mut self, now: MonotonicTime) {
        self.seen = now;
        self.silent_before = Duration::ZERO;
        self.provenance = Provenance::Inherited;
        self.silent_at = None;
        self.expired_at = None;
    }

    fn note_way(&mut self, carrier: Option<CarrierId>, now: MonotonicTime) {
        if carrier.is_some() != self.carrier.is_some() {
            self.way_changed = Some(now);
        }
        self.carrier = carrier;
    }

    /// Whether the instance was published when the store was rolled back. Then it stays published, whatever the slices
    /// say now.
    pub fn stays_published(&self) -> bool {
        self.grace.is_some_and(|grace| grace.published)
    }
}

/// The result of an observation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether a token changed.
    pub beat: bool,
    /// The time since the previous beat, if that beat was seen to arrive.
    pub since: Option<Duration>,
    /// The registrations for which the decision may change.
    pub wake: Vec<Key>,
}

/// What a live read of one Lease found (L2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly always the large one")]
pub enum LiveRead {
    /// The current Lease.
    Found(Heartbeat),
    /// The Lease does not exist: the API server answered 404.
    Absent,
}

/// What was decided about one Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDecision {
    /// The name of the Lease.
    pub lease: Arc<str>,
    /// The token that the decision is based on.
    pub token: Token,
    /// The moment of the carried beat that it is based on, which changes no token ([`Record::carried_at`]).
    pub carried_at: Option<MonotonicTime>,
    /// What becomes of the instance.
    pub outcome: Outcome,
    /// What a further beat does.
    pub next_beat: NextBeat,
    /// What its beats are watched for.
    pub wanted: Wanted,
    /// Whether the location of the instance is known.
    pub placed: bool,
}

/// What becomes of an instance by a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is to be published.
    Published(Basis),
    /// It is not to be published, and is not decided to be dead.
    Unpublished(Removal),
    /// It is decided to be dead.
    Expired(Removal),
}

/// Why an instance is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// It beats, or there is no evidence of its death.
    Beats,
    /// The same, and it was found published. At a cold start, it has one ttl to beat because of that (L5).
    FoundPublished,
    /// Only protection.minReady keeps it published, however long it is silent (L7).
    MinReady,
}

/// What a decision takes out of what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing, or not because of its silence.
    None,
    /// The instance, because of its silence. A beat since then overtakes the decision.
    ForSilence,
}

/// What the next beat of an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextBeat {
    /// It may change the decision, so it wakes the registration.
    Wakes,
    /// It changes nothing (P4).
    IsNoOp,
}

impl Outcome {
    /// Whether the instance is to be published.
    pub fn is_published(self) -> bool {
        matches!(self, Self::Published(_))
    }

    /// Whether the instance is decided to be dead.
    pub fn is_expired(self) -> bool {
        matches!(self, Self::Expired(_))
    }

    /// Whether the decision removes a published instance because of its silence.
    pub fn removes_for_silence(self) -> bool {
        matches!(self, Self::Unpublished(Removal::ForSilence) | Self::Expired(Removal::ForSilence))
    }
}

/// Whether a decision may be carried out, after the index has noted it. Of several answers, the largest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "a decision may have been overtaken"]
pub enum CommitResult {
    /// The decision may be carried out.
    Accepted,
    /// The decision may be carried out, and the next one has to follow soon. A beat since the snapshot makes a
    /// difference, and it has not woken the registration.
    AcceptedForNow,
    /// The decision must not be carried out. Either an instance that it removes has beaten since the snapshot, or a
    /// Lease with a verdict no longer exists.
    Overtaken,
}
