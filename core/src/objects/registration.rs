//! The validate step: a spec becomes a [`Registration`], parsed once on input.
//!
//! The API server has already checked almost all of it (CEL). It is checked again, because a spec may have been
//! accepted under an older CRD. Each error becomes a problem in [`Registration::problems`], and the rest of the spec
//! still applies.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::{
    CordonedInstance, InstanceSpec, PortSpec, ServiceRegistration, ServiceRegistrationSpec,
    duration, heartbeat,
    registration::{ADOPT_ANNOTATION, DRY_RUN_ANNOTATION, UNCORDON_ANNOTATION},
};
use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{LabelSelector, ObjectMeta},
    util::intstr::IntOrString,
};
use kube::core::Selector;

use crate::{
    objects::{
        consent::Consent,
        labels::LabelMatch,
        marks::Owner,
        salvage,
        spec_problem::{PORT_NAME_MAX, PortProblem, SpecProblem},
    },
    vocabulary::{endpoint::Protocol, failure::Failure, key::Key, pace::Pace},
};

/// A ServiceRegistration with a parsed spec.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Namespace and name.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// The Service it publishes.
    pub service_name: String,
    /// How long an instance may be silent.
    pub ttl: Duration,
    /// How often an instance beats.
    pub interval: Duration,
    /// The ports.
    pub ports: Vec<PortTemplate>,
    /// Which Pods may join; `None` if no Pod may.
    pub selector: Option<LabelMatch>,
    /// Whether the selector cannot be read. Then no further Pod may join, and none has to leave.
    pub selector_unreadable: bool,
    /// The declared instances by name.
    pub declared: BTreeMap<String, InstanceSpec>,
    /// While fewer ready instances would be left, no instance is pruned for silence.
    pub min_ready: usize,
    /// The finalizers for which its deletion waits, if it is being deleted.
    pub ending: Option<Vec<String>>,
    /// Whether decisions are only made and reported, and nothing is published.
    pub dry_run: bool,
    /// Which hand-written addresses may be adopted.
    pub consent: Consent,
    /// The cordons that are stored in its status.
    pub cordoned: Vec<CordonedInstance>,
    /// The instances with a cordon that the annotation lifts, even if they no longer have a Lease.
    pub uncordon: Vec<String>,
    /// The errors in the spec.
    pub problems: Vec<SpecProblem>,
}

/// A port of the registration, before it is resolved for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTemplate {
    /// Its name.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
    /// The port on which the instances listen.
    pub target: TargetPort,
    /// The transport.
    pub protocol: Protocol,
    /// The application protocol.
    pub app_protocol: Option<String>,
}

/// The port on which the instances listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// This port number.
    Number(u16),
    /// The container port with this name.
    Name(String),
}

/// The shortest and the longest ttl.
const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

impl Registration {
    /// The registration as the owner of what it publishes.
    pub fn owner(&self) -> Owner {
        let Key { namespace, name } = self.key.clone();
        Owner { namespace, name, uid: self.uid.clone() }
    }

    /// Reads a spec. A field that cannot be read is omitted or gets its default, and is described in
    /// [`Registration::problems`].
    pub fn validate(object: &ServiceRegistration) -> Self {
        let (metadata, spec) = (&object.metadata, &object.spec);
        let annotation = |name| metadata.annotations.as_ref()?.get(name).map(String::as_str);
        let unread = annotation(salvage::UNREADABLE_ANNOTATION);
        let mut problems: Vec<SpecProblem> =
            unread.map(|fields| SpecProblem::Unreadable(fields.to_owned())).into_iter().collect();
        let Pace { ttl, interval } = pace(spec, &mut problems);
        let ports = ports(&spec.ports, &mut problems);
        let selector = selector(spec.pod_selector.as_ref(), &mut problems);
        let declared = declared(&spec.instances, &mut problems);
        let dry_run = dry_run(annotation(DRY_RUN_ANNOTATION), &mut problems);
        let consent = Consent::read(annotation(ADOPT_ANNOTATION)).unwrap_or_else(|problem| {
            problems.push(problem.into());
            Consent::Unreadable
        });
        let protection = spec.protection.as_ref();
        let min_ready = protection.and_then(|it| usize::try_from(it.min_ready).ok());
        Self {
            service_name: object.service_name().to_owned(),
            key: Key::of(metadata),
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation,
            ttl,
            interval,
            ports,
            selector_unreadable: selector.is_none() && spec.pod_selector.is_some(),
            selector,
            declared,
            min_ready: min_ready.unwrap_or(0),
            ending: ending(metadata),
            dry_run,
            consent,
            cordoned: object.status.iter().flat_map(|status| &status.cordoned).cloned().collect(),
            uncordon: uncordon(annotation(UNCORDON_ANNOTATION)),
            problems,
        }
    }

    /// The ttl and the interval of its instances.
    pub fn pace(&self) -> Pace {
        Pace { ttl: self.ttl, interval: self.interval }
    }

