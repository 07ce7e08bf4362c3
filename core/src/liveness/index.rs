//! The liveness index: when each instance was last seen to beat.
//!
//! The watch of the heartbeat Leases feeds the index directly, without a reconcile. A beat costs one look-up, whatever
//! the size of its service (P4). A registration is reconciled only for changes that may change a decision.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    liveness::{index::cordon_notes::Notes, rhythm::Rhythm},
    objects::heartbeat::Heartbeat,
    vocabulary::{key::Key, monotonic_time::MonotonicTime, version::Version},
};

mod carried;
mod carry;
mod commit;
pub mod cordon_notes;
mod cordons;
mod follow;
mod followed;
mod lookups;
mod order;
mod pods;
mod record;
mod relist;
mod rollback;
mod store;

pub use carried::{Carried, Delivery};
use followed::Followers;
pub use followed::{Standing, Ticket, Unsettled};
use pods::Pods;
pub use record::{
    Basis, CarrierId, CommitResult, Grace, LeaseDecision, LiveRead, NextBeat, Observed, Outcome,
    Presence, Provenance, Record, Removal,
};
use relist::Relist;
use store::{Digest, Entry, LastInterval, Slot, Store};

/// The liveness index of all registrations.
#[derive(Debug, Default)]
pub struct Index {
    store: Store,
    pods: Pods,
    followers: Followers,
    cordons: Notes,
    /// The number of the list that began last.
    list: u32,
    /// Whether that list is still being read.
    listing: bool,
    /// Whether the first list has been read to its end.
    complete: bool,
    /// Whether the store has gone back, and its state has not been listed since.
    relist: Relist,
    /// The newest version that was read of any Lease.
    newest: Version,
    /// Whether something has shown that versions went back.
    went_back: bool,
    /// The last number that was given to the owner of a Lease.
    owner: u64,
}

impl Index {
    /// Whether the first list has been read to its end.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A list begins. Leases that it does not show will be missing at its end.
    pub fn begin_list(&mut self) {
        // The number wraps only after more lists than any process reads.
        self.list = self.list.wrapping_add(1);
        self.listing = true;
        self.relist.begin_list();
    }

    /// The list has ended. A Lease that it did not show is missing. Only a live read decides whether it is gone.
    pub fn end_list(&mut self) -> Observed {
        self.complete = true;
        if !std::mem::take(&mut self.listing) {
            return Observed::default();
        }
        let mut wake = BTreeSet::new();
        let mut over = Vec::new();
        for Entry { record, home, shown_in, .. } in self.store.entries_mut() {
            if record.presence == Presence::Watched && *shown_in != self.list {
                record.presence = Presence::Missing;
                self.followers.changed(home, &record.lease);
                wake.insert(home.clone());
                if record.content.deleting {
                    over.push((home.clone(), record.lease.clone()));
                }
            }
        }
        for (home, lease) in over {
            self.drop_orphan(&home, &lease);
        }
        if self.relist.end_list() {
            self.followers.end_all();
            let all = self.registrations().map(|(registration, _)| registration.clone());
            return Observed { wake: all.collect(), ..Observed::default() };
        }
        Observed { wake: wake.iter().map(|home| Key::clone(home)).collect(), ..Observed::default() }
    }

    /// Takes in a Lease that the watch shows.
    pub fn observe(&mut self, namespace: &str, beat: Heartbeat, now: MonotonicTime) -> Observed {
        if self.listing {
            self.doubt_of_list(namespace, &beat);
        }
        self.show(namespace, beat, now)
    }

