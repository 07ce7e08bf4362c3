//! What the operator would publish of a registration: the operator's own planner, given the states that the operator
//! has reported, and the objects as they are now.

use std::{collections::BTreeMap, sync::Arc};

use beatkeeper_api::{InstanceState, ServiceRegistration, heartbeat::Health, status::condition};
use beatkeeper_core::{
    decide::verdict::Verdict,
    inputs::{Inputs, preconditions, snapshot::Snapshot, stall::ConflictingObjects, stall::Stall},
    objects::{
        marks::{ENDPOINTS_MANAGED_BY_LABEL, MANAGER, SLICE_MANAGED_BY_LABEL, label},
        registration::{PortTemplate, Registration},
        service::ServiceView,
    },
    plan::{
        build::{self, PlanSettings},
        write::{Plan, Write},
    },
    report::dry_run,
    vocabulary::{
        endpoint::{Family, PodRef},
        key::Key,
        placement::Placement,
        reason::{ConditionReason, Reason},
    },
};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};

use super::{
    instance::{Instance, JudgedBy},
    planned_ports::Ports,
    registration::RegistrationView,
    store::Store,
};

/// The operator's default. It decides how endpoints are distributed over slices, and not which there are.
const MAX_ENDPOINTS_PER_SLICE: usize = 100;

/// What is taken for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assuming {
    /// What the operator has reported. If the registration is stalled, it stays stalled.
    AsReported,
    /// The selector of the Service is gone, and the operator has taken over what the cluster's own controllers left.
    SelectorRemoved,
}

/// The objects that would be published.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// All slices of the Service, also those of others that would stay.
    pub slices: Vec<EndpointSlice>,
    /// Its Endpoints.
    pub endpoints: Option<Endpoints>,
    /// The ports that the operator would give the Service; `None` if it leaves the Service as it is.
    pub service_ports: Option<Vec<PortTemplate>>,
    /// Whether the Endpoints depend on a setting of the operator that no object tells. They are planned as if the operator
    /// wrote them, which is its default.
    pub assumes_endpoints: bool,
}

/// What would be published of a registration.
pub fn planned(
    store: &Store,
    object: &ServiceRegistration,
    view: &RegistrationView,
    assuming: Assuming,
    now: Timestamp,
) -> Planned {
    let spec = Registration::validate(object);
    let key = Key::new(&*spec.key.namespace, &*spec.service_name);
    let stall = stall(view).filter(|_| assuming == Assuming::AsReported);
    let slices: Vec<&EndpointSlice> =
        store.slices.get(&key).into_iter().flat_map(BTreeMap::values).collect();
    let (ours, others): (Vec<&EndpointSlice>, Vec<&EndpointSlice>) =
        slices.iter().copied().partition(|slice| is_ours(slice));
    let endpoints = store.endpoints.get(&key);
    // What others have published for the Service is taken over, unless the registration is stalled.
    let taken = endpoints.filter(|it| stall.is_none() || is_ours_too(it));
    let existing = store.services.get(&key);
    let service = service(existing, stall.is_some(), assuming);
    let ports = preconditions::common_ports(&spec, service.as_deref());
    let adopted = object.status.as_ref().map(|status| &*status.adopted).unwrap_or_default();
    let ports =
        Ports { templates: &ports, spec: &spec, store, adopted, slices: &slices, endpoints };
    let verdicts = Judging { store, view, ports: &ports, assuming, stalled: stall.is_some(), now }
        .verdicts(&others);
    let writes_endpoints = writes_endpoints(view, &ours, endpoints);
    let service_ports = service_ports(&spec, existing, stall.is_some());
    let inputs = inputs(&ours, taken, service, stall, endpoints.is_some() && taken.is_none());
    let plan = |publish_endpoints| {
        let max_endpoints_per_slice = MAX_ENDPOINTS_PER_SLICE;
        let settings = PlanSettings { publish_endpoints, max_endpoints_per_slice };
        build::build(&spec, &inputs, &verdicts, settings, now)
    };
    let chosen = plan(writes_endpoints.unwrap_or(true));
    let mut planned = carry_out(&chosen, &ours, endpoints);
    planned.assumes_endpoints = writes_endpoints.is_none() && chosen != plan(false);
    if inputs.stall.is_some() {
        planned.slices.extend(others.into_iter().cloned());
    }
    planned.service_ports = service_ports;
    planned
}