    /// How long after its last beat an instance counts as overdue: the interval plus half of its slack. Jitter and the
    /// retry of one lost beat are not reported.
    pub fn overdue_after(&self, ttl: Duration) -> Duration {
        self.interval + ttl.saturating_sub(self.interval) / 2
    }
}

/// Reads the ttl and the interval.
fn pace(spec: &ServiceRegistrationSpec, problems: &mut Vec<SpecProblem>) -> Pace {
    let mut read = |field, text: &str| {
        duration::parse(text)
            .map_err(|source| problems.push(SpecProblem::NotADuration { field, source }))
            .ok()
    };
    // A ttl that cannot be read must not become shorter. Otherwise an instance that beats by the intended ttl would be
    // pruned.
    let ttl = read("ttl", &spec.ttl).unwrap_or(*TTL.end());
    let interval = read("interval", &spec.interval);
    if !TTL.contains(&ttl) {
        problems.push(SpecProblem::TtlOutOfRange(spec.ttl.clone()));
    }
    let ttl = ttl.clamp(*TTL.start(), *TTL.end());
    let fits = |interval: &Duration| !interval.is_zero() && *interval < ttl;
    if !interval.as_ref().is_none_or(fits) {
        problems.push(SpecProblem::IntervalOutOfRange { interval: spec.interval.clone(), ttl });
    }
    Pace { ttl, interval: interval.filter(fits).unwrap_or(ttl / 3) }
}

fn selector(
    selector: Option<&LabelSelector>,
    problems: &mut Vec<SpecProblem>,
) -> Option<LabelMatch> {
    Selector::try_from(selector?.clone())
        .map(LabelMatch::from)
        .map_err(|error| problems.push(SpecProblem::PodSelector(Failure::of(error))))
        .ok()
}

/// The finalizers for which a deletion waits, if the object is being deleted.
fn ending(metadata: &ObjectMeta) -> Option<Vec<String>> {
    metadata.deletion_timestamp.as_ref()?;
    Some(metadata.finalizers.clone().unwrap_or_default())
}

fn uncordon(names: Option<&str>) -> Vec<String> {
    let names = names.into_iter().flat_map(|names| names.split(','));
    names.map(|name| name.trim().to_owned()).collect()
}

fn ports(specs: &[PortSpec], problems: &mut Vec<SpecProblem>) -> Vec<PortTemplate> {
    let mut ports: Vec<PortTemplate> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match port(spec) {
            Ok(port) if ports.iter().any(|known| known.name == port.name) => {
                let source = PortProblem::NameTwice(port.name);
                problems.push(SpecProblem::Port { index, source });
            }
            Ok(port) => ports.push(port),
            Err(source) => problems.push(SpecProblem::Port { index, source }),
        }
    }
    if specs.is_empty() {
        problems.push(SpecProblem::NoPorts);
    }
    ports
}

fn port(spec: &PortSpec) -> Result<PortTemplate, PortProblem> {
    let number = |field, number: i32| {
        u16::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or(PortProblem::NotANumber { field, number })
    };
    let named = |field, name: &str| match name.len() {
        0..=PORT_NAME_MAX => Ok(name.to_owned()),
        length => Err(PortProblem::TooLong { field, length }),
    };
    let port = number("port", spec.port)?;
    Ok(PortTemplate {
        name: named("name", &spec.name)?,
        port,
        target: match &spec.target_port {
            None => TargetPort::Number(port),
            Some(IntOrString::Int(target)) => TargetPort::Number(number("targetPort", *target)?),
            Some(IntOrString::String(name)) => TargetPort::Name(named("targetPort", name)?),
        },
        protocol: match spec.protocol.as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => return Err(PortProblem::UnknownProtocol(other.to_owned())),
        },
        app_protocol: spec.app_protocol.clone(),
    })
}

/// Reads the annotation for a dry run. A value that cannot be read is a problem like any other, which stops additions
/// but not removals. So no instance is newly published, as in the dry run that the user probably wanted. And if
/// instances are already published, a typing error does not keep dead ones published.
fn dry_run(value: Option<&str>, problems: &mut Vec<SpecProblem>) -> bool {
    match value {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            problems.push(SpecProblem::DryRun(other.chars().take(64).collect()));
            false
        }
    }
}

fn declared(
    specs: &[InstanceSpec],
    problems: &mut Vec<SpecProblem>,
) -> BTreeMap<String, InstanceSpec> {
    let mut declared = BTreeMap::new();
    for (index, spec) in specs.iter().enumerate() {
        if spec.name.is_empty() || spec.name.len() > heartbeat::INSTANCE_NAME_MAX {
            problems.push(SpecProblem::InstanceNameLength { index });
        } else if declared.contains_key(&spec.name) {
            problems.push(SpecProblem::InstanceTwice { index, name: spec.name.clone() });
        } else {
            declared.insert(spec.name.clone(), spec.clone());
        }
    }
    declared
}

/// An IntOrString as text.
pub fn text_of(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}
