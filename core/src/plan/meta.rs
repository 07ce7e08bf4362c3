//! Labels and annotations of what we publish, and whose it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{Owner, Target};

/// Value of the managed-by labels, by which our objects are told from everybody else's.
pub const MANAGER: &str = "beatkeeper.dev";
/// Label of a slice: the Service it belongs to. A slice without it is seen by nobody.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label of a slice: who manages it.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of an Endpoints object: who manages it.
pub const ENDPOINTS_MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// Label of an Endpoints object: its addresses are in slices already. Without it upstream's
/// mirroring controller makes slices of its own beside ours, and kube-proxy's choice between two
/// that disagree is random.
pub const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Label of slices and Endpoints of a headless Service: kube-proxy does not watch what has it.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Annotation of what the operator makes: namespace, name and uid of the registration that it belongs to.
///
/// Not an owner reference: the garbage collector deletes what such a reference names within
/// milliseconds of its owner's end, and a registration that is replaced (`kubectl replace --force`,
/// GitOps tools, `helm uninstall` and `install`) would lose its Service with its addresses, node ports
/// and settings. What no registration takes over, the operator deletes itself
/// (`controller/collect.rs`).
pub const OWNED_BY_ANNOTATION: &str = "beatkeeper.dev/owned-by";
/// Annotation: the moment of the change that led to the last write.
pub const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Annotation of an Endpoints object that has not room for every address.
pub const OVER_CAPACITY_ANNOTATION: &str = "endpoints.kubernetes.io/over-capacity";
/// Value of [`OVER_CAPACITY_ANNOTATION`].
pub const TRUNCATED: &str = "truncated";

/// A key and the value it must have; none when it must be absent.
type Rule<'a> = (&'static str, Option<&'a str>);

/// The metadata that an object of ours must have, whatever else is in it.
pub(super) struct Required<'a> {
    namespace: &'a str,
    labels: Vec<Rule<'a>>,
    annotations: Vec<Rule<'a>>,
    owner: OwnerMark,
    trigger_time: Option<Timestamp>,
}

impl<'a> Required<'a> {
    /// Of a slice.
    pub fn of_slice(target: &Target<'a>) -> Self {
        let headless = target.service.headless.then_some("");
        Self {
            namespace: &target.owner.namespace,
            labels: vec![
                (SERVICE_NAME_LABEL, Some(&target.service.name)),
                (SLICE_MANAGED_BY_LABEL, Some(MANAGER)),
                (HEADLESS_LABEL, headless),
            ],
            annotations: Vec::new(),
            owner: OwnerMark::of(target.owner),
            trigger_time: target.trigger_time,
        }
    }

    /// Of the Endpoints object.
    pub fn of_endpoints(target: &Target<'a>, truncated: bool) -> Self {
        let headless = target.service.headless.then_some("");
        Self {
            namespace: &target.owner.namespace,
            labels: vec![
                (SKIP_MIRROR_LABEL, Some("true")),
                (ENDPOINTS_MANAGED_BY_LABEL, Some(MANAGER)),
                (HEADLESS_LABEL, headless),
            ],
            annotations: vec![(OVER_CAPACITY_ANNOTATION, truncated.then_some(TRUNCATED))],
            owner: OwnerMark::of(target.owner),
            trigger_time: target.trigger_time,
        }
    }

    /// Whether an object has it. The trigger time is not looked at: it is no reason to write.
    pub fn is_met(&self, metadata: &ObjectMeta) -> bool {
        obeys(metadata.labels.as_ref(), &self.labels)
            && obeys(metadata.annotations.as_ref(), &self.annotations)
            && self.owner.is_on(metadata)
    }

    /// The metadata for a new object, not yet named.
    pub fn fresh(&self) -> ObjectMeta {
        let mut metadata =
            ObjectMeta { namespace: Some(self.namespace.to_owned()), ..ObjectMeta::default() };
        self.impose(&mut metadata);
        metadata
    }

    /// The metadata for an update: what others added stays, what is ours is put right.
    pub fn repaired(&self, metadata: &ObjectMeta) -> ObjectMeta {
        // The API server keeps the managed fields of an update that has none.
        let mut metadata = ObjectMeta { managed_fields: None, ..metadata.clone() };
        self.impose(&mut metadata);
        metadata
    }

