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

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};

use super::{
    address::AddressSet, endpoint::Endpoint, inputs::Inputs, monotonic_time::MonotonicTime,
    plan::Write, verdict::Verdict,
};

/// The backoff doubles from the shortest to the longest pause.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// The longest pause for an object that cannot be written at all. It is shorter because the object may contain a dead
/// instance.
const LONGEST_CLOSED: Duration = Duration::from_secs(5);
/// The largest number of variants of one write that are tried. Addresses that were not tried by then count as refused.
pub const TRIALS_MAX: usize = 40;

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

/// What must not be tried at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// Addresses that must not be added to slices.
    pub slices: AddressSet,
    /// Addresses that must not be added to the Endpoints object.
    pub endpoints: AddressSet,
    /// Slices that must not be written.
    pub closed: HashSet<String>,
    /// Whether the Endpoints object must not be written.
    pub endpoints_closed: bool,
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

/// Removes the addresses that are held back from those to publish. Addresses that are already published stay.
pub(super) fn hold_back(endpoints: &mut Vec<Endpoint>, inputs: &Inputs) {
    let HeldBack { slices, endpoints: unlisted, .. } = &inputs.held_back;
    let published = &inputs.snapshot.published;
    endpoints.retain(|it| !slices.contains(&it.address) || published.contains(&it.address));
    if unlisted.is_empty() {
        return;
    }
    let listed = listed(inputs.snapshot.endpoints.as_deref());
    for endpoint in endpoints {
        if unlisted.contains(&endpoint.address) && !listed.contains(&endpoint.address) {
            endpoint.in_endpoints = None;
        }
    }
}

/// Removes from a write of the Endpoints object the addresses that it would add and that are in no slice. The API
/// server may have refused them in a slice. The Endpoints must not contain an address that a slice must not contain,
/// not even until the refusal has been searched for. The write still removes and changes what it should. Returns
/// `None` if nothing remains to be written.
pub fn without_unpublished(
    mut write: Write,
    before: Option<&core::Endpoints>,
    published: &AddressSet,
) -> Option<Write> {
    let (object, rest) = match &mut write {
        Write::CreateEndpoints(object) => (object, true),
        Write::UpdateEndpoints(object, tally) => {
            let rest = tally.removed > 0 || tally.changed > 0;
            tally.added = 0;
            (object, rest)
        }
        Write::CreateSlice(_)
        | Write::UpdateSlice(..)
        | Write::DeleteSlice { .. }
        | Write::DeleteEndpoints { .. } => return Some(write),
    };
    let before = listed(before);
    let mut added = 0;
    retain(object, |text| {
        let Ok(address) = text.parse::<IpAddr>() else { return true };
        let is_listed = before.contains(&address);
        added += usize::from(!is_listed && published.contains(&address));
        is_listed || published.contains(&address)
    });
    if let Write::UpdateEndpoints(_, tally) = &mut write {
        tally.added = added;
    }
    (rest || added > 0).then_some(write)
}

/// Keeps only some of the addresses of an Endpoints object.
fn retain(object: &mut core::Endpoints, mut stays: impl FnMut(&str) -> bool) {
    for subset in object.subsets.iter_mut().flatten() {
        let both = [&mut subset.addresses, &mut subset.not_ready_addresses];
        for addresses in both.into_iter().flatten() {
            addresses.retain(|address| stays(&address.ip));
        }
    }
    if let Some(subsets) = &mut object.subsets {
        subsets.retain(|subset| ips(subset).next().is_some());
    }
}

fn listed(object: Option<&core::Endpoints>) -> AddressSet {
    let subsets = object.into_iter().flat_map(|object| object.subsets.iter().flatten());
    subsets.flat_map(ips).filter_map(|text| text.parse().ok()).collect()
}

fn ips(subset: &core::EndpointSubset) -> impl Iterator<Item = &str> {
    let both = [&subset.addresses, &subset.not_ready_addresses];
    both.into_iter().flatten().flatten().map(|address| address.ip.as_str())
}

/// A write that was refused, and the addresses that it would have added.
#[derive(Debug, Clone)]
pub struct Trial {
    write: Write,
    newcomers: AddressSet,
    pods: Vec<IpAddr>,
    outside: Vec<IpAddr>,
}

