//! The plan step: what to publish, and by which writes.

use jiff::Timestamp;

use super::{
    claims,
    endpoint::{Endpoint, Family},
    frozen,
    plan::{self, EndpointsMode, Plan, Published, ServiceFacts, Target, meta::HEADLESS_LABEL},
    refusal,
    registration::Registration,
    service::ServiceView,
    stage::Stage,
    standing::Stall,
    verdict::Verdict,
};

/// The administrator's settings for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether Endpoints objects are written.
    pub publish_endpoints: bool,
    /// The largest number of endpoints in a slice.
    pub max_endpoints_per_slice: usize,
}

/// Plans the writes. `wall` is the time that consumers get as the time of the change.
pub fn draw_up(
    registration: &Registration,
    stage: &Stage,
    verdicts: &[Verdict],
    style: Style,
    wall: Timestamp,
) -> Plan {
    draw_up_restrained(registration, stage, verdicts, style, wall, |endpoints| endpoints)
}

/// The same if some changes have to wait. `restrain` receives the wanted endpoints and returns those to publish now.
pub fn draw_up_restrained(
    registration: &Registration,
    stage: &Stage,
    verdicts: &[Verdict],
    style: Style,
    wall: Timestamp,
    restrain: impl FnOnce(Vec<Endpoint>) -> Vec<Endpoint>,
) -> Plan {
    if stage.stall.as_ref().is_some_and(Stall::is_blind) {
        return Plan::default();
    }
    let service = stage.service.as_deref();
    let publish_not_ready = service.is_some_and(|service| service.publish_not_ready);
    let closed = stage.is_closed();
    let mut endpoints = restrain(if closed {
        frozen::endpoints(verdicts, stage, publish_not_ready)
    } else {
        claims::endpoints(verdicts, publish_not_ready)
    });
    refusal::hold_back(&mut endpoints, stage);
    let target = Target {
        owner: &registration.owner(),
        service: &ServiceFacts {
            name: registration.service_name.clone(),
            headless: service.map_or_else(|| were_headless(stage), |service| service.headless),
            families: families(stage),
        },
        endpoints,
        max_endpoints_per_slice: style.max_endpoints_per_slice,
        trigger_time: Some(wall),
        endpoints_object: endpoints_mode(stage, service, closed, style),
        closed: stage.held_back.closed.clone(),
    };
    let published = Published {
        slices: stage.gathered.slices.iter().map(AsRef::as_ref).collect(),
        endpoints: stage.gathered.endpoints.as_deref(),
    };
    plan::plan(&target, published)
}

/// The families that are published, with the one of the Endpoints object first. If nothing may be changed, everything
/// that is published stays, whatever families the Service has now.
fn families(stage: &Stage) -> Vec<Family> {
    let mut families = stage.families().to_vec();
    if stage.is_closed() {
        families.extend([Family::V4, Family::V6]);
        let listed = frozen::listed_family(stage).or(families.first().copied());
        families.sort_by_key(|family| Some(*family) != listed);
        families.dedup();
    }
    families
}

/// Whether the Service was headless. If it is gone, the slices show this.
fn were_headless(stage: &Stage) -> bool {
    let labels = stage.gathered.slices.iter().filter_map(|slice| slice.metadata.labels.as_ref());
    labels.into_iter().any(|labels| labels.contains_key(HEADLESS_LABEL))
}

fn endpoints_mode(
    stage: &Stage,
    service: Option<&ServiceView>,
    closed: bool,
    style: Style,
) -> EndpointsMode {
    let ours = stage.gathered.endpoints.is_some();
    // If a Service has a selector, its Endpoints belong to Kubernetes' own controller, even if the operator created
    // them. If there is no Service, Kubernetes deletes them. If nothing may be added, none are created.
    let others = service.is_none_or(|service| service.selects);
    match () {
        () if others
            || stage.held_back.endpoints_closed
            || stage.gathered.neighbours.foreign_endpoints
            || (closed && !ours) =>
        {
            EndpointsMode::LeaveAlone
        }
        () if !style.publish_endpoints => EndpointsMode::Off,
        () => EndpointsMode::Publish,
    }
}