    /// Takes in a Lease that the watch or a live read shows.
    fn show(&mut self, namespace: &str, beat: Heartbeat, now: MonotonicTime) -> Observed {
        self.newest = self.newest.newer_of(beat.version);
        let digest = self.store.digest(namespace, &beat);
        let Some(slot) = self.store.find_read(namespace, &beat.lease, digest) else {
            return match &beat.registration {
                Some(registration) => {
                    let home = Key::new(namespace, registration);
                    let slot = self.insert(home.clone(), beat, digest, now);
                    let beat = self.store.get(slot).record.provenance == Provenance::Changed;
                    Observed { beat, since: None, wake: vec![home] }
                }
                None => Observed::default(),
            };
        };
        let entry = self.store.get_mut(slot);
        entry.shown_in = self.list;
        match &beat.registration {
            Some(registration) if entry.digest != digest && *registration != entry.home.name => {
                self.relabelled(slot, Key::new(namespace, registration), beat, digest, now)
            }
            // A Lease without its label is followed only if it was known before.
            named => {
                let presence = match named {
                    Some(_) => Presence::Watched,
                    None => Presence::Unlabelled,
                };
                let observed = self.take_in(slot, beat, digest, presence, now);
                self.note_observed(slot, &observed);
                observed
            }
        }
    }

    /// Moves a Lease to another registration, and keeps its record of beats. A change of label is no beat, and must
    /// not revive an expired instance.
    fn relabelled(
        &mut self,
        slot: Slot,
        home: Key,
        beat: Heartbeat,
        digest: Digest,
        now: MonotonicTime,
    ) -> Observed {
        if self.store.get(slot).record.version >= beat.version {
            return Observed::default();
        }
        let Entry { record: before, home: old, .. } = self.forget(slot);
        let lives_on = before.token == beat.token;
        let slot = self.insert(home.clone(), beat, digest, now);
        if lives_on {
            self.store.get_mut(slot).record.keep_beats_of(before);
        }
        let beat = !lives_on && !self.is_first_list();
        Observed { beat, since: None, wake: vec![home, Key::clone(&old)] }
    }

    /// Takes in a known Lease that was read again. Every beat comes this way. The other content of the Lease is
    /// compared by its digest, so that a beat touches only the record itself and no memory elsewhere.
    fn take_in(
        &mut self,
        slot: Slot,
        beat: Heartbeat,
        digest: Digest,
        presence: Presence,
        now: MonotonicTime,
    ) -> Observed {
        let is_new = self.is_newer_than_the_list(presence);
        let Entry { record, home, digest: known, last_interval, owner, .. } =
            self.store.get_mut(slot);
        if beat.version < record.version {
            return Observed::default();
        }
        // An earlier state of the Lease does not show that its cordon was lifted.
        let is_earlier = record.is_unshown() && !is_new;
        let mut wake = record.go_on_from(&beat.token, is_new, now);
        if record.presence != presence {
            record.presence = presence;
            wake = true;
        }
        // Without renewTime an instance has never beaten.
        wake |= beat.token.renewed.is_some() != record.token.renewed.is_some();
        record.version = beat.version;
        record.read_at = now;
        let content_is_same = *known == digest;
        let alive = match content_is_same {
            true => beat.token.renewed != record.token.renewed,
            // A Lease that was created again from a copy is no sign of life.
            false => {
                beat.token != record.token
                    && !(beat.second_hand && beat.token.uid != record.token.uid)
            }
        };
        let mut since = None;
        if alive {
            let by_itself = record.beat(None, now);
            since = by_itself.0;
            wake |= by_itself.1;
            *last_interval = LastInterval::of(since);
            record.token.renewed = beat.token.renewed;
        }
        if !content_is_same {
            *known = digest;
            if record.token.uid != beat.token.uid || record.content.origin != beat.content.origin {
                self.owner += 1;
                *owner = self.owner;
            }
            record.token = beat.token;
            if !is_earlier || beat.content.cordoned.is_some() {
                self.cordons.observe(home, &record.lease, &record.token, &beat.content);
            }
            if *record.content != beat.content {
                let before = std::mem::replace(&mut record.content, Arc::new(beat.content));
                record.next_beat = NextBeat::Wakes;
                wake = true;
                if before.origin != record.content.origin {
                    self.pods.unnote(home, &record.lease, &before.origin);
                    self.pods.note(home, &record.lease, &record.content.origin);
                }
            }
        }
        let wake = if wake { vec![Key::clone(home)] } else { Vec::new() };
        Observed { beat: alive, since, wake }
    }