/// Why the registration publishes nothing further, as the operator has reported it.
pub fn stall(view: &RegistrationView) -> Option<Stall> {
    let ready = view.reported.condition(condition::READY)?;
    let stalled = view.reported.is(condition::STALLED);
    stalled.then(|| Stall {
        reason: ConditionReason::read(&ready.reason).unwrap_or(ConditionReason::InvalidSpec),
        message: ready.message.clone(),
    })
}

fn is_ours(slice: &EndpointSlice) -> bool {
    label(&slice.metadata, SLICE_MANAGED_BY_LABEL) == Some(MANAGER)
}

fn is_ours_too(endpoints: &Endpoints) -> bool {
    label(&endpoints.metadata, ENDPOINTS_MANAGED_BY_LABEL) == Some(MANAGER)
}

/// The Service as the operator plans with it. In a dry run, a Service that does not exist counts as one of both
/// families.
fn service(
    existing: Option<&Service>,
    stalled: bool,
    assuming: Assuming,
) -> Option<Arc<ServiceView>> {
    let mut view = match existing {
        Some(service) => ServiceView::of(service),
        None if stalled => return None,
        None => ServiceView {
            families: vec![Family::V4, Family::V6],
            ..ServiceView::of(&Service::default())
        },
    };
    view.selects &= assuming == Assuming::AsReported;
    Some(Arc::new(view))
}

/// The ports that the Service would get: those of the spec, if it does not exist or belongs to the registration.
fn service_ports(
    spec: &Registration,
    existing: Option<&Service>,
    stalled: bool,
) -> Option<Vec<PortTemplate>> {
    let owner = existing.map(|service| ServiceView::of(service).owner);
    let writes = match owner {
        None => true,
        Some(owner) => owner.as_deref() == Some(&*spec.uid),
    };
    (writes && !stalled).then(|| spec.ports.clone())
}

/// Whether the operator writes Endpoints, as far as objects tell: its administrator may have switched that off.
///
/// In a dry run its status says so. Otherwise what it has published shows it: it writes them with the slices, and before
/// it says that it publishes.
fn writes_endpoints(
    view: &RegistrationView,
    ours: &[&EndpointSlice],
    endpoints: Option<&Endpoints>,
) -> Option<bool> {
    let ready = view.reported.condition(condition::READY);
    let told = ready.and_then(|ready| dry_run::told_endpoints(&ready.message));
    let shown = || match endpoints {
        Some(endpoints) => is_ours_too(endpoints).then_some(true),
        None => (!ours.is_empty() || view.reported.is_published()).then_some(false),
    };
    told.or_else(shown)
}

fn inputs(
    ours: &[&EndpointSlice],
    endpoints: Option<&Endpoints>,
    service: Option<Arc<ServiceView>>,
    stall: Option<Stall>,
    foreign_endpoints: bool,
) -> Inputs {
    let addresses = ours.iter().flat_map(|slice| &slice.endpoints).flat_map(|it| &it.addresses);
    let published = addresses.filter_map(|text| text.parse().ok()).collect();
    let snapshot = Snapshot {
        service: service.clone(),
        slices: ours.iter().map(|slice| Arc::new((*slice).clone())).collect(),
        endpoints: endpoints.cloned().map(Arc::new),
        conflicts: ConflictingObjects { foreign_endpoints, ..ConflictingObjects::default() },
        published,
    };
    Inputs::new(snapshot, service, stall)
}

/// The operator's objects after a plan.
fn carry_out(plan: &Plan, ours: &[&EndpointSlice], endpoints: Option<&Endpoints>) -> Planned {
    let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
    let mut slices: BTreeMap<String, EndpointSlice> =
        ours.iter().map(|slice| (name(slice), (*slice).clone())).collect();
    let mut planned = Planned { endpoints: endpoints.cloned(), ..Planned::default() };
    for write in plan.writes() {
        match write {
            Write::CreateSlice(slice) => planned.slices.push(slice.clone()),
            Write::UpdateSlice(slice, _) => drop(slices.insert(name(slice), slice.clone())),
            Write::DeleteSlice { name, .. } => drop(slices.remove(name)),
            Write::CreateEndpoints(object) | Write::UpdateEndpoints(object, _) => {
                planned.endpoints = Some(object.clone());
            }
            Write::DeleteEndpoints { .. } => planned.endpoints = None,
        }
    }
    planned.slices.extend(slices.into_values());
    planned
}

