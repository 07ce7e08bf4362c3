//! Handles a rollback of the store, that is, its return to an earlier state (a backup of etcd that was restored).
//!
//! After a rollback, earlier versions mean nothing. A Lease that shows another token than before has not beaten: it
//! shows an older token. So no instance counts as having beaten until its token changes again. Each instance that was
//! not known to be dead has one ttl for that, counted from the moment at which the new history was read.

use std::time::Duration;

use crate::{
    liveness::{
        index::{
            Index,
            record::{Grace, LeaseDecision, NextBeat, Presence, Provenance, Record},
            relist::Relist,
            store::Slot,
        },
        silence_log::SilenceLog,
    },
    objects::heartbeat::Heartbeat,
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        version::{Token, Version},
    },
};

impl Index {
    /// Whether the current list shows what existed before this process started, or before the store was rolled back.
    pub(super) fn is_first_list(&self) -> bool {
        self.listing && (!self.complete || self.relist != Relist::No)
    }

    /// How a Lease that was not known before came to be known.
    pub(super) fn first_provenance(&self, beat: &Heartbeat) -> Provenance {
        if self.is_first_list() {
            Provenance::Inherited
        } else if beat.second_hand {
            Provenance::Restored
        } else {
            Provenance::Changed
        }
    }

    /// Takes over how long Leases had been silent before this process began, as an earlier process has proven (L5).
    /// Leases that have beaten since this process began are left as they are.
    pub fn resume_silence(&mut self, log: &SilenceLog) {
        self.followers.end_all();
        let records = self.store.entries_mut().map(|entry| &mut entry.record);
        for record in records.filter(|record| record.provenance != Provenance::Changed) {
            record.silent_before = log.silence(record.version);
        }
    }

    /// Handles a rollback of the store: forgets all known versions. The next list shows what exists now.
    pub fn reset_after_rollback(&mut self, now: MonotonicTime) {
        self.relist = Relist::Awaited;
        self.newest = Version(0);
        self.went_back = false;
        self.followers.end_all();
        for entry in self.store.entries_mut() {
            entry.record.reset_after_rollback(now);
        }
    }

    /// Whether a Lease that the new history shows for the first time was created after the list of that history was
    /// read.
    pub(super) fn is_newer_than_the_list(&self, presence: Presence) -> bool {
        // No list contains a Lease without its label.
        self.relist == Relist::No && !self.listing && presence == Presence::Watched
    }

    /// Whether the store was rolled back and its content has not been read since. Until then nothing can be decided,
    /// because the Leases of some published instances may not be known.
    pub fn awaits_relist(&self) -> bool {
        self.relist != Relist::No
    }

