//! Whether a registration may publish at all: what it must never take over (P6), and what a user has to correct first.

use beatkeeper_api::registration::ADOPT_ANNOTATION;

use crate::{
    inputs::stall::{ConflictingObjects, Stall},
    objects::{
        registration::{PortTemplate, Registration},
        service::ServiceView,
    },
    vocabulary::reason::ConditionReason,
};

/// Why a registration may not publish; `None` if it may. `service` is `None` before the Service is created, or if it
/// cannot be created.
pub fn stall(
    registration: &Registration,
    service: Option<&ServiceView>,
    neighbours: &ConflictingObjects,
) -> Option<Stall> {
    let name = &registration.service_name;
    if let Some(object) = &neighbours.unreadable {
        return Some(Stall::unreadable(object));
    }
    if let Some(finalizers) = &registration.ending {
        return because(
            ConditionReason::Deleting,
            format!(
                "it is being deleted and waits for finalizers ({}); what is published stays as long as it \
                 beats, and nothing is added. The controller that set a finalizer has to remove it",
                finalizers.join(", ")
            ),
        );
    }
    if !registration.problems.is_empty() {
        let problems: Vec<_> = registration.problems.iter().map(ToString::to_string).collect();
        return because(ConditionReason::InvalidSpec, problems.join("; "));
    }
    if let Some(elder) = &neighbours.elder {
        return because(
            ConditionReason::ServiceTaken,
            format!(
                "Service {name} is published by the older ServiceRegistration {elder}; declare the \
                 instances there, or name another Service"
            ),
        );
    }
    let service = service?;
    of_service(registration, service)
        .or_else(|| of_others(registration, neighbours))
        .or_else(|| of_ports(registration, service))
}

/// What the Service itself prevents.
fn of_service(registration: &Registration, service: &ServiceView) -> Option<Stall> {
    let name = &registration.service_name;
    if service.selects {
        return because(
            ConditionReason::ServiceHasSelector,
            format!(
                "Service {name} has a selector, so the cluster publishes its endpoints by itself; once \
                 its Pods beat, remove spec.selector of the Service and what it published is taken over, \
                 or name another Service"
            ),
        );
    }
    if service.external_name {
        return because(
            ConditionReason::ServiceIsExternalName,
            format!(
                "Service {name} is of type ExternalName, which has no endpoints; name another Service"
            ),
        );
    }
    None
}

/// What another manager of the Service prevents (P6).
fn of_others(registration: &Registration, neighbours: &ConflictingObjects) -> Option<Stall> {
    let name = &registration.service_name;
    if let Some((slice, manager)) = &neighbours.foreign_slice {
        return because(
            ConditionReason::ServedByOthers,
            format!(
                "EndpointSlice {slice} of Service {name} is managed by {manager}; delete it and what \
                 makes it (for mirrored slices: the Endpoints object {name}), or name another \
                 Service, or, if people wrote it, {}",
                how_to_adopt()
            ),
        );
    }
    if neighbours.foreign_endpoints {
        return because(
            ConditionReason::ServedByOthers,
            format!(
                "Endpoints {name} exists and is not Beatkeeper's; delete it, or name another \
                 Service, or, if people wrote it, {}",
                how_to_adopt()
            ),
        );
    }
    None
}

/// What the ports of the Service prevent.
fn of_ports(registration: &Registration, service: &ServiceView) -> Option<Stall> {
    let name = &registration.service_name;
    if common_ports(registration, Some(service)).is_empty() {
        let names: Vec<&str> = service.ports.iter().map(|port| port.name.as_str()).collect();
        return because(
            ConditionReason::PortsMismatch,
            format!(
                "none of spec.ports is a port of Service {name}, which has {names:?}; ports are \
                 matched by name: rename them on one side"
            ),
        );
    }
    None
}

fn because(reason: ConditionReason, message: String) -> Option<Stall> {
    Some(Stall { reason, message })
}

fn how_to_adopt() -> String {
    format!("have it taken over: annotate the registration with {ADOPT_ANNOTATION}=true")
}

/// A Service that did not belong to the operator was deleted. It may be about to be created again.
pub fn service_gone(registration: &Registration) -> Stall {
    let name = &registration.service_name;
    Stall {
        reason: ConditionReason::ServiceGone,
        message: format!(
            "Service {name} was deleted; unless it is made anew within seconds, it is created \
             without a selector"
        ),
    }
}

/// The operator could not write the ports of the spec to its own Service. Consumers ignore slices with names of ports
/// that the Service does not have. Returns `None` if the Service already has all ports.
pub fn old_ports(
    registration: &Registration,
    service: Option<&ServiceView>,
    error: &str,
) -> Option<Stall> {
    let has = |service: &ServiceView, port: &PortTemplate| {
        let mut ports = service.ports.iter();
        ports.any(|other| other.name == port.name && other.protocol == port.protocol.as_str())
    };
    let service = service?;
    let all = registration.ports.iter().all(|port| has(service, port));
    (!all).then(|| Stall {
        reason: ConditionReason::ServiceUnchanged,
        message: format!(
            "Service {} cannot be given the ports of spec.ports, and what is published keeps those that \
             it has until then: {error}",
            registration.service_name
        ),
    })
}

/// The ports that are published: those that the Service has, too, matched by name as in kube-proxy, and by protocol. A
/// Service of this registration counts as having all of them, and a headless Service need not name any.
pub fn common_ports(
    registration: &Registration,
    service: Option<&ServiceView>,
) -> Vec<PortTemplate> {
    let ports = registration.ports.iter();
    match service {
        Some(service)
            if service.owner.as_deref() != Some(&registration.uid) && !service.ports.is_empty() =>
        {
            ports
                .filter(|port| {
                    service.ports.iter().any(|other| {
                        other.name == port.name && other.protocol == port.protocol.as_str()
                    })
                })
                .cloned()
                .collect()
        }
        _ => ports.cloned().collect(),
    }
}
