//! Tempering: what a tenant toggles is written at a bounded pace.
//!
//! Whatever an instance says of itself it may say twenty times a second, and each time would be a slice, an Endpoints
//! object, a status and an event, which all Nodes read. Who leaves does so at once, and so does who joins or gets worse,
//! for some times in a row; then these have a pace, too. Who gets better again, or comes back right after it has left,
//! has a slower one. What has to wait stays published as it is, and the last word always counts.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::{HashMap, HashSet};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};

use super::{
    bucket::{Bucket, Limit},
    endpoint::{Conditions, Endpoint, EndpointsReadiness, PodRef, PortSet},
    moment::Moment,
    plan::{ports_of, says},
};

/// Who joins.
const JOINS: Limit = Limit { burst: 20, every: Duration::from_millis(200) };
/// Who is not ready any more, or drains: the sooner the better.
const WORSE: Limit = Limit { burst: 10, every: Duration::from_millis(200) };
/// All other changes.
const OTHER: Limit = Limit { burst: 5, every: Duration::from_secs(1) };
/// Who joins so soon after it has left comes back.
const COMES_BACK: Duration = Duration::from_secs(10);
/// So many who have left are remembered of a registration.
const LEFT_MAX: usize = 10_000;

/// Statuses whose difference is urgent.
pub const STATUSES: Limit = Limit { burst: 10, every: Duration::from_millis(500) };
/// Reports with events.
pub const EVENTS: Limit = Limit { burst: 20, every: Duration::from_millis(500) };
/// Changes of the Service's ports.
pub const SERVICES: Limit = Limit { burst: 5, every: Duration::from_secs(1) };
/// Leases that get their cordon back.
pub const CORDONS: Limit = Limit { burst: 10, every: Duration::from_secs(1) };

/// What is written for a registration has a pace each. Kept by its name, so that one that is made anew again and again
/// has no more.
#[derive(Debug, Default)]
pub struct Paces {
    /// Slices and Endpoints.
    pub temper: Temper,
    /// The status.
    pub statuses: Bucket,
    /// Events.
    pub events: Bucket,
    /// The Service.
    pub services: Bucket,
    /// Leases.
    pub cordons: Bucket,
}

impl Paces {
    /// Whether it is as if nothing had been written lately.
    pub fn are_calm(&self, now: Moment) -> bool {
        let Self { temper, statuses, events, services, cordons } = self;
        let buckets = [statuses, events, services, cordons];
        temper.is_calm(now) && buckets.into_iter().all(|bucket| bucket.is_full(now))
    }
}

/// A kind of change that has a pace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Joins,
    Worse,
    Other,
}

/// The pace of a registration.
#[derive(Debug, Default)]
pub struct Temper {
    joins: Bucket,
    worse: Bucket,
    other: Bucket,
    /// Who has left lately.
    left: HashMap<IpAddr, Moment>,
}

/// What is allowed in one reconciliation, however often it plans anew. A batch takes one of each kind, however many
/// instances change.
#[derive(Debug, Default)]
pub struct Permits {
    joins: Option<Result<(), Moment>>,
    worse: Option<Result<(), Moment>>,
    other: Option<Result<(), Moment>>,
}

impl Permits {
    /// When what was not allowed will be.
    pub fn look_again(&self) -> Option<Moment> {
        let asked = [self.joins, self.worse, self.other].into_iter().flatten();
        asked.filter_map(Result::err).min()
    }

    fn allow(&mut self, change: Change, temper: &mut Temper, now: Moment) -> bool {
        let (permit, bucket, limit) = match change {
            Change::Joins => (&mut self.joins, &mut temper.joins, JOINS),
            Change::Worse => (&mut self.worse, &mut temper.worse, WORSE),
            Change::Other => (&mut self.other, &mut temper.other, OTHER),
        };
        permit.get_or_insert_with(|| bucket.take(limit, now)).is_ok()
    }
}

