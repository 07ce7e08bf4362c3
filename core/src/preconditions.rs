//! Whether a registration may publish at all: what it must never take over (P6), and what a user has to correct first.

use beatkeeper_api::registration::ADOPT_ANNOTATION;

use super::{
    adoption_plan::AdoptionRefusal,
    decode::Unreadable,
    registration::{PortTemplate, Registration},
    service::ServiceView,
};

/// Why nothing may be added. Instances that are already published stay until they die. A stalled registration must
/// still prune dead instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The reason, as one word.
    pub reason: &'static str,
    /// What is wrong, and what the user should do.
    pub message: String,
}

/// The reason of a stall in which nothing is changed.
const UNREADABLE: &str = "ObjectUnreadable";

/// The other objects with which a registration may conflict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConflictingObjects {
    /// An older registration for the same Service.
    pub elder: Option<String>,
    /// A slice of the Service that another program manages, and the name of that program.
    pub foreign_slice: Option<(String, String)>,
    /// Whether the Endpoints object of the Service has another owner.
    pub foreign_endpoints: bool,
    /// Whether Kubernetes' own controllers made all foreign objects, for a selector of the Service.
    pub left_by_cluster: bool,
    /// An object that cannot be read. While there is one, nothing may be written or decided.
    pub unreadable: Option<Unreadable>,
}

/// Why a registration may not publish; `None` if it may. `service` is `None` before the Service is created, or if it
/// cannot be created.
pub fn stall(
    registration: &Registration,
    service: Option<&ServiceView>,
    neighbours: &ConflictingObjects,
) -> Option<Stall> {
    let name = &registration.service_name;
    let because = |reason, message| Some(Stall { reason, message });
    if let Some(object) = &neighbours.unreadable {
        return Some(Stall::unreadable(object));
    }
    if let Some(finalizers) = &registration.ending {
        return because(
            "Deleting",
            format!(
                "it is being deleted and waits for finalizers ({}); what is published stays as long as it \
                 beats, and nothing is added. The controller that set a finalizer has to remove it",
                finalizers.join(", ")
            ),
        );
    }
    if !registration.problems.is_empty() {
        return because("InvalidSpec", registration.problems.join("; "));
    }
    if let Some(elder) = &neighbours.elder {
        return because(
            "ServiceTaken",
            format!(
                "Service {name} is published by the older ServiceRegistration {elder}; declare the \
                 instances there, or name another Service"
            ),
        );
    }
    let service = service?;
    if service.selects {
        return because(
            "ServiceHasSelector",
            format!(
                "Service {name} has a selector, so the cluster publishes its endpoints by itself; once \
                 its Pods beat, remove spec.selector of the Service and what it published is taken over, \
                 or name another Service"
            ),
        );
    }
    if service.external_name {
        return because(
            "ServiceIsExternalName",
            format!(
                "Service {name} is of type ExternalName, which has no endpoints; name another Service"
            ),
        );
    }
    if let Some((slice, manager)) = &neighbours.foreign_slice {
        return because(
            "ServedByOthers",
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
            "ServedByOthers",
            format!(
                "Endpoints {name} exists and is not Beatkeeper's; delete it, or name another \
                 Service, or, if people wrote it, {}",
                how_to_adopt()
            ),
        );
    }
    if common_ports(registration, Some(service)).is_empty() {
        let names: Vec<&str> = service.ports.iter().map(|port| port.name.as_str()).collect();
        return because(
            "PortsMismatch",
            format!(
                "none of spec.ports is a port of Service {name}, which has {names:?}; ports are \
                 matched by name: rename them on one side"
            ),
        );
    }
    None
}

fn how_to_adopt() -> String {
    format!("have it taken over: annotate the registration with {ADOPT_ANNOTATION}=true")
}

impl Stall {
    /// The annotation asks for an adoption that is refused.
    pub fn adoption_refused(refusal: &AdoptionRefusal) -> Self {
        Self { reason: "AdoptionRefused", message: refusal.to_string() }
    }

    /// The selector of the Service has just been removed.
    pub fn letting_go(registration: &Registration) -> Self {
        let message = format!(
            "the selector of Service {} has just been removed; what the cluster's own controllers left \
             is taken over in a moment",
            registration.service_name
        );
        Self { reason: "ServedByOthers", message }
    }

    /// A relevant object cannot be read. Then nothing is written, not even removals.
    pub fn unreadable(object: &Unreadable) -> Self {
        let message = format!(
            "{object}; until it can be read nothing is added, changed or removed here: mend or delete it"
        );
        Self { reason: UNREADABLE, message }
    }

    /// Whether nothing may be changed, not even dead instances removed.
    pub fn is_blind(&self) -> bool {
        self.reason == UNREADABLE
    }

    /// An adoption could not be completed yet.
    pub fn adoption_unfinished(error: &str) -> Self {
        let message = format!("not all is taken over yet, and it is tried again: {error}");
        Self { reason: "AdoptionUnfinished", message }
    }
}

/// A Service that did not belong to the operator was deleted. It may be about to be created again.
pub fn service_gone(registration: &Registration) -> Stall {
    let name = &registration.service_name;
    Stall {
        reason: "ServiceGone",
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
        reason: "ServiceUnchanged",
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
