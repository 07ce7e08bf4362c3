//! The liveness index: when each instance was last seen to beat.
//!
//! The watch of the heartbeat Leases feeds it directly, without a reconciliation: a beat costs a few
//! look-ups, whatever the size of its service (P4). Only what may change a decision wakes the
//! registration.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    heartbeat::{Heartbeat, Origin, Version},
    memory::Memory,
    moment::Moment,
};

mod record;

pub use record::{Key, LiveRead, Observed, Presence, Record, Settled, Sight};

/// The liveness index of all registrations.
#[derive(Debug, Default)]
pub struct Index {
    registrations: HashMap<Key, BTreeMap<Arc<str>, Record>>,
    /// Leases whose name does not begin with the registration their label names, by their own key.
    misnamed: HashMap<Key, String>,
    /// The registrations with an instance in a Pod, by the Pod.
    pods: HashMap<Key, HashSet<String>>,
    /// While a list is being read: what it has shown so far.
    listing: Option<HashSet<Key>>,
    /// Whether the first list has been read to its end.
    complete: bool,
}

impl Index {
    /// Whether the first list has been read to its end.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// A list begins: what it does not show will be missing at its end.
    pub fn begin_list(&mut self) {
        self.listing = Some(HashSet::new());
    }

    /// The list has ended. A Lease that it did not show is missing; to be gone it takes a live read.
    pub fn end_list(&mut self) -> Observed {
        self.complete = true;
        let Some(shown) = self.listing.take() else { return Observed::default() };
        let mut wake = Vec::new();
        let mut over = Vec::new();
        for (registration, records) in &mut self.registrations {
            let mut woken = false;
            for record in records.values_mut() {
                let key = Key::new(&registration.namespace, &*record.lease);
                if record.presence == Presence::Watched && !shown.contains(&key) {
                    record.presence = Presence::Missing;
                    woken = true;
                    if record.claim.deleting {
                        over.push((registration.clone(), key));
                    }
                }
            }
            if woken {
                wake.push(registration.clone());
            }
        }
        for (registration, lease) in over {
            self.forget(&registration, &lease);
        }
        Observed { wake, ..Observed::default() }
    }

    /// How long Leases had been silent before this process began, as an earlier one has proven (L5).
    /// Those that have beaten since are not concerned.
    pub fn recall(&mut self, memory: &Memory) {
        let records = self.registrations.values_mut().flat_map(BTreeMap::values_mut);
        for record in records.filter(|record| record.sight != Sight::Changed) {
            record.silent_before = memory.silence(record.version);
        }
    }

    /// The watch, or a live read, shows a Lease.
    pub fn observe(&mut self, namespace: &str, mut beat: Heartbeat, now: Moment) -> Observed {
        let lease = Key::new(namespace, &beat.lease);
        if let Some(shown) = &mut self.listing {
            shown.insert(lease.clone());
        }
        let home = self.home_of(&lease);
        let Some(registration) = beat.registration.take() else {
            return match home {
                Some(home) => self.lost_its_label(home, &lease, beat, now),
                None => Observed::default(),
            };
        };
        let key = Key::new(namespace, registration);
        match home.filter(|old| *old != key) {
            Some(old) => self.relabelled(old, key, &lease, beat, now),
            None => self.observe_in(key, &lease, beat, Presence::Watched, now),
        }
    }

    /// A Lease that was given to another registration takes its life along: a change of label is no
    /// beat, and must not revive what has expired.
    fn relabelled(
        &mut self,
        old: Key,
        key: Key,
        lease: &Key,
        beat: Heartbeat,
        now: Moment,
    ) -> Observed {
        if self.record(&old, &lease.name).is_some_and(|record| record.version >= beat.version) {
            return Observed::default();
        }
        let before = self.forget(&old, lease).filter(|before| before.token == beat.token);
        let mut observed = self.observe_in(key.clone(), lease, beat, Presence::Watched, now);
        if let Some(before) = before
            && let Some(record) = self.record_mut(&key, &lease.name)
        {
            let Record { seen, silent_before, sight, silent_at, expired_at, .. } = before;
            *record =
                Record { seen, silent_before, sight, silent_at, expired_at, ..record.clone() };
            observed.beat = false;
            observed.since = None;
        }
        observed.wake.push(old);
        observed
    }