impl Trial {
    /// A trial of a write that adds addresses to an object.
    pub fn of(write: &Write, inputs: &Inputs) -> Option<Self> {
        let (found, there): (Vec<(IpAddr, bool)>, AddressSet) = match write {
            Write::CreateSlice(slice) => (in_slice(slice), AddressSet::default()),
            Write::UpdateSlice(slice, _) => {
                let name = slice.metadata.name.as_ref();
                let slices = inputs.snapshot.slices.iter();
                let before = slices.filter(|it| it.metadata.name.as_ref() == name);
                let there = before.flat_map(|it| in_slice(it)).map(|(address, _)| address);
                (in_slice(slice), there.collect())
            }
            Write::CreateEndpoints(object) => (in_endpoints(object), AddressSet::default()),
            Write::UpdateEndpoints(object, _) => {
                (in_endpoints(object), listed(inputs.snapshot.endpoints.as_deref()))
            }
            Write::DeleteSlice { .. } | Write::DeleteEndpoints { .. } => return None,
        };
        let added = found.into_iter().filter(|(address, _)| !there.contains(address));
        let (pods, outside): (Vec<_>, Vec<_>) = added.partition(|(_, is_pod)| *is_pod);
        let addresses = |all: Vec<(IpAddr, bool)>| -> Vec<IpAddr> {
            all.into_iter().map(|(address, _)| address).collect()
        };
        let (pods, outside) = (addresses(pods), addresses(outside));
        let newcomers = pods.iter().chain(&outside).copied().collect();
        Some(Self { write: write.clone(), newcomers, pods, outside })
    }

    /// The kind of object that is written.
    pub fn place(&self) -> ObjectKind {
        if self.write.is_of_endpoints() { ObjectKind::Endpoints } else { ObjectKind::Slices }
    }

    /// The name of the object, if it already exists.
    pub fn existing(&self) -> Option<&str> {
        match &self.write {
            Write::UpdateSlice(slice, _) => slice.metadata.name.as_deref(),
            Write::UpdateEndpoints(object, _) => object.metadata.name.as_deref(),
            Write::CreateSlice(_)
            | Write::CreateEndpoints(_)
            | Write::DeleteSlice { .. }
            | Write::DeleteEndpoints { .. } => None,
        }
    }

    /// The same write with only some of the new addresses.
    pub fn with(&self, some: &[IpAddr]) -> Write {
        let stays = |text: &str| {
            let address = text.parse::<IpAddr>();
            address.is_ok_and(|it| !self.newcomers.contains(&it) || some.contains(&it))
        };
        let mut write = self.write.clone();
        match &mut write {
            Write::CreateSlice(slice) | Write::UpdateSlice(slice, _) => {
                slice.endpoints.retain(|endpoint| endpoint.addresses.iter().all(|it| stays(it)));
            }
            Write::CreateEndpoints(object) | Write::UpdateEndpoints(object, _) => {
                retain(object, stays);
            }
            Write::DeleteSlice { .. } | Write::DeleteEndpoints { .. } => {}
        }
        write
    }

    /// Starts a search for the addresses that caused the refusal.
    pub fn search(&self) -> Search {
        // Most policies distinguish Pods from outside instances, so these two groups are tried first.
        let groups = [self.outside.clone(), self.pods.clone()];
        let mut groups: Vec<_> = groups.into_iter().filter(|group| !group.is_empty()).collect();
        let known_bad = if groups.len() == 1 { groups.pop() } else { None };
        let mut search = Search { untried: groups, ..Search::default() };
        search.untried.reverse();
        if let Some(group) = known_bad {
            search.split(group);
        }
        search
    }
}

fn in_slice(slice: &discovery::EndpointSlice) -> Vec<(IpAddr, bool)> {
    let endpoints = slice.endpoints.iter().flat_map(|endpoint| {
        let is_pod = endpoint.target_ref.is_some();
        endpoint.addresses.iter().map(move |text| (text, is_pod))
    });
    endpoints.filter_map(|(text, is_pod)| Some((text.parse().ok()?, is_pod))).collect()
}

fn in_endpoints(object: &core::Endpoints) -> Vec<(IpAddr, bool)> {
    let subsets = object.subsets.iter().flatten();
    let both = subsets.flat_map(|it| [&it.addresses, &it.not_ready_addresses]).flatten().flatten();
    let mut all: Vec<(IpAddr, bool)> = both
        .filter_map(|address| Some((address.ip.parse().ok()?, address.target_ref.is_some())))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A bisection that finds the addresses that are refused.
#[derive(Debug, Default)]
pub struct Search {
    /// Groups of addresses that may be accepted or refused; the last group is tried next.
    untried: Vec<Vec<IpAddr>>,
    refused: Vec<IpAddr>,
    trials: usize,
}

impl Search {
    /// The addresses to try next; `None` if the search has ended.
    pub fn next_trial(&mut self) -> Option<Vec<IpAddr>> {
        if self.trials == TRIALS_MAX {
            self.refused.extend(self.untried.drain(..).flatten());
        }
        self.trials += 1;
        self.untried.pop()
    }

    /// Records whether these addresses were accepted.
    pub fn answer(&mut self, tried: Vec<IpAddr>, accepted: bool) {
        if !accepted {
            self.split(tried);
        }
    }

    /// The addresses that are refused.
    pub fn refused(self) -> Vec<IpAddr> {
        self.refused
    }

    /// Splits a group that contains a refused address.
    fn split(&mut self, mut group: Vec<IpAddr>) {
        if group.len() <= 1 {
            self.refused.append(&mut group);
            return;
        }
        let second = group.split_off(group.len() / 2);
        self.untried.extend([second, group]);
    }
}
