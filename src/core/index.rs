//! The liveness index: when each instance was last seen to beat.
//!
//! The watch of the heartbeat Leases feeds it directly, without a reconciliation: a beat costs a few
//! look-ups, whatever the size of its service (P4). Only what may change a decision wakes the
//! registration.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    heartbeat::{Claim, Heartbeat, Origin, Token, Version},
    moment::Moment,
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
    /// It was seen to change, or to appear: something beats.
    Changed,
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
    /// How the token came to be known.
    pub sight: Sight,
    /// Whether the watch shows the Lease.
    pub presence: Presence,
    /// The latest moment of which a live read proves that the token was still this one (L2).
    pub silent_at: Option<Moment>,
    /// Since when the instance is decided to be dead; only a new token revives it, no edit of ttl.
    pub expired_at: Option<Moment>,
    /// The rest of what the Lease says.
    pub claim: Arc<Claim>,
    /// Whether a beat changes no decision, so that none needs to be taken.
    quiet: bool,
}

/// What became of an observation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether a token of life changed.
    pub beat: bool,
    /// The registrations whose decision may change.
    pub wake: Vec<Key>,
}

/// What a live read of one Lease found (L2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveRead {
    /// The Lease as it is.
    Found(Heartbeat),
    /// There is no such Lease: the API server said 404.
    Absent,
}

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
        for (registration, records) in &mut self.registrations {
            let mut woken = false;
            for record in records.values_mut() {
                let key = Key::new(&registration.namespace, &*record.lease);
                if record.presence == Presence::Watched && !shown.contains(&key) {
                    record.presence = Presence::Missing;
                    woken = true;
                }
            }
            if woken {
                wake.push(registration.clone());
            }
        }
        Observed { beat: false, wake }
    }

    /// The watch, or a live read, shows a Lease.
    pub fn observe(&mut self, namespace: &str, beat: Heartbeat, now: Moment) -> Observed {
        let lease = Key::new(namespace, &beat.lease);
        if let Some(shown) = &mut self.listing {
            shown.insert(lease.clone());
        }
        let home = self.home_of(&lease);
        let Some(registration) = beat.registration.clone() else {
            return match home {
                Some(home) => self.lost_its_label(home, &lease, beat, now),
                None => Observed::default(),
            };
        };
        let key = Key::new(namespace, registration);
        let mut moved = Vec::new();
        if let Some(old) = home.filter(|old| *old != key) {
            if self.record(&old, &beat.lease).is_some_and(|record| record.version >= beat.version) {
                return Observed::default();
            }
            self.forget(&old, &lease);
            moved.push(old);
        }
        let mut observed = self.observe_in(key, &lease, beat, Presence::Watched, now);
        observed.wake.append(&mut moved);
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
            return Observed { beat: !initial, wake: vec![key] };
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
        let alive = beat.token != record.token;
        if alive {
            record.token = beat.token;
            record.seen = now;
            record.sight = Sight::Changed;
            record.silent_at = None;
            record.expired_at = None;
            wake |= !record.quiet;
        }
        if *record.claim != beat.claim {
            let moved = record.claim.origin != beat.claim.origin;
            record.claim = Arc::new(beat.claim);
            record.quiet = false;
            wake = true;
            if moved {
                let origin = record.claim.origin.clone();
                self.note_pod(&key, &origin);
            }
        }
        Observed { beat: alive, wake: if wake { vec![key] } else { Vec::new() } }
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
            sight: if initial { Sight::Inherited } else { Sight::Changed },
            presence,
            silent_at: None,
            expired_at: None,
            claim: Arc::new(beat.claim),
            quiet: false,
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
                record.presence = Presence::Missing;
                record.quiet = false;
                Observed { beat: false, wake: vec![home] }
            }
            _ => Observed::default(),
        }
    }

    /// Takes in a live read that was sent at `sent`. It counts as evidence of silence when it shows
    /// the very token that is known, and as life when it shows another.
    pub fn confirm(&mut self, lease: &Key, read: LiveRead, sent: Moment, now: Moment) -> Observed {
        match read {
            LiveRead::Found(beat) => {
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
                // Only what the watch has lost too: a Lease that appeared since is not absent.
                Some(home)
                    if self.record(&home, &lease.name).is_some_and(|record| {
                        record.presence != Presence::Watched || record.seen < sent
                    }) =>
                {
                    self.forget(&home, lease);
                    Observed { beat: false, wake: vec![home] }
                }
                _ => Observed::default(),
            },
        }
    }

    /// The records of a registration as they are now, by the name of the Lease.
    pub fn snapshot(&self, registration: &Key) -> Vec<Record> {
        self.registrations
            .get(registration)
            .map(|records| records.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Notes what was decided, for each Lease of a registration. Returns false when something has
    /// changed since the snapshot the decision was taken from: then it must be taken again, since
    /// what changed in between woke nobody.
    pub fn settle(&mut self, registration: &Key, outcomes: &[Settled], now: Moment) -> bool {
        let Some(records) = self.registrations.get_mut(registration) else {
            return outcomes.is_empty();
        };
        let mut current = records.len() == outcomes.len();
        for outcome in outcomes {
            let Some(record) = records.get_mut(&outcome.lease) else {
                current = false;
                continue;
            };
            // A beat of a quiet instance changes the version only: the decision stands.
            current &= record.token == outcome.token
                || (outcome.quiet && record.quiet && !outcome.expired);
            record.quiet = outcome.quiet;
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

    /// Forgets a Lease.
    fn forget(&mut self, registration: &Key, lease: &Key) {
        self.misnamed.remove(lease);
        let Some(records) = self.registrations.get_mut(registration) else { return };
        let gone = records.remove(&*lease.name);
        if let Some(Record { claim, .. }) = gone
            && let Origin::Pod { name, .. } = &claim.origin
        {
            let still = records.values().any(
                |record| matches!(&record.claim.origin, Origin::Pod { name: other, .. } if other == name),
            );
            let pod = Key::new(&lease.namespace, name);
            if !still && let Some(registrations) = self.pods.get_mut(&pod) {
                registrations.remove(&registration.name);
                if registrations.is_empty() {
                    self.pods.remove(&pod);
                }
            }
        }
        if records.is_empty() {
            self.registrations.remove(registration);
        }
    }

    fn note_pod(&mut self, registration: &Key, origin: &Origin) {
        if let Origin::Pod { name, .. } = origin {
            let pod = Key::new(&registration.namespace, name);
            self.pods.entry(pod).or_default().insert(registration.name.clone());
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
    /// Whether it was found published at a cold start, and so has a ttl to beat in.
    pub granted: bool,
}

/// Whether a Lease of this name can be found by its name alone.
fn agrees(lease: &str, registration: &str) -> bool {
    lease.split('.').next() == Some(registration)
}