    fn observe_in(
        &mut self,
        key: Key,
        lease: &Key,
        beat: Heartbeat,
        presence: Presence,
        now: Moment,
    ) -> Observed {
        let initial = self.listing.is_some() && !self.complete;
        let Some(record) =
            self.registrations.get_mut(&key).and_then(|all| all.get_mut(&*beat.lease))
        else {
            self.insert(key.clone(), lease, beat, presence, initial, now);
            return Observed { beat: !initial, since: None, wake: vec![key] };
        };
        if beat.version < record.version {
            return Observed::default();
        }
        let mut wake = false;
        if record.presence != presence {
            record.presence = presence;
            wake = true;
        }
        record.version = beat.version;
        record.read_at = now;
        let alive = beat.token != record.token;
        let mut since = None;
        if alive {
            since = (record.sight == Sight::Changed).then(|| now.since(record.seen));
            record.token = beat.token;
            record.seen = now;
            record.silent_before = Duration::ZERO;
            record.sight = Sight::Changed;
            record.silent_at = None;
            record.expired_at = None;
            wake |= !record.quiet;
        }
        if *record.claim != beat.claim {
            let before = std::mem::replace(&mut record.claim, Arc::new(beat.claim));
            record.quiet = false;
            wake = true;
            if before.origin != record.claim.origin {
                let origin = record.claim.origin.clone();
                self.note_pod(&key, &origin);
                self.unnote_pod(&key, &before.origin);
            }
        }
        Observed { beat: alive, since, wake: if wake { vec![key] } else { Vec::new() } }
    }

    fn insert(
        &mut self,
        key: Key,
        lease: &Key,
        beat: Heartbeat,
        presence: Presence,
        initial: bool,
        now: Moment,
    ) {
        self.note_pod(&key, &beat.claim.origin);
        if !agrees(&lease.name, &key.name) {
            self.misnamed.insert(lease.clone(), key.name.clone());
        }
        let name: Arc<str> = beat.lease.into();
        let record = Record {
            lease: name.clone(),
            token: beat.token,
            version: beat.version,
            seen: now,
            silent_before: Duration::ZERO,
            sight: if initial { Sight::Inherited } else { Sight::Changed },
            presence,
            silent_at: None,
            expired_at: None,
            claim: Arc::new(beat.claim),
            placed: false,
            published: false,
            quiet: false,
            read_at: now,
        };
        self.registrations.entry(key).or_default().insert(name, record);
    }

    /// A Lease without its label is followed where it was known, and nowhere else.
    fn lost_its_label(&mut self, home: Key, lease: &Key, beat: Heartbeat, now: Moment) -> Observed {
        self.observe_in(home, lease, beat, Presence::Unlabelled, now)
    }

    /// The watch says that a Lease is deleted, at this version: a live read will tell (L4).
    pub fn observe_deleted(&mut self, lease: &Key, version: Version) -> Observed {
        let Some(home) = self.home_of(lease) else { return Observed::default() };
        let record = self.registrations.get_mut(&home).and_then(|all| all.get_mut(&*lease.name));
        match record {
            // A late event of an earlier Lease of that name must not overtake the new one.
            Some(record) if version >= record.version => {
                // A finalizer has let it go: whether it is deleted or lost its label, it is over,
                // and no verdict of it will ask for a live read.
                if record.claim.deleting {
                    self.forget(&home, lease);
                    return Observed { wake: vec![home], ..Observed::default() };
                }
                // A read that was answered before the deletion must not bring the Lease back.
                record.version = version;
                record.presence = Presence::Missing;
                record.quiet = false;
                Observed { wake: vec![home], ..Observed::default() }
            }
            _ => Observed::default(),
        }
    }

    /// Takes in a live read that was sent at `sent`. It counts as evidence of silence when it shows
    /// the very token that is known, and as life when it shows another.
    pub fn confirm(&mut self, lease: &Key, read: LiveRead, sent: Moment, now: Moment) -> Observed {
        match read {
            LiveRead::Found(beat) => {
                self.notice_rollback(lease, beat.version, sent);
                let token = beat.token.clone();
                let observed = self.observe(&lease.namespace, beat, now);
                if let Some(home) = self.home_of(lease)
                    && let Some(record) = self.record_mut(&home, &lease.name)
                    && record.token == token
                    && !observed.beat
                {
                    record.silent_at = record.silent_at.max(Some(sent));
                }
                observed
            }
            LiveRead::Absent => match self.home_of(lease) {
                // A Lease that appeared since the read was sent is not absent. In the same
                // millisecond the watch's word decides.
                Some(home)
                    if self.record(&home, &lease.name).is_some_and(|record| {
                        record.seen < sent
                            || (record.seen == sent && record.presence != Presence::Watched)
                    }) =>
                {
                    self.forget(&home, lease);
                    Observed { wake: vec![home], ..Observed::default() }
                }
                _ => Observed::default(),
            },
        }
    }

    /// A live read is answered from a quorum, so one that was sent after a version was known can
    /// show a lower one only when the API server's history was rolled back (etcd restored from a
    /// backup). Then the old versions mean nothing: holding on to them would make this index deaf
    /// for the instance until the new ones have caught up.
    fn notice_rollback(&mut self, lease: &Key, version: Version, sent: Moment) {
        if let Some(home) = self.home_of(lease)
            && let Some(record) = self.record_mut(&home, &lease.name)
            && version < record.version
            && record.read_at < sent
            // A deletion has raised the version without a reading of the Lease.
            && record.presence != Presence::Missing
        {
            record.version = version;
        }
    }

