//! Addresses that the API server refuses to have published.
//!
//! An admission plugin may refuse a whole slice because of one address in it, and usually does not say which.
//! [`Search`] finds the address by bisection, so that the other addresses of its slice are published. [`Refusals`]
//! remembers it, and retries it with backoff.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    decide::verdict::Verdict,
    inputs::{Inputs, held_back::HeldBack},
    vocabulary::{address::AddressSet, monotonic_time::MonotonicTime},
};

/// The backoff doubles from the shortest to the longest pause.
const SHORTEST: Duration = Duration::from_secs(2);

const LONGEST: Duration = Duration::from_secs(60);

/// The longest pause for an object that cannot be written at all. It is shorter because the object may contain a dead
/// instance.
const LONGEST_CLOSED: Duration = Duration::from_secs(5);

/// The kind of object in which an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// The slices.
    Slices,
    /// The Endpoints object.
    Endpoints,
}

#[derive(Debug, Clone)]
struct Refused {
    words: Arc<str>,
    times: u32,
    until: MonotonicTime,
}

impl Refused {
    fn again(
        before: Option<&Self>,
        longest: Duration,
        words: &Arc<str>,
        now: MonotonicTime,
    ) -> Self {
        let times = before.map_or(0, |before| before.times.saturating_add(1));
        let pause = (SHORTEST * 2_u32.pow(times.min(10))).min(longest);
        Self { words: words.clone(), times, until: now + pause }
    }
}

/// The addresses and objects of a registration that the API server has refused.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    addresses: HashMap<(ObjectKind, IpAddr), Refused>,
    /// Objects, by kind and name, that are refused even if nothing is added to them.
    objects: HashMap<(ObjectKind, String), Refused>,
}

/// What is refused, with the message of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedNow {
    /// Addresses that are not in the slices because they are refused.
    pub addresses: HashMap<IpAddr, Arc<str>>,
    /// Objects that cannot be written, by kind and name.
    pub objects: BTreeMap<(ObjectKind, String), Arc<str>>,
    /// Addresses that are not in the Endpoints object because they are refused.
    pub unlisted: BTreeMap<IpAddr, Arc<str>>,
}

impl RefusedNow {
    /// Whether nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.objects.is_empty() && self.unlisted.is_empty()
    }

    /// The refusals as text, for a condition.
    pub fn tell(&self) -> String {
        let first = self.addresses.iter().min_by_key(|(address, _)| **address);
        let listed = self.unlisted.iter().next();
        let object = self.objects.iter().next();
        match (first, object, listed) {
            (Some((address, words)), ..) => {
                let more = match self.addresses.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("not published, and tried again: {address}{more}: {words}")
            }
            (None, Some(((_, name), words)), _) => {
                format!("{name} cannot be brought up to date, and is tried again: {words}")
            }
            (None, None, Some((address, words))) => {
                format!("not listed in Endpoints, and tried again: {address}: {words}")
            }
            (None, None, None) => String::new(),
        }
    }
}

impl Refusals {
    /// Records that an address was refused.
    pub fn refuse(
        &mut self,
        place: ObjectKind,
        address: IpAddr,
        words: &Arc<str>,
        now: MonotonicTime,
    ) {
        let known = self.addresses.get(&(place, address));
        let refused = Refused::again(known, LONGEST, words, now);
        self.addresses.insert((place, address), refused);
    }

    /// Records that an object was refused although nothing was added to it.
    pub fn close(&mut self, place: ObjectKind, name: &str, words: &Arc<str>, now: MonotonicTime) {
        let key = (place, name.to_owned());
        let refused = Refused::again(self.objects.get(&key), LONGEST_CLOSED, words, now);
        self.objects.insert(key, refused);
    }

    /// The addresses and objects that must not be tried yet.
    pub fn held_back(&self, now: MonotonicTime) -> HeldBack {
        let mut held = HeldBack::default();
        for ((place, address), _) in self.addresses.iter().filter(|(_, it)| it.until > now) {
            match place {
                ObjectKind::Slices => held.slices.insert(*address),
                ObjectKind::Endpoints => held.endpoints.insert(*address),
            };
        }
        for ((place, name), _) in self.objects.iter().filter(|(_, it)| it.until > now) {
            match place {
                ObjectKind::Slices => drop(held.closed.insert(name.clone())),
                ObjectKind::Endpoints => held.endpoints_closed = true,
            }
        }
        held
    }

    /// When the next retry is due.
    pub fn next(&self) -> Option<MonotonicTime> {
        let all = self.addresses.values().chain(self.objects.values());
        all.map(|refused| refused.until).min()
    }

    /// The addresses and objects that are still refused after a plan was carried out. Those that were accepted since,
    /// or are no longer wanted, are forgotten.
    pub fn update(
        &mut self,
        verdicts: &[Verdict],
        inputs: &Inputs,
        now: MonotonicTime,
    ) -> RefusedNow {
        if self.addresses.is_empty() && self.objects.is_empty() {
            return RefusedNow::default();
        }
        let wanted: AddressSet = verdicts
            .iter()
            .filter(|verdict| verdict.is_published())
            .flat_map(|verdict| verdict.placement.iter().flat_map(|it| &it.addresses))
            .copied()
            .collect();
        // What was held back is still refused. What was tried and not refused again was accepted.
        let held = &inputs.held_back;
        self.addresses.retain(|(place, address), it| {
            let held = match place {
                ObjectKind::Slices => held.slices.contains(address),
                ObjectKind::Endpoints => held.endpoints.contains(address),
            };
            (held || it.until > now) && wanted.contains(address)
        });
        let slices: HashSet<&str> =
            inputs.snapshot.slices.iter().filter_map(|it| it.metadata.name.as_deref()).collect();
        self.objects.retain(|(place, name), it| match place {
            ObjectKind::Slices => {
                (held.closed.contains(name) || it.until > now) && slices.contains(name.as_str())
            }
            ObjectKind::Endpoints => held.endpoints_closed || it.until > now,
        });
        let of = |place| {
            let refused = self.addresses.iter().filter(move |((it, _), _)| *it == place);
            refused.map(|((_, address), it)| (*address, it.words.clone()))
        };
        let objects = self.objects.iter().map(|(key, it)| (key.clone(), it.words.clone()));
        RefusedNow {
            addresses: of(ObjectKind::Slices).collect(),
            unlisted: of(ObjectKind::Endpoints).collect(),
            objects: objects.collect(),
        }
    }
}
