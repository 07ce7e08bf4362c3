//! Reconciling one registration, as a list of steps.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::controller::Action;
use rand::Rng;

use super::{
    apply::{self, Outcome},
    context::Context,
    desk,
    error::Error,
    establish, gather, publish, verify,
};
use crate::core::{
    claims, decide,
    endpoint::{Endpoint, EndpointPort, Family, PortSet, Protocol},
    index::{Key, Settled},
    moment::Moment,
    plan::{
        self, EndpointsMode, Owner, Plan, Published, ServiceFacts, Target, meta::HEADLESS_LABEL,
    },
    registration::Registration,
    service::ServiceView,
    standing::{self, Stall},
    status::Applied,
    ttl::TtlHistory,
    verdict::{Suspect, Verdict},
};

/// How often a plan is made anew at once when the world turns out to be another.
const ATTEMPTS: usize = 5;
/// After this long a registration is looked at even if nothing has asked for it.
const RESYNC: Duration = Duration::from_secs(600);

/// Reconciles on a task of its own, so that registrations share the cores, and a panic, which would
/// be a defect, stays with one of them.
pub(super) async fn run(
    object: Arc<ServiceRegistration>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let key = Key::of(&object.metadata);
    let result = tokio::spawn(reconcile(object, context.clone())).await;
    if !context.world().has_registration(&key) {
        // It was deleted meanwhile: what this run remembered of it nobody would forget.
        context.forget(&key);
    }
    result.map_err(|_| Error::Panicked(key))?
}

async fn reconcile(
    object: Arc<ServiceRegistration>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        // What it owns is the garbage collector's.
        return Ok(Action::await_change());
    }
    let registration = Registration::validate(&object);
    let ttl = ttl_history(&registration, &context);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let stage = stage(&registration, &context).await;
        let decision = decide(&registration, &ttl, &stage, &context).await;
        let plan = plan(&registration, &stage, &decision.verdicts, &context);
        let applied = match apply::apply(&registration, plan, &context).await {
            Outcome::Done(applied) => stage.failed(applied),
            Outcome::Conflict(why) if attempt < ATTEMPTS => {
                tracing::debug!(registration = %registration.key, why, "planning anew");
                continue;
            }
            Outcome::Conflict(why) => {
                stage.failed(Applied { failure: Some(why), ..Applied::default() })
            }
        };
        let key = registration.key.clone();
        if applied.failure.is_none() {
            publish::events(&object, &registration, &decision.verdicts, &context);
            context.remember(&key, &registration.uid, |memory| memory.failures = 0);
        }
        let applied = Applied {
            published: gather::surroundings(&registration, &context).published,
            ..applied
        };
        let failure = applied.failure.clone();
        let now = context.clock.now();
        let next = decision.pause(now);
        let next = stage.look_again.map_or(next, |moment| next.min(moment.since(now)));
        let Decision { verdicts, .. } = decision;
        let report =
            publish::Report { object, registration, verdicts, stall: stage.stall, applied };
        desk::hand_in(report, &context);
        return match failure {
            Some(failure) => Err(Error::Publish { registration: key, failure, next }),
            None => Ok(Action::requeue(next)),
        };
    }
}

/// A Service that somebody else made and deleted is most often being replaced. Only after this long
/// is one of our own made in its place.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(10);

/// What the decision rests on besides heartbeats.
struct Stage {
    gathered: gather::Gathered,
    service: Option<Arc<ServiceView>>,
    stall: Option<Stall>,
    /// Why the Service could not be established, if it could not.
    failure: Option<String>,
    /// When to look at the Service again.
    look_again: Option<Moment>,
}

impl Stage {
    fn new(
        gathered: gather::Gathered,
        service: Option<Arc<ServiceView>>,
        stall: Option<Stall>,
    ) -> Self {
        Self { gathered, service, stall, failure: None, look_again: None }
    }

    fn failed(&self, mut applied: Applied) -> Applied {
        applied.failure = self.failure.clone().or(applied.failure);
        applied
    }

    fn families(&self) -> &[Family] {
        // Without a Service nothing is added, and what is there may be of either family.
        self.service.as_ref().map_or(&[Family::V4, Family::V6], |service| &service.families)
    }
}