    fn impose(&self, metadata: &mut ObjectMeta) {
        enforce(&mut metadata.labels, &self.labels);
        enforce(&mut metadata.annotations, &self.annotations);
        let moment = self.trigger_time.map(|moment| moment.to_string());
        enforce(&mut metadata.annotations, &[(TRIGGER_TIME_ANNOTATION, moment.as_deref())]);
        self.owner.put_on(metadata);
    }
}

/// The annotation that says whose an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerMark(String);

impl OwnerMark {
    /// That of a registration. Its namespace is part of it, so that a copy of the object in another namespace, as a
    /// restore or a GitOps tool makes one, is told from what the operator has made.
    pub fn of(owner: &Owner) -> Self {
        let Owner { namespace, name, uid } = owner;
        Self(format!("{namespace}:{name}/{uid}"))
    }

    /// That of a registration on the Service that it has made. The name of the Service is part of it, too, so that no
    /// registration owns a copy of the Service under another name.
    pub fn on_service(owner: &Owner, service: &str) -> Self {
        Self(format!("{}/{service}", Self::of(owner).0))
    }

    /// The value of the annotation.
    pub fn value(&self) -> &str {
        &self.0
    }

    /// Whether an object has it, and no other owner whose end would take the object along.
    pub fn is_on(&self, metadata: &ObjectMeta) -> bool {
        owned_by(metadata) == Some(self.0.as_str())
            && !metadata.owner_references.iter().flatten().any(is_superseded)
    }

    /// Puts it on an object. Owners that do not control it stay.
    pub fn put_on(&self, metadata: &mut ObjectMeta) {
        enforce(&mut metadata.annotations, &[(OWNED_BY_ANNOTATION, Some(&self.0))]);
        metadata.owner_references = remaining_owners(metadata);
    }
}

/// What the annotation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked<'a> {
    /// The namespace of the registration. Earlier versions did not say it.
    pub namespace: Option<&'a str>,
    /// The name of the registration.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The name of the Service, on a Service.
    pub service: Option<&'a str>,
}

impl<'a> Marked<'a> {
    /// Reads the annotation's value.
    pub fn read(value: &'a str) -> Option<Self> {
        let (registration, rest) = value.split_once('/')?;
        let (namespace, name) = match registration.split_once(':') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, registration),
        };
        let (uid, service) = match rest.split_once('/') {
            Some((uid, service)) => (uid, Some(service)),
            None => (rest, None),
        };
        Some(Self { namespace, name, uid, service })
    }
}

/// The annotation's value, when an object has it.
pub fn owned_by(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(OWNED_BY_ANNOTATION).map(String::as_str)
}

/// The namespace that an object was copied from: the one that its annotation names, if that is another.
pub fn copied_from(metadata: &ObjectMeta) -> Option<&str> {
    let namespace = Marked::read(owned_by(metadata)?)?.namespace?;
    (metadata.namespace.as_deref() != Some(namespace)).then_some(namespace)
}

/// The owner references that stay beside our annotation; none when none does.
pub fn remaining_owners(metadata: &ObjectMeta) -> Option<Vec<OwnerReference>> {
    let references = metadata.owner_references.iter().flatten();
    let kept: Vec<_> = references.filter(|it| !is_superseded(it)).cloned().collect();
    Some(kept).filter(|kept| !kept.is_empty())
}

/// Whether the annotation takes the place of an owner reference: one to a registration, as earlier
/// versions wrote, or one to a controller, whose end would take along what it does not own.
pub fn is_superseded(reference: &OwnerReference) -> bool {
    reference.controller == Some(true) || is_registration(reference)
}

/// Whether an owner reference names a registration.
pub fn is_registration(reference: &OwnerReference) -> bool {
    reference.kind == "ServiceRegistration"
        && reference.api_version.split('/').next() == Some(beatkeeper_api::GROUP)
}

fn obeys(map: Option<&BTreeMap<String, String>>, rules: &[Rule<'_>]) -> bool {
    rules.iter().all(|(key, value)| map.and_then(|map| map.get(*key)).map(String::as_str) == *value)
}

fn enforce(map: &mut Option<BTreeMap<String, String>>, rules: &[Rule<'_>]) {
    for (key, value) in rules {
        match value {
            Some(value) => {
                map.get_or_insert_default().insert((*key).to_owned(), (*value).to_owned());
            }
            None => {
                map.as_mut().and_then(|map| map.remove(*key));
            }
        }
    }
}
