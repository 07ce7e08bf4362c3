//! What becomes of the records where the store goes back to an earlier state (a backup of etcd that was restored).
//!
//! Versions from before mean nothing any more. A Lease that shows another token than before has not beaten: it shows an
//! older token. So no instance has beaten until its token changes again. Each instance that was not known to be dead
//! has a ttl for that, from the moment at which the new history was read.

use std::time::Duration;

use super::{
    Index,
    record::{Grace, Key, Presence, Record, Settled, Sight},
    shelf::Slot,
};
use crate::{
    heartbeat::{Heartbeat, Token, Version},
    memory::Memory,
    moment::Moment,
};

/// Whether what there is has to be read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Anew {
    /// It has been.
    #[default]
    No,
    /// A list that begins from now on will do.
    Awaited,
    /// Such a list is being read.
    Listing,
}

impl Anew {
    pub(super) fn begin_list(&mut self) {
        if *self == Self::Awaited {
            *self = Self::Listing;
        }
    }

    /// Whether this was the list that was awaited.
    pub(super) fn end_list(&mut self) -> bool {
        let was = *self == Self::Listing;
        if was {
            *self = Self::No;
        }
        was
    }
}

impl Index {
    /// What it shows was there before this process, or before the store went back.
    pub(super) fn is_first_list(&self) -> bool {
        self.listing && (!self.complete || self.anew != Anew::No)
    }

    /// How a Lease comes to be known that was not.
    pub(super) fn first_sight(&self, beat: &Heartbeat) -> Sight {
        if self.is_first_list() {
            Sight::Inherited
        } else if beat.second_hand {
            Sight::Restored
        } else {
            Sight::Changed
        }
    }

    /// How long Leases had been silent before this process began, as an earlier one has proven (L5).
    /// Those that have beaten since are not concerned.
    pub fn recall(&mut self, memory: &Memory) {
        let records = self.shelf.entries_mut().map(|entry| &mut entry.record);
        for record in records.filter(|record| record.sight != Sight::Changed) {
            record.silent_before = memory.silence(record.version);
        }
    }

    /// The store has gone back: what was known by versions is forgotten, and the next list shows what there is.
    pub fn begin_anew(&mut self, now: Moment) {
        self.anew = Anew::Awaited;
        self.newest = Version(0);
        self.went_back = false;
        for entry in self.shelf.entries_mut() {
            entry.record.begin_anew(now);
        }
    }

    /// Whether a Lease of which the history that goes on has shown nothing so far is one that was made since it was read.
    pub(super) fn is_newer_than_the_list(&self, presence: Presence) -> bool {
        // One without its label is in no list.
        self.anew == Anew::No && !self.listing && presence == Presence::Watched
    }

    /// Whether the store has gone back, and what there is has not been read since: nothing can be decided, since the
    /// Leases of some who are published may not be known.
    pub fn is_read_anew(&self) -> bool {
        self.anew != Anew::No
    }

    /// Notes who of a registration is published at the beginning of a term; the others are not. Another replica may have
    /// decided since an earlier term of this process, whose decisions would otherwise count (L6).
    pub fn note_published<'a>(
        &mut self,
        registration: &Key,
        outcomes: impl IntoIterator<Item = &'a Settled>,
    ) {
        let mut walk = self.shelf.walk(registration);
        let not = |record: &mut Record| record.published = false;
        for outcome in outcomes {
            if let Some(record) = walk.find(&outcome.lease, not) {
                record.published = outcome.published;
            }
        }
        walk.end(not);
    }

    /// The newest version that was read, of whatever Lease.
    pub fn newest(&self) -> Version {
        self.newest
    }

    /// Whether versions have gone back since this was asked last.
    pub fn went_back(&mut self) -> bool {
        std::mem::take(&mut self.went_back)
    }

    /// A list is asked for after all that is known by then, and answered with the newest there is: so where it shows a
    /// lower version the store has gone back.
    pub(super) fn doubt_of_list(&mut self, namespace: &str, beat: &Heartbeat) {
        let Some(slot) = self.shelf.find(namespace, &beat.lease) else { return };
        let entry = self.shelf.get(slot);
        // One that was shown since the list began may have been read live, and be newer than the list.
        self.went_back |= entry.shown_in != self.list && beat.version < entry.record.version;
    }

    /// A live read is answered from a quorum, so one that was sent after a version was known can
    /// show a lower one only when the API server's history was rolled back (etcd restored from a
    /// backup). Then the old versions mean nothing: holding on to them would make this index deaf
    /// for the instance until the new ones have caught up.
    pub(super) fn notice_rollback(&mut self, lease: &Key, version: Version, sent: Moment) {
        if let Some(record) = self.record_mut(lease)
            && version < record.version
            && record.read_at < sent
            // A deletion has raised the version without a reading of the Lease.
            && record.presence != Presence::Missing
        {
            record.version = version;
            self.went_back = true;
        }
    }

    /// Whether an instance stays though a read that was sent then has found no Lease. One that registered after the
    /// backup was made has lost its Lease without leaving, and writes it anew with its next beat. The read shows that
    /// it has not beaten.
    pub(super) fn outlasts_its_lease(&mut self, slot: Slot, sent: Moment) -> bool {
        let record = &mut self.shelf.get_mut(slot).record;
        let outlasts = record.is_unshown() && record.expired_at.is_none() && !record.claim.deleting;
        if outlasts {
            record.silent_at = record.silent_at.max(Some(sent));
        }
        outlasts
    }

    /// Forgets the Leases that were lost when the store went back, and of which nothing was heard for so long since.
    /// For standbys, which do not decide: a decision forgets them when their ttl has passed.
    pub fn forget_unshown(&mut self, registration: &Key, after: Duration, now: Moment) {
        let lost = |record: &&Record| {
            let grace = record.grace.filter(|grace| !grace.shown);
            record.presence == Presence::Missing
                && grace.is_some_and(|grace| now.since(grace.from) >= after)
        };
        let lost: Vec<_> =
            self.shelf.of(registration).filter(lost).map(|record| record.lease.clone()).collect();
        lost.iter().for_each(|lease| self.drop_orphan(registration, lease));
    }
}

impl Record {
    fn begin_anew(&mut self, now: Moment) {
        let published = self.expired_at.is_none() && (self.published || self.stays_published());
        self.grace = Some(Grace { from: now, published, shown: false });
        self.version = Version(0);
        self.silent_before = Duration::ZERO;
        self.silent_at = None;
        self.quiet = false;
        if self.presence == Presence::Unlabelled {
            // No list will show it: it is read live.
            self.presence = Presence::Missing;
        }
    }

    /// Whether it is known from before the store went back, and has not been shown since.
    pub fn is_unshown(&self) -> bool {
        self.grace.is_some_and(|grace| !grace.shown)
    }

    /// It is shown with this token, whatever it was before. Returns whether that was for the first time since the store
    /// went back: then another token is no beat, unless the Lease is new. One that had expired with another token may have
    /// come back to life, or died again: that is unknown, as at a start.
    pub(super) fn go_on_from(&mut self, token: &Token, is_new: bool, now: Moment) -> bool {
        let Some(grace) = self.grace.as_mut().filter(|grace| !grace.shown) else { return false };
        grace.shown = true;
        if is_new {
            return true;
        }
        grace.from = now;
        if self.expired_at.is_some() && self.token != *token {
            self.expired_at = None;
            self.sight = Sight::Inherited;
            self.seen = now;
        }
        self.token = token.clone();
        true
    }
}