impl Temper {
    /// What is to be published now, of what is wanted: the same, but for the changes that have to wait.
    pub fn restrain(
        &mut self,
        wanted: Vec<Endpoint>,
        slices: &[Arc<EndpointSlice>],
        permits: &mut Permits,
        now: Moment,
    ) -> Vec<Endpoint> {
        let published = Shown::read(slices);
        let mut wanted_at: HashMap<IpAddr, usize> = HashMap::with_capacity(wanted.len());
        for endpoint in &wanted {
            *wanted_at.entry(endpoint.address).or_default() += 1;
        }
        self.note_who_leaves(&wanted_at, &published, now);
        let shared = Shared::of(&wanted, &wanted_at, &published);
        let choose = |endpoint: Endpoint| self.choose(endpoint, &published, &shared, permits, now);
        wanted.into_iter().filter_map(choose).collect()
    }

    /// The endpoint as it is to be published now, if it is.
    fn choose(
        &mut self,
        wanted: Endpoint,
        published: &Shown<'_>,
        shared: &Shared<'_>,
        permits: &mut Permits,
        now: Moment,
    ) -> Option<Endpoint> {
        let Some(shown) = published.of(wanted.address) else {
            if published.is_elsewhere(wanted.address) {
                return Some(wanted);
            }
            let change = match self.left.get(&wanted.address) {
                Some(_) => Change::Other,
                None => Change::Joins,
            };
            return permits.allow(change, self, now).then_some(wanted);
        };
        let Some(known) = shown.iter().find(|known| known.ports == wanted.ports) else {
            // Another port.
            return match (&**shown, shared.place_of(&wanted)) {
                ([before], None) | (_, Some(Place::Of(before))) => {
                    let allowed = permits.allow(Change::Other, self, now);
                    Some(if allowed { wanted } else { before.as_it_is(wanted) })
                }
                (_, Some(Place::New)) => permits.allow(Change::Joins, self, now).then_some(wanted),
                (_, Some(Place::Unknown) | None) => Some(wanted),
            };
        };
        if says(known.endpoint, &wanted) {
            return Some(wanted);
        }
        let change = match known.gets_worse(&wanted) {
            true => Change::Worse,
            false => Change::Other,
        };
        let allowed = permits.allow(change, self, now);
        Some(if allowed { wanted } else { known.as_it_is(wanted) })
    }

    fn note_who_leaves(
        &mut self,
        wanted: &HashMap<IpAddr, usize>,
        published: &Shown<'_>,
        now: Moment,
    ) {
        self.left.retain(|_, at| now.since(*at) < COMES_BACK);
        for address in published.addresses().filter(|address| !wanted.contains_key(*address)) {
            if self.left.len() < LEFT_MAX {
                self.left.insert(*address, now);
            }
        }
    }

    /// Whether it is as if nothing had happened lately.
    pub fn is_calm(&self, now: Moment) -> bool {
        let Self { joins, worse, other, left } = self;
        [joins, worse, other].into_iter().all(|bucket| bucket.is_full(now))
            && left.values().all(|at| now.since(*at) >= COMES_BACK)
    }
}

/// The places of those whose port is not published yet, at addresses with several ports, before or after.
struct Shared<'a>(HashMap<(IpAddr, PortSet), Place<'a>>);

/// Which of the ports that are published at an address belonged to the one that has another now.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// No instance has left, so it does not matter which: in the end each has its new one.
    Of(&'a Known<'a>),
    /// None: it is one more.
    New,
    /// There are fewer than before: it cannot be told whose port has gone, and who leaves leaves at once.
    Unknown,
}