    /// The records of a registration as they are now, by the name of the Lease.
    pub fn snapshot(&self, registration: &Key) -> Vec<Record> {
        self.registrations
            .get(registration)
            .map(|records| records.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Notes what was decided, for each Lease of a registration. Returns false when a beat since the
    /// snapshot has overtaken the decision: then it must be taken again before anything is written,
    /// since that beat may have woken nobody. Whatever else happened in between (a Lease that came,
    /// went or was changed) has woken the registration itself, so the decision may stand until
    /// then. Leases without an outcome are those that are gone but not collected.
    pub fn settle(&mut self, registration: &Key, outcomes: &[Settled], now: Moment) -> bool {
        let Some(records) = self.registrations.get_mut(registration) else {
            return outcomes.is_empty();
        };
        let mut current = true;
        for outcome in outcomes {
            let Some(record) = records.get_mut(&outcome.lease) else {
                current = false;
                continue;
            };
            // A beat of a quiet instance changes the version only: the decision stands.
            current &= record.token == outcome.token
                || (outcome.quiet && record.quiet && !outcome.expired);
            record.quiet = outcome.quiet;
            record.placed |= outcome.placed;
            record.published = outcome.published;
            if outcome.granted && record.sight == Sight::Inherited {
                record.sight = Sight::Granted;
            }
            record.expired_at = match (outcome.expired, record.expired_at) {
                (true, None) if record.token == outcome.token => Some(now),
                (_, known) => known,
            };
        }
        current
    }

    /// The registrations that have an instance in this Pod.
    pub fn registrations_of_pod(&self, pod: &Key) -> Vec<Key> {
        self.pods
            .get(pod)
            .into_iter()
            .flatten()
            .map(|name| Key::new(&pod.namespace, name))
            .collect()
    }

    /// All registrations for which a Lease is known, whether they exist or not.
    pub fn registrations(&self) -> impl Iterator<Item = (&Key, impl Iterator<Item = &Record>)> {
        self.registrations.iter().map(|(key, records)| (key, records.values()))
    }

    /// Forgets a Lease. For those whose registration is gone: nothing is published for them, so it
    /// takes no evidence.
    pub fn drop_orphan(&mut self, registration: &Key, lease: &str) {
        self.forget(registration, &Key::new(&registration.namespace, lease));
    }

    /// Forgets a Lease.
    fn forget(&mut self, registration: &Key, lease: &Key) -> Option<Record> {
        self.misnamed.remove(lease);
        let records = self.registrations.get_mut(registration)?;
        let gone = records.remove(&*lease.name)?;
        if records.is_empty() {
            self.registrations.remove(registration);
        }
        self.unnote_pod(registration, &gone.claim.origin);
        Some(gone)
    }

    fn note_pod(&mut self, registration: &Key, origin: &Origin) {
        if let Origin::Pod { name, .. } = origin {
            let pod = Key::new(&registration.namespace, name);
            self.pods.entry(pod).or_default().insert(registration.name.clone());
        }
    }

    /// Drops the entry of a Pod that no Lease of the registration names any more.
    fn unnote_pod(&mut self, registration: &Key, origin: &Origin) {
        let Origin::Pod { name, .. } = origin else { return };
        let still = self.registrations.get(registration).is_some_and(|records| {
            records.values().any(
                |record| matches!(&record.claim.origin, Origin::Pod { name: other, .. } if other == name),
            )
        });
        let pod = Key::new(&registration.namespace, name);
        if !still && let Some(registrations) = self.pods.get_mut(&pod) {
            registrations.remove(&registration.name);
            if registrations.is_empty() {
                self.pods.remove(&pod);
            }
        }
    }

    /// Where a Lease is kept, if it is known.
    fn home_of(&self, lease: &Key) -> Option<Key> {
        let name = match self.misnamed.get(lease) {
            Some(registration) => registration.as_str(),
            None => lease.name.split('.').next()?,
        };
        let key = Key::new(&lease.namespace, name);
        self.record(&key, &lease.name).is_some().then_some(key)
    }

    fn record(&self, registration: &Key, lease: &str) -> Option<&Record> {
        self.registrations.get(registration)?.get(lease)
    }

    fn record_mut(&mut self, registration: &Key, lease: &str) -> Option<&mut Record> {
        self.registrations.get_mut(registration)?.get_mut(lease)
    }
}

/// Whether a Lease of this name can be found by its name alone.
fn agrees(lease: &str, registration: &str) -> bool {
    lease.split('.').next() == Some(registration)
}