/// Gathers (no client required), and establishes the Service (client required) unless somebody else
/// is in the way.
async fn stage(registration: &Registration, context: &Context) -> Stage {
    let gathered = gather::surroundings(registration, context);
    let known = gathered.service.clone();
    if let Some(stall) = standing::stall(registration, known.as_deref(), &gathered.neighbours) {
        return Stage::new(gathered, known, Some(stall));
    }
    if let Some(until) = being_replaced(registration, known.as_deref(), context) {
        let stall = standing::service_gone(registration);
        return Stage { look_again: Some(until), ..Stage::new(gathered, None, Some(stall)) };
    }
    match establish::service(registration, known, context).await {
        Ok((service, false)) => Stage::new(gathered, Some(service), None),
        Ok((service, true)) => {
            let gathered = gather::surroundings(registration, context);
            let stall = standing::stall(registration, Some(&service), &gathered.neighbours);
            Stage::new(gathered, Some(service), stall)
        }
        Err(error) if error.is_namespace_ending() => Stage::new(gathered, None, None),
        Err(error) => {
            let service = gathered.service.clone();
            Stage { failure: Some(error.to_string()), ..Stage::new(gathered, service, None) }
        }
    }
}

/// Until when to wait for somebody else to make the Service anew that he deleted, if one was.
fn being_replaced(
    registration: &Registration,
    known: Option<&ServiceView>,
    context: &Context,
) -> Option<Moment> {
    let now = context.clock.now();
    context.remember(&registration.key, &registration.uid, |memory| {
        if let Some(service) = known {
            memory.foreign_service = service.owner.as_deref() != Some(&registration.uid);
            memory.service_gone = None;
        }
        if known.is_some() || !memory.foreign_service {
            return None;
        }
        let until = *memory.service_gone.get_or_insert(now) + REPLACEMENT_GRACE;
        (now < until).then_some(until)
    })
}

/// What was decided.
struct Decision {
    verdicts: Vec<Verdict>,
    unreadable: HashMap<Arc<str>, String>,
    /// How often in a row some Lease could not be read.
    failed_reads: u32,
}

impl Decision {
    /// How long until time alone may change the decision.
    fn pause(&self, now: Moment) -> Duration {
        let readable = |verdict: &&Verdict| {
            let lease = verdict.lease.as_ref().map(|lease| &lease.settled.lease);
            lease.is_none_or(|lease| !self.unreadable.contains_key(lease))
        };
        let next =
            self.verdicts.iter().filter(readable).filter_map(|verdict| verdict.look_again).min();
        let pause = next.map_or(RESYNC, |next| next.since(now)).min(RESYNC);
        if self.unreadable.is_empty() { pause } else { pause.min(backoff(self.failed_reads)) }
    }
}

/// Decides; where an instance would be pruned, reads its Lease live first (client required) and
/// decides anew from what that shows.
async fn decide(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Stage,
    context: &Context,
) -> Decision {
    let mut unreadable = HashMap::new();
    let verdicts = judge(registration, ttl, stage, &unreadable, context);
    let suspects: Vec<Suspect> =
        verdicts.iter().filter_map(|verdict| verdict.lease.as_ref()?.suspect.clone()).collect();
    if suspects.is_empty() {
        return Decision { verdicts, unreadable, failed_reads: 0 };
    }
    unreadable = verify::suspects(&registration.key, suspects, context).await;
    let failed_reads = context.remember(&registration.key, &registration.uid, |memory| {
        let failed = if unreadable.is_empty() { 0 } else { memory.failed_reads.saturating_add(1) };
        memory.failed_reads = failed;
        failed
    });
    let verdicts = judge(registration, ttl, stage, &unreadable, context);
    Decision { verdicts, unreadable, failed_reads }
}

/// Decides from what is known now, and has the index note the outcome. When a beat slips in between
/// it is decided again: otherwise that beat would have woken nobody, and its instance be pruned.
fn judge(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Stage,
    unreadable: &HashMap<Arc<str>, String>,
    context: &Context,
) -> Vec<Verdict> {
    let ports = standing::common_ports(registration, stage.service.as_deref());
    let owner_of = |address: IpAddr| context.world().owner_of_address(address);
    loop {
        let records = context.index().snapshot(&registration.key);
        let pods = gather::pods(&registration.key.namespace, &records, context);
        let proven = context.outages().proven();
        let now = context.clock.now();
        let verdicts = decide::decide(&decide::Facts {
            registration,
            ttl,
            records: &records,
            pods: &pods.by_name,
            zones: &pods.zones,
            families: stage.families(),
            service: &registration.service_name,
            ports: &ports,
            published: &stage.gathered.published,
            ranges: &context.settings.outside_ranges,
            owner_of: &owner_of,
            unreadable,
            proven: &proven,
            now,
        });
        let outcomes: Vec<Settled> = verdicts
            .iter()
            .filter_map(|verdict| Some(verdict.lease.as_ref()?.settled.clone()))
            .collect();
        if context.index().settle(&registration.key, &outcomes, now) {
            return verdicts;
        }
    }
}

