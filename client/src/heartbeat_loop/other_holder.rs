//! Another process that has claimed the Lease: a second machine of the same name, or a second run of the
//! instance.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::{heartbeat::NOTE_MAX, text::plain_cut};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::carrying::check_every;
use crate::{
    lease::{
        Identity, LeaseVersion,
        foreign_fields::{self, ForeignFields},
        rival,
    },
    schedule::Pace,
    silence::SilenceWatch,
};

/// The number of our beats between two checks whether a holder that claims the same still beats.
const TEST_EVERY: u32 = 3;

/// What is known of the process that holds the Lease, and what this process does beside it.
#[derive(Debug, Clone)]
pub(super) struct OtherHolder {
    /// The Lease as it was last seen.
    pub(super) version: LeaseVersion,
    /// The addresses that the holder claims, made safe to print; `None` if they are the same as ours.
    pub(super) other_addresses: Option<String>,
    /// Whether the holder still beats, where this process does not beat itself.
    silence: SilenceWatch,
    /// Since when only this process has beaten, where both beat.
    pub(super) alone_since: Option<Instant>,
    /// The last beat of this process that was accepted, where both beat.
    pub(super) beaten: Option<Timestamp>,
    /// The note about a rival in the Lease.
    pub(super) note: SilenceWatch,
    /// The note that this process wrote last.
    pub(super) announced: Option<String>,
    /// Whether the Lease has annotations, to which a note can be added.
    annotated: bool,
    /// The incarnations that have beaten for the Lease. A beat of this process beside them hides that.
    beaten_by: BTreeSet<String>,
    /// What a person has set on the Lease: it stays when this process takes the Lease back.
    pub(super) foreign: ForeignFields,
    /// How often the Lease was read.
    reads: u32,
    /// Whether the holder may beat through a gateway, without a write to the Lease.
    pub(super) may_be_carried: bool,
    /// Whether the holder was seen to write the Lease. It does so from the moment on at which it notices this process.
    pub(super) writes: bool,
}

impl OtherHolder {
    /// Makes the record of a Lease that has just been seen.
    pub(super) fn to(identity: &Identity, lease: &Lease) -> Self {
        let now = Instant::now();
        Self {
            version: LeaseVersion::of(lease),
            other_addresses: other_addresses(identity, lease),
            silence: SilenceWatch::begin(rival::liveness_text(lease), now),
            alone_since: None,
            beaten: None,
            note: SilenceWatch::begin(rival::rival_note(lease).map(str::to_owned), now),
            announced: None,
            annotated: lease.metadata.annotations.is_some(),
            beaten_by: foreign_fields::beating(lease),
            foreign: ForeignFields::on(lease),
            reads: 0,
            may_be_carried: false,
            writes: false,
        }
    }

    /// Updates the record when the Lease is seen again.
    pub(super) fn look(&mut self, identity: &Identity, lease: &Lease, now: Instant, pace: &Pace) {
        self.version = LeaseVersion::of(lease);
        let sign = rival::liveness_text(lease);
        // A process that claims the same does not tell its own writes from those of the holder here.
        self.writes |= self.other_addresses.is_some() && self.silence.seen() != sign.as_deref();
        self.other_addresses = other_addresses(identity, lease);
        self.silence.look(sign, now, pace);
        self.note.look(rival::rival_note(lease).map(str::to_owned), now, pace);
        self.annotated = lease.metadata.annotations.is_some();
        self.beaten_by.extend(foreign_fields::beating(lease));
        self.foreign = ForeignFields::beside(lease, &self.beaten_by);
        self.reads = self.reads.saturating_add(1);
    }

    /// When the holder will have been silent for a ttl.
    pub(super) fn takes_back_at(&self, pace: &Pace) -> Option<Instant> {
        let ends = match (&self.other_addresses, self.alone_since) {
            (Some(_), _) => Some(self.silence.ends(pace)),
            (None, since) => since.map(|since| since + pace.ttl()),
        };
        ends.map(|ends| ends + self.patience(pace))
    }

    /// How long the silence of a holder says nothing, because it may beat through a gateway and not know of this process
    /// yet: it reads its Lease now and then.
    fn patience(&self, pace: &Pace) -> Duration {
        let unknown = self.may_be_carried && !self.writes;
        if unknown { check_every(pace) + pace.ttl() } else { Duration::ZERO }
    }

    pub(super) fn is_silent(&self, now: Instant, pace: &Pace) -> bool {
        let is_time = self.takes_back_at(pace).is_some_and(|at| now >= at);
        is_time && (self.other_addresses.is_none() || self.silence.is_over(now, pace))
    }

    /// Whether to leave a note about this process. If one instance has two runs, the earlier one often ends
    /// soon, and that is no name conflict. The note has room for one rival only.
    pub(super) fn leaves_note(&self, now: Instant, pace: &Pace) -> bool {
        let stays = self.other_addresses.is_some() || self.reads > 1;
        let taken = self.note.seen().is_some()
            && self.note.seen() != self.announced.as_deref()
            && !self.note.is_over(now, pace);
        stays && self.annotated && !taken
    }

    /// Whether the next shared beat finds out if the holder still beats.
    pub(super) fn tests_holder(&self) -> bool {
        self.alone_since.is_some() || self.reads.is_multiple_of(TEST_EVERY)
    }
}

fn other_addresses(identity: &Identity, lease: &Lease) -> Option<String> {
    let named = || plain_cut(rival::named_addresses(lease).unwrap_or("no address"), NOTE_MAX);
    (!rival::claims_the_same(identity, lease)).then(named)
}