    fn insert(&mut self, home: Key, beat: Heartbeat, digest: Digest, now: MonotonicTime) -> Slot {
        let provenance = self.first_provenance(&beat);
        let record = Record {
            lease: beat.lease.into(),
            token: beat.token,
            version: beat.version,
            seen: now,
            silent_before: Duration::ZERO,
            provenance,
            carrier: None,
            way_changed: None,
            presence: Presence::Watched,
            silent_at: None,
            expired_at: None,
            grace: None,
            content: Arc::new(beat.content),
            placed: false,
            published: false,
            protected: false,
            rhythm: Rhythm::begin(now, self.is_first_list()),
            next_beat: NextBeat::Wakes,
            read_at: now,
        };
        self.owner += 1;
        let slot = self.store.insert(home, record, digest, self.list, self.owner);
        let Entry { record, home, .. } = self.store.get(slot);
        self.pods.note(home, &record.lease, &record.content.origin);
        self.followers.changed(home, &record.lease);
        self.cordons.observe(home, &record.lease, &record.token, &record.content);
        slot
    }

    /// The watch says that a Lease is deleted, at this version. A live read will confirm it (L4).
    pub fn observe_deleted(&mut self, lease: &Key, version: Version) -> Observed {
        let Some(slot) = self.find(lease) else { return Observed::default() };
        let Entry { record, home, .. } = self.store.get_mut(slot);
        // A late event of an earlier Lease with that name must not replace the state of the new one.
        if version < record.version {
            return Observed::default();
        }
        let wake = vec![Key::clone(home)];
        if record.content.deleting {
            // The last finalizer was removed. Whether the Lease is deleted or has lost its label, the instance has
            // ended, and no verdict on it will ask for a live read.
            self.forget(slot);
        } else {
            // A read that was answered before the deletion must not bring the Lease back.
            record.version = version;
            record.presence = Presence::Missing;
            record.next_beat = NextBeat::Wakes;
            self.followers.changed(home, &record.lease);
        }
        Observed { wake, ..Observed::default() }
    }

    /// Takes in a live read that was sent at `sent`. It is evidence of silence if it shows the known token, and a beat
    /// if it shows another.
    pub fn confirm(
        &mut self,
        lease: &Key,
        read: LiveRead,
        sent: MonotonicTime,
        now: MonotonicTime,
    ) -> Observed {
        match read {
            LiveRead::Found(beat) => {
                self.notice_rollback(lease, beat.version, sent);
                let token = beat.token.clone();
                let observed = self.show(&lease.namespace, beat, now);
                if let Some(record) = self.record_mut(lease)
                    && record.token == token
                    && !observed.beat
                {
                    record.silent_at = record.silent_at.max(Some(sent));
                }
                observed
            }
            LiveRead::Absent => {
                let Some(slot) = self.find(lease) else { return Observed::default() };
                let record = &self.store.get(slot).record;
                // A Lease that appeared after the read was sent is not absent. Within the same millisecond, the watch
                // decides.
                if record.seen < sent
                    || (record.seen == sent && record.presence != Presence::Watched)
                {
                    if self.outlasts_its_lease(slot, sent) {
                        return Observed::default();
                    }
                    let gone = self.forget(slot);
                    return Observed { wake: vec![Key::clone(&gone.home)], ..Observed::default() };
                }
                Observed::default()
            }
        }
    }

    /// Forgets a Lease of a registration that is gone. This needs no evidence, because nothing is published for it.
    pub fn drop_orphan(&mut self, registration: &Key, lease: &str) {
        if let Some(slot) = self.find_in(registration, lease) {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: Slot) -> Entry {
        let gone = self.store.remove(slot);
        self.pods.unnote(&gone.home, &gone.record.lease, &gone.record.content.origin);
        self.followers.stands_no_more(slot);
        self.followers.changed(&gone.home, &gone.record.lease);
        gone
    }
}