/// Plans the writes; no client required.
fn plan(
    registration: &Registration,
    stage: &Stage,
    verdicts: &[Verdict],
    context: &Context,
) -> Plan {
    let service = stage.service.as_deref();
    let publish_not_ready = service.is_some_and(|service| service.publish_not_ready);
    let mut endpoints = claims::endpoints(verdicts, publish_not_ready);
    let closed = stage.stall.is_some() || service.is_none();
    if closed {
        endpoints = still_alive(&endpoints, stage);
    }
    let slices: Vec<_> = stage.gathered.slices.iter().map(|slice| (**slice).clone()).collect();
    let target = Target {
        owner: &Owner {
            namespace: registration.key.namespace.clone(),
            name: registration.key.name.clone(),
            uid: registration.uid.clone(),
        },
        service: &ServiceFacts {
            name: registration.service_name.clone(),
            headless: service.map_or_else(|| were_headless(stage), |service| service.headless),
            families: stage.families().to_vec(),
        },
        endpoints,
        max_endpoints_per_slice: context.settings.max_endpoints_per_slice,
        trigger_time: Some(context.clock.clocks().wall),
        endpoints_object: endpoints_mode(stage, service, closed, context),
    };
    let published = Published { slices: &slices, endpoints: stage.gathered.endpoints.as_deref() };
    plan::plan(&target, published)
}

/// Without the Service the slices say what it was.
fn were_headless(stage: &Stage) -> bool {
    let labels = stage.gathered.slices.iter().filter_map(|slice| slice.metadata.labels.as_ref());
    labels.into_iter().any(|labels| labels.contains_key(HEADLESS_LABEL))
}

fn endpoints_mode(
    stage: &Stage,
    service: Option<&ServiceView>,
    closed: bool,
    context: &Context,
) -> EndpointsMode {
    let ours = stage.gathered.endpoints.is_some();
    // Of a Service with a selector the Endpoints are the cluster's, even if we made them; without a
    // Service the cluster deletes them; and where nothing may be added none is made.
    let others = service.is_none_or(|service| service.selects);
    match () {
        () if others || stage.gathered.neighbours.foreign_endpoints || (closed && !ours) => {
            EndpointsMode::LeaveAlone
        }
        () if !context.settings.publish_endpoints => EndpointsMode::Off,
        () => EndpointsMode::Publish,
    }
}

/// Nothing may be added and nothing changed: of what is published, that whose instance lives.
fn still_alive(claims: &[Endpoint], stage: &Stage) -> Vec<Endpoint> {
    let mut by_address: HashMap<IpAddr, Vec<&Endpoint>> = HashMap::new();
    for claim in claims {
        by_address.entry(claim.address).or_default().push(claim);
    }
    let mut alive = Vec::new();
    for slice in &stage.gathered.slices {
        let ports = published_ports(slice);
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        for address in addresses.filter_map(|address| address.parse::<IpAddr>().ok()) {
            let claim = by_address
                .get(&address)
                .into_iter()
                .flatten()
                .find(|claim| claim.ports.is_empty() || claim.ports.meets(&ports));
            alive.extend(claim.map(|claim| Endpoint { ports: ports.clone(), ..(*claim).clone() }));
        }
    }
    alive
}

fn published_ports(slice: &EndpointSlice) -> PortSet {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone().unwrap_or_default(),
            port: u16::try_from(port.port?).ok()?,
            protocol: Protocol::read(port.protocol.as_deref().unwrap_or("TCP"))?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    PortSet::new(ports.collect())
}

fn ttl_history(registration: &Registration, context: &Context) -> TtlHistory {
    let now = context.clock.now();
    context.remember(&registration.key, &registration.uid, |memory| {
        let ttl = memory.ttl.get_or_insert_with(|| TtlHistory::new(registration.ttl));
        ttl.set(registration.ttl, now);
        ttl.clone()
    })
}

/// How long to wait after so many failures in a row: from a tenth of a second to five, and not all
/// at once.
pub(super) fn backoff(failures: u32) -> Duration {
    let longest = Duration::from_millis(200) * 2_u32.pow(failures.min(5));
    longest.min(Duration::from_secs(5)).mul_f64(rand::rng().random_range(0.5..1.0))
}

/// What to do after an error: try again, each time later, but not later than the next deadline.
pub(super) fn retry(object: &ServiceRegistration, error: &Error, context: &Context) -> Action {
    let key = Key::of(&object.metadata);
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let failures = context.remember(&key, &uid, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let pause = match error {
        Error::Publish { next, .. } => backoff(failures).min((*next).max(backoff(0))),
        Error::Panicked(_) => backoff(failures),
    };
    tracing::warn!(registration = %key, %error, ?pause, "will try again");
    Action::requeue(pause)
}