/// What verdicts are made from.
struct Judging<'a> {
    store: &'a Store,
    view: &'a RegistrationView,
    ports: &'a Ports<'a>,
    assuming: Assuming,
    stalled: bool,
    now: Timestamp,
}

impl Judging<'_> {
    /// The verdicts on all instances, and on what the cluster's own controllers would leave.
    fn verdicts(&self, others: &[&EndpointSlice]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> =
            self.view.instances.iter().map(|instance| self.verdict(instance)).collect();
        if self.assuming == Assuming::SelectorRemoved {
            let known = |address: &str| {
                let published = verdicts.iter().filter(|verdict| verdict.is_published());
                let mut places = published.filter_map(|verdict| verdict.placement.as_ref());
                address
                    .parse()
                    .is_ok_and(|address| places.any(|place| place.addresses.contains(&address)))
            };
            let left: Vec<Verdict> = others
                .iter()
                .flat_map(|slice| slice.endpoints.iter().map(|endpoint| (*slice, endpoint)))
                .filter(|(_, endpoint)| !endpoint.addresses.iter().any(|it| known(it)))
                .filter_map(|(slice, endpoint)| self.ports.left(slice, endpoint))
                .collect();
            verdicts.extend(left);
        }
        verdicts
    }

    fn verdict(&self, instance: &Instance) -> Verdict {
        let (state, reason) = self.decided(instance);
        let addresses: Vec<_> =
            instance.addresses.iter().filter_map(|text| text.parse().ok()).collect();
        let placement = Placement {
            ports: self.ports.of_instance(instance, &addresses),
            addresses,
            node_name: None,
            zone: instance.zone.clone(),
            hostname: None,
            pod: instance.pod.as_ref().map(|pod| PodRef {
                namespace: self.view.key.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            }),
            kubelet_ready: is_ready(instance),
        };
        let placement = Some(placement).filter(|it| !it.addresses.is_empty());
        Verdict::without_lease(&instance.name, state, reason, String::new(), placement)
    }

    /// The state that decides. The operator's word counts, with two exceptions: a status lists at most 100 instances,
    /// and what is decided of an instance that a stall keeps out is not its state.
    fn decided(&self, instance: &Instance) -> (InstanceState, Reason) {
        let reason = Reason::read(&instance.reason).unwrap_or(Reason::Beating);
        let kept_out = self.assuming == Assuming::SelectorRemoved && reason == Reason::NotPublished;
        let unlisted = instance.judged == JudgedBy::Plugin
            && self.view.reported.total > beatkeeper_api::status::LISTED_INSTANCES_MAX
            && reason == Reason::AwaitingBeat
            && !self.stalled;
        if instance.state != InstanceState::Waiting || !(kept_out || unlisted) {
            return (instance.state, reason);
        }
        let silent = instance.silent(self.now);
        let is_silent = silent.is_none_or(|silent| silent >= self.view.longest_ttl());
        if is_silent && !instance.is_carried(self.now) {
            return (InstanceState::Expired, Reason::TTLPassed);
        }
        let leases = self.store.leases.get(&self.view.key);
        let lease = leases.zip(instance.lease.as_ref()).and_then(|(all, name)| all.get(name));
        let pod = instance.pod.as_ref().and_then(|pod| pod.found.as_ref());
        match lease.map(|lease| &lease.heartbeat.content.health) {
            _ if pod.is_some_and(|pod| pod.deleting) => {
                (InstanceState::Draining, Reason::PodTerminating)
            }
            Some(Ok(Health::Draining)) => (InstanceState::Draining, Reason::HealthDraining),
            Some(Ok(Health::Failing)) => (InstanceState::NotReady, Reason::HealthFailing),
            Some(Err(_)) => (InstanceState::NotReady, Reason::HealthUnknown),
            _ if !is_ready(instance) => (InstanceState::NotReady, Reason::PodNotReady),
            Some(Ok(Health::Passing)) | None => (InstanceState::Ready, Reason::Beating),
        }
    }
}

/// Whether its kubelet says that it is ready. It has none outside the cluster.
fn is_ready(instance: &Instance) -> bool {
    let pod = instance.pod.as_ref().and_then(|pod| pod.found.as_ref());
    pod.is_none_or(|pod| pod.ready)
}