impl<'a> Shared<'a> {
    fn of(
        wanted: &[Endpoint],
        wanted_at: &HashMap<IpAddr, usize>,
        published: &'a Shown<'a>,
    ) -> Self {
        let mut at: HashMap<IpAddr, Vec<&Endpoint>> = HashMap::new();
        for endpoint in wanted {
            let shown = published.of(endpoint.address);
            if shown.is_some_and(|shown| shown.len() > 1 || wanted_at[&endpoint.address] > 1) {
                at.entry(endpoint.address).or_default().push(endpoint);
            }
        }
        let mut places = HashMap::new();
        for (address, there) in at {
            let Some(shown) = published.of(address) else { continue };
            let stays = |known: &Known<'_>| there.iter().any(|it| it.ports == known.ports);
            let is_new = |it: &&&Endpoint| shown.iter().all(|known| known.ports != it.ports);
            let changed: Vec<&&Endpoint> = there.iter().filter(is_new).collect();
            let mut free = shown.iter().filter(|known| !stays(known));
            let fewer = free.clone().count() > changed.len();
            for endpoint in changed {
                let place = match free.next().filter(|_| !fewer) {
                    Some(known) => Place::Of(known),
                    None if fewer => Place::Unknown,
                    None => Place::New,
                };
                places.insert((address, endpoint.ports.clone()), place);
            }
        }
        Self(places)
    }

    fn place_of(&self, endpoint: &Endpoint) -> Option<Place<'a>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(endpoint.address, endpoint.ports.clone())).copied()
    }
}

/// What is published, by address.
struct Shown<'a> {
    known: HashMap<IpAddr, Vec<Known<'a>>>,
    /// The addresses in endpoints that are not such as we write them: several in one, or without a port's number.
    elsewhere: HashSet<IpAddr>,
}

struct Known<'a> {
    ports: PortSet,
    endpoint: &'a discovery::Endpoint,
}

impl<'a> Shown<'a> {
    fn read(slices: &'a [Arc<EndpointSlice>]) -> Self {
        let mut shown = Self { known: HashMap::new(), elsewhere: HashSet::new() };
        for slice in slices {
            let ports = ports_of(slice);
            for endpoint in &slice.endpoints {
                let is_ours = endpoint.addresses.len() == 1;
                for address in
                    endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok())
                {
                    let Some(ports) = ports.clone().filter(|_| is_ours) else {
                        shown.elsewhere.insert(address);
                        continue;
                    };
                    shown.known.entry(address).or_default().push(Known { ports, endpoint });
                }
            }
        }
        shown
    }

    fn of(&self, address: IpAddr) -> Option<&Vec<Known<'a>>> {
        self.known.get(&address)
    }

    /// Whether an address is published, and none of the endpoints that can be compared is its.
    fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.elsewhere.contains(&address)
    }

    fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.known.keys()
    }
}

impl Known<'_> {
    fn conditions(&self) -> Conditions {
        let told = self.endpoint.conditions.as_ref();
        let is = |condition: Option<bool>, otherwise| condition.unwrap_or(otherwise);
        Conditions {
            ready: is(told.and_then(|told| told.ready), true),
            serving: is(told.and_then(|told| told.serving), true),
            terminating: is(told.and_then(|told| told.terminating), false),
        }
    }

    fn gets_worse(&self, wanted: &Endpoint) -> bool {
        let (before, after) = (self.conditions(), wanted.conditions);
        (before.ready && !after.ready) || (!before.terminating && after.terminating)
    }

    /// The same endpoint as it is published.
    fn as_it_is(&self, wanted: Endpoint) -> Endpoint {
        let discovery::Endpoint { hostname, node_name, target_ref, zone, .. } = self.endpoint;
        let conditions = self.conditions();
        Endpoint {
            ports: self.ports.clone(),
            conditions,
            hostname: hostname.clone(),
            node_name: node_name.clone(),
            zone: zone.clone(),
            pod: target_ref.as_ref().map(|pod| PodRef {
                namespace: pod.namespace.clone().unwrap_or_default(),
                name: pod.name.clone().unwrap_or_default(),
                uid: pod.uid.clone().unwrap_or_default(),
            }),
            // As claims.rs has it.
            in_endpoints: match conditions {
                Conditions { ready: true, .. } => Some(EndpointsReadiness::Ready),
                Conditions { terminating: false, .. } => Some(EndpointsReadiness::NotReady),
                Conditions { .. } => None,
            },
            address: wanted.address,
        }
    }
}
