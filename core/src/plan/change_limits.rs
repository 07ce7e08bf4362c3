//! Rate limits for changes that a tenant can repeat.
//!
//! An instance may change its own health twenty times per second. Each change would cause writes of a slice, an
//! Endpoints object, a status and an event, and all Nodes read the slices. An instance that leaves is removed at once.
//! Changes of instances that join or get worse are written at once up to a burst, and are then limited. Changes of
//! instances that get better, or that come back soon after they left, have a lower limit. If a change has to wait, the
//! instance stays published in its old state, and the last state is always written.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::{HashMap, HashSet};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};

use crate::{
    plan::read::{ports_of, says},
    vocabulary::{
        endpoint::{Conditions, Endpoint, EndpointsReadiness, PodRef, PortSet},
        monotonic_time::MonotonicTime,
        rate_limit::{RateLimit, RateLimiter},
    },
};

/// New instances.
const JOINS: RateLimit = RateLimit { burst: 20, every: Duration::from_millis(200) };
/// Instances that become not ready or drain. This should be fast.
const WORSE: RateLimit = RateLimit { burst: 10, every: Duration::from_millis(200) };
/// All other changes.
const OTHER: RateLimit = RateLimit { burst: 5, every: Duration::from_secs(1) };
/// An instance that joins within this time after it left counts as coming back.
const COMES_BACK: Duration = Duration::from_secs(10);
/// How many addresses that have left are remembered for each registration.
const LEFT_MAX: usize = 10_000;

/// Urgent status updates.
pub const STATUSES: RateLimit = RateLimit { burst: 10, every: Duration::from_millis(500) };
/// Reports that record events.
pub const EVENTS: RateLimit = RateLimit { burst: 20, every: Duration::from_millis(500) };
/// Changes of the Service's ports.
pub const SERVICES: RateLimit = RateLimit { burst: 5, every: Duration::from_secs(1) };
/// Leases that get their cordon annotation back.
pub const CORDONS: RateLimit = RateLimit { burst: 10, every: Duration::from_secs(1) };

/// The rate limits of one registration. They are stored by its name, so that a registration that is deleted and
/// created again repeatedly does not get more.
#[derive(Debug, Default)]
pub struct ChangeLimits {
    /// The limit for slices and Endpoints.
    pub endpoints: EndpointLimiter,
    /// The limit for the status.
    pub statuses: RateLimiter,
    /// The limit for events.
    pub events: RateLimiter,
    /// The limit for the Service.
    pub services: RateLimiter,
    /// The limit for Leases.
    pub cordons: RateLimiter,
}

impl ChangeLimits {
    /// Whether all limits are in the state of a registration that has not written recently.
    pub fn are_idle(&self, now: MonotonicTime) -> bool {
        let Self { endpoints, statuses, events, services, cordons } = self;
        let buckets = [statuses, events, services, cordons];
        endpoints.is_idle(now) && buckets.into_iter().all(|bucket| bucket.is_full(now))
    }
}

/// A kind of change that has its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Joins,
    Worse,
    Other,
}

/// The rate limits for the slices and the Endpoints object of a registration.
#[derive(Debug, Clone, Default)]
pub struct EndpointLimiter {
    joins: RateLimiter,
    worse: RateLimiter,
    other: RateLimiter,
    /// The addresses that left recently, and when.
    left: HashMap<IpAddr, MonotonicTime>,
}

/// What is allowed in one reconcile, even if it plans several times. All changes of one kind together take one permit,
/// however many instances change.
#[derive(Debug, Clone, Default)]
pub struct Permits {
    joins: Option<Result<(), MonotonicTime>>,
    worse: Option<Result<(), MonotonicTime>>,
    other: Option<Result<(), MonotonicTime>>,
}

impl Permits {
    /// When a change that was not allowed may be written.
    pub fn requeue_at(&self) -> Option<MonotonicTime> {
        let asked = [self.joins, self.worse, self.other].into_iter().flatten();
        asked.filter_map(Result::err).min()
    }

    fn allow(&mut self, change: Change, limiter: &mut EndpointLimiter, now: MonotonicTime) -> bool {
        let (permit, bucket, limit) = match change {
            Change::Joins => (&mut self.joins, &mut limiter.joins, JOINS),
            Change::Worse => (&mut self.worse, &mut limiter.worse, WORSE),
            Change::Other => (&mut self.other, &mut limiter.other, OTHER),
        };
        permit.get_or_insert_with(|| bucket.take(limit, now)).is_ok()
    }
}

