//! The plan step: what to publish, and by which writes.

use std::collections::HashSet;

use jiff::Timestamp;

use crate::{
    decide::verdict::Verdict,
    inputs::{Inputs, stall::Stall},
    objects::{
        marks::{HEADLESS_LABEL, Owner},
        registration::Registration,
        service::ServiceView,
    },
    plan::{
        diff, endpoint_conflicts, frozen, hold_back,
        target::{EndpointsMode, Published, ServiceFacts, Target},
        write::Plan,
    },
    vocabulary::endpoint::{Endpoint, Family},
};

/// The administrator's settings for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanSettings {
    /// Whether Endpoints objects are written.
    pub publish_endpoints: bool,
    /// The largest number of endpoints in a slice.
    pub max_endpoints_per_slice: usize,
}

/// Plans the writes. `wall` is the time that consumers get as the time of the change.
pub fn build(
    registration: &Registration,
    inputs: &Inputs,
    verdicts: &[Verdict],
    style: PlanSettings,
    wall: Timestamp,
) -> Plan {
    build_limited(registration, inputs, verdicts, style, wall, |endpoints| endpoints)
}

/// The same if some changes have to wait. `restrain` receives the wanted endpoints and returns those to publish now.
pub fn build_limited(
    registration: &Registration,
    inputs: &Inputs,
    verdicts: &[Verdict],
    style: PlanSettings,
    wall: Timestamp,
    restrain: impl FnOnce(Vec<Endpoint>) -> Vec<Endpoint>,
) -> Plan {
    if inputs.stall.as_ref().is_some_and(Stall::is_blind) {
        return Plan::default();
    }
    let premise = PlanPremise::of(registration, inputs, style);
    let publish_not_ready = premise.publish_not_ready;
    let mut endpoints = restrain(if inputs.is_closed() {
        frozen::endpoints(verdicts, inputs, publish_not_ready)
    } else {
        endpoint_conflicts::endpoints(verdicts, publish_not_ready)
    });
    hold_back::hold_back(&mut endpoints, inputs);
    let target =
        Target { closed: inputs.held_back.closed.clone(), ..premise.target(endpoints, wall) };
    let published = Published {
        slices: inputs.snapshot.slices.iter().map(AsRef::as_ref).collect(),
        endpoints: inputs.snapshot.endpoints.as_deref(),
    };
    diff::plan(&target, published)
}

/// What a plan rests on that concerns all endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanPremise {
    pub(super) owner: Owner,
    pub(super) service: ServiceFacts,
    /// The Service's publishNotReadyAddresses.
    pub publish_not_ready: bool,
    pub(super) max_endpoints_per_slice: usize,
    pub(super) endpoints_object: EndpointsMode,
}

impl PlanPremise {
    /// The premise of a plan from these inputs.
    pub fn of(registration: &Registration, inputs: &Inputs, style: PlanSettings) -> Self {
        let service = inputs.service.as_deref();
        Self {
            owner: registration.owner(),
            service: ServiceFacts {
                name: registration.service_name.clone(),
                headless: service.map_or_else(|| were_headless(inputs), |service| service.headless),
                families: families(inputs),
            },
            publish_not_ready: service.is_some_and(|service| service.publish_not_ready),
            max_endpoints_per_slice: style.max_endpoints_per_slice,
            endpoints_object: endpoints_mode(inputs, service, inputs.is_closed(), style),
        }
    }

    pub(super) fn target(&self, endpoints: Vec<Endpoint>, wall: Timestamp) -> Target<'_> {
        Target {
            owner: &self.owner,
            service: &self.service,
            endpoints,
            max_endpoints_per_slice: self.max_endpoints_per_slice,
            trigger_time: Some(wall),
            endpoints_object: self.endpoints_object,
            closed: HashSet::new(),
        }
    }
}

/// The families that are published, with the one of the Endpoints object first. If nothing may be changed, everything
/// that is published stays, whatever families the Service has now.
fn families(inputs: &Inputs) -> Vec<Family> {
    let mut families = inputs.families().to_vec();
    if inputs.is_closed() {
        families.extend([Family::V4, Family::V6]);
        let listed = frozen::listed_family(inputs).or(families.first().copied());
        families.sort_by_key(|family| Some(*family) != listed);
        families.dedup();
    }
    families
}

/// Whether the Service was headless. If it is gone, the slices show this.
fn were_headless(inputs: &Inputs) -> bool {
    let labels = inputs.snapshot.slices.iter().filter_map(|slice| slice.metadata.labels.as_ref());
    labels.into_iter().any(|labels| labels.contains_key(HEADLESS_LABEL))
}

fn endpoints_mode(
    inputs: &Inputs,
    service: Option<&ServiceView>,
    closed: bool,
    style: PlanSettings,
) -> EndpointsMode {
    let ours = inputs.snapshot.endpoints.is_some();
    // If a Service has a selector, its Endpoints belong to Kubernetes' own controller, even if the operator created
    // them. If there is no Service, Kubernetes deletes them. If nothing may be added, none are created.
    let others = service.is_none_or(|service| service.selects);
    match () {
        () if others
            || inputs.held_back.endpoints_closed
            || inputs.snapshot.conflicts.foreign_endpoints
            || (closed && !ours) =>
        {
            EndpointsMode::LeaveAlone
        }
        () if !style.publish_endpoints => EndpointsMode::Off,
        () => EndpointsMode::Publish,
    }
}