    /// Notes which instances of a registration are published at the beginning of a term; all others are not. Another
    /// replica may have decided since an earlier term of this process. Without this, the outdated decisions of that
    /// term would count (L6).
    pub fn note_published<'a>(
        &mut self,
        registration: &Key,
        decisions: impl IntoIterator<Item = &'a LeaseDecision>,
    ) {
        self.followers.end(registration);
        let mut cursor = self.store.cursor(registration);
        let not = |record: &mut Record| record.published = false;
        for decision in decisions {
            if let Some(record) = cursor.find(&decision.lease, not) {
                record.published = decision.outcome.is_published();
            }
        }
        cursor.end(not);
    }

    /// Notes the version of a Lease that is no instance's: of a probe.
    pub fn note_version(&mut self, version: Version) {
        self.newest = self.newest.newer_of(version);
    }

    /// The newest version that was read of any Lease.
    pub fn newest(&self) -> Version {
        self.newest
    }

    /// Whether a rollback of versions was noticed since the last call of this method.
    pub fn went_back(&mut self) -> bool {
        std::mem::take(&mut self.went_back)
    }

    /// Notices a rollback in a list. A list is requested after everything that is known by then, and is answered with
    /// the newest state. So if it shows a lower version, the store was rolled back.
    pub(super) fn doubt_of_list(&mut self, namespace: &str, beat: &Heartbeat) {
        let Some(slot) = self.store.find(namespace, &beat.lease) else { return };
        let entry = self.store.get(slot);
        // A Lease that was shown since the list began may come from a live read, and so be newer than the list.
        self.went_back |= entry.shown_in != self.list && beat.version < entry.record.version;
    }

    /// Notices a rollback in a live read, which is answered from a quorum. A read that was sent after a version was
    /// known can show a lower one only if the API server's history was rolled back (etcd restored from a backup). Then
    /// the old versions mean nothing. If they were kept, this index would ignore the instance until the new versions
    /// have caught up.
    pub(super) fn notice_rollback(&mut self, lease: &Key, version: Version, sent: MonotonicTime) {
        if let Some(record) = self.record_mut(lease)
            && version < record.version
            && record.read_at < sent
            // A deletion raises the version without a read of the Lease.
            && record.presence != Presence::Missing
        {
            record.version = version;
            self.went_back = true;
        }
    }

    /// Whether an instance stays known although a read that was sent at `sent` found no Lease. An instance that
    /// registered after the backup was made has lost its Lease without leaving. It creates the Lease again with its
    /// next beat. Until then the read proves that it has not beaten.
    pub(super) fn outlasts_its_lease(&mut self, slot: Slot, sent: MonotonicTime) -> bool {
        let record = &mut self.store.get_mut(slot).record;
        let outlasts =
            record.is_unshown() && record.expired_at.is_none() && !record.content.deleting;
        if outlasts {
            record.silent_at = record.silent_at.max(Some(sent));
        }
        outlasts
    }

    /// Forgets the Leases that were lost in a rollback of the store and have not been seen for the duration `after`
    /// since. This is for standbys, which do not decide. On the leader, a decision forgets them when their ttl has
    /// passed.
    pub fn forget_unshown(&mut self, registration: &Key, after: Duration, now: MonotonicTime) {
        let lost = |record: &&Record| {
            let grace = record.grace.filter(|grace| !grace.shown);
            record.presence == Presence::Missing
                && grace.is_some_and(|grace| now.since(grace.from) >= after)
        };
        let lost: Vec<_> =
            self.store.of(registration).filter(lost).map(|record| record.lease.clone()).collect();
        lost.iter().for_each(|lease| self.drop_orphan(registration, lease));
    }
}

impl Record {
    fn reset_after_rollback(&mut self, now: MonotonicTime) {
        let published = self.expired_at.is_none() && (self.published || self.stays_published());
        self.grace = Some(Grace { from: now, published, shown: false });
        self.version = Version(0);
        self.silent_before = Duration::ZERO;
        self.silent_at = None;
        self.next_beat = NextBeat::Wakes;
        if self.presence == Presence::Unlabelled {
            // No list will show this Lease, so a live read is needed.
            self.presence = Presence::Missing;
        }
    }

    /// Whether the Lease is known from before a rollback of the store, and has not been shown since.
    pub fn is_unshown(&self) -> bool {
        self.grace.is_some_and(|grace| !grace.shown)
    }

    /// Takes over the token that is shown for a Lease. Returns whether the Lease was shown for the first time since the
    /// store was rolled back. In that case another token is no beat, unless the Lease is new. An expired instance that
    /// shows another token may have come back to life, or may have died again. That is unknown, as after a start.
    pub(super) fn go_on_from(&mut self, token: &Token, is_new: bool, now: MonotonicTime) -> bool {
        let Some(grace) = self.grace.as_mut().filter(|grace| !grace.shown) else { return false };
        grace.shown = true;
        if is_new {
            return true;
        }
        grace.from = now;
        if self.expired_at.is_some() && self.token != *token {
            self.expired_at = None;
            self.provenance = Provenance::Inherited;
            self.seen = now;
        }
        self.token = token.clone();
        true
    }
}