impl EndpointLimiter {
    /// The endpoints to publish now: those that are wanted, but in their published state if their change has to wait.
    pub fn limit(
        &mut self,
        wanted: Vec<Endpoint>,
        slices: &[Arc<EndpointSlice>],
        permits: &mut Permits,
        now: MonotonicTime,
    ) -> Vec<Endpoint> {
        let published = Shown::read(slices);
        let mut wanted_at: HashMap<IpAddr, usize> = HashMap::with_capacity(wanted.len());
        for endpoint in &wanted {
            *wanted_at.entry(endpoint.address).or_default() += 1;
        }
        self.note_removals(&wanted_at, &published, now);
        let shared = Shared::of(&wanted, &wanted_at, &published);
        let choose = |endpoint: Endpoint| self.choose(endpoint, &published, &shared, permits, now);
        wanted.into_iter().filter_map(choose).collect()
    }

    /// The endpoint to publish now; `None` if it has to wait and is not published yet.
    fn choose(
        &mut self,
        wanted: Endpoint,
        published: &Shown<'_>,
        shared: &Shared<'_>,
        permits: &mut Permits,
        now: MonotonicTime,
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
            // The instance has another port than the one that is published.
            return match (&**shown, shared.place_of(&wanted)) {
                ([before], None) | (_, Some(FormerPort::Of(before))) => {
                    let allowed = permits.allow(Change::Other, self, now);
                    Some(if allowed { wanted } else { before.as_it_is(wanted) })
                }
                (_, Some(FormerPort::New)) => {
                    permits.allow(Change::Joins, self, now).then_some(wanted)
                }
                (_, Some(FormerPort::Unknown) | None) => Some(wanted),
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

    fn note_removals(
        &mut self,
        wanted: &HashMap<IpAddr, usize>,
        published: &Shown<'_>,
        now: MonotonicTime,
    ) {
        self.left.retain(|_, at| now.since(*at) < COMES_BACK);
        for address in published.addresses().filter(|address| !wanted.contains_key(*address)) {
            if self.left.len() < LEFT_MAX {
                self.left.insert(*address, now);
            }
        }
    }

    /// Whether the limits are in their initial state, as if nothing had changed recently.
    pub fn is_idle(&self, now: MonotonicTime) -> bool {
        let Self { joins, worse, other, left } = self;
        [joins, worse, other].into_iter().all(|bucket| bucket.is_full(now))
            && left.values().all(|at| now.since(*at) >= COMES_BACK)
    }
}

/// The places of endpoints with a port that is not published yet, at addresses that have or had several ports.
struct Shared<'a>(HashMap<(IpAddr, PortSet), FormerPort<'a>>);

/// The published port that an endpoint with a new port had before at the same address.
#[derive(Clone, Copy)]
enum FormerPort<'a> {
    /// This one. If no instance has left, it does not matter which one is chosen: in the end, each has its new port.
    Of(&'a ShownEndpoint<'a>),
    /// None: the endpoint is an additional one.
    New,
    /// Unknown: there are fewer endpoints than before, so it is not known which endpoint had the port that is gone. An
    /// instance that leaves is removed at once.
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
            let stays = |known: &ShownEndpoint<'_>| there.iter().any(|it| it.ports == known.ports);
            let is_new = |it: &&&Endpoint| shown.iter().all(|known| known.ports != it.ports);
            let changed: Vec<&&Endpoint> = there.iter().filter(is_new).collect();
            let mut free = shown.iter().filter(|known| !stays(known));
            let fewer = free.clone().count() > changed.len();
            for endpoint in changed {
                let place = match free.next().filter(|_| !fewer) {
                    Some(known) => FormerPort::Of(known),
                    None if fewer => FormerPort::Unknown,
                    None => FormerPort::New,
                };
                places.insert((address, endpoint.ports.clone()), place);
            }
        }
        Self(places)
    }

    fn place_of(&self, endpoint: &Endpoint) -> Option<FormerPort<'a>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(endpoint.address, endpoint.ports.clone())).copied()
    }
}

/// The published endpoints by address.
struct Shown<'a> {
    known: HashMap<IpAddr, Vec<ShownEndpoint<'a>>>,
    /// The addresses in endpoints that the operator would not write: with several addresses in one, or without the
    /// number of a port.
    elsewhere: HashSet<IpAddr>,
}

struct ShownEndpoint<'a> {
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
                    shown.known.entry(address).or_default().push(ShownEndpoint { ports, endpoint });
                }
            }
        }
        shown
    }

    fn of(&self, address: IpAddr) -> Option<&Vec<ShownEndpoint<'a>>> {
        self.known.get(&address)
    }

    /// Whether an address is published, but not in an endpoint that can be compared.
    fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.elsewhere.contains(&address)
    }

    fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.known.keys()
    }
}

impl ShownEndpoint<'_> {
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

    /// The endpoint in the state in which it is published.
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
            // The same rule as in endpoint_conflicts.rs.
            in_endpoints: match conditions {
                Conditions { ready: true, .. } => Some(EndpointsReadiness::Ready),
                Conditions { terminating: false, .. } => Some(EndpointsReadiness::NotReady),
                Conditions { .. } => None,
            },
            address: wanted.address,
        }
    }
}
