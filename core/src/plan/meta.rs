//! Labels and annotations of the published objects, and their ownership.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{Owner, Target};

/// Value of the managed-by labels. It distinguishes our objects from those of other managers.
pub const MANAGER: &str = "beatkeeper.dev";
/// Label of a slice: the Service that it belongs to. Consumers do not see a slice without this label.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label of a slice: its manager.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of an Endpoints object: its manager.
pub const ENDPOINTS_MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// Label of an Endpoints object: its addresses are in slices already. Without this label, the mirroring controller of
/// Kubernetes creates its own slices beside ours. If the two disagree, kube-proxy chooses between them at random.
pub const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Label of the slices and Endpoints of a headless Service. kube-proxy does not watch objects that have it.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Annotation of the objects that the operator creates: namespace, name and uid of the registration that they belong
/// to.
///
/// An owner reference is not used, because the garbage collector deletes an object within milliseconds of its owner's
/// deletion. If a registration were replaced (`kubectl replace --force`, GitOps tools, `helm uninstall` and `install`),
/// its Service would be lost with its addresses, node ports and settings. If no registration takes over an object, the
/// operator deletes the object itself (`controller/collect.rs`).
pub const OWNED_BY_ANNOTATION: &str = "beatkeeper.dev/owned-by";
/// Annotation: the moment of the change that led to the last write.
pub const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Annotation of an Endpoints object that does not have room for every address.
pub const OVER_CAPACITY_ANNOTATION: &str = "endpoints.kubernetes.io/over-capacity";
/// Value of [`OVER_CAPACITY_ANNOTATION`].
pub const TRUNCATED: &str = "truncated";

/// A key and its required value. None means that the key must be absent.
type Rule<'a> = (&'static str, Option<&'a str>);

/// The required metadata of our objects. Further metadata may be present.
pub(super) struct Required<'a> {
    namespace: &'a str,
    labels: Vec<Rule<'a>>,
    annotations: Vec<Rule<'a>>,
    owner: OwnerMark,
    trigger_time: Option<Timestamp>,
}

impl<'a> Required<'a> {
    /// Returns the required metadata of a slice.
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

    /// Returns the required metadata of the Endpoints object.
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

    /// Whether an object has the required metadata. The trigger time is ignored, because it is no reason to write.
    pub fn is_met(&self, metadata: &ObjectMeta) -> bool {
        obeys(metadata.labels.as_ref(), &self.labels)
            && obeys(metadata.annotations.as_ref(), &self.annotations)
            && self.owner.is_on(metadata)
    }

    /// Returns the metadata for a new object, without a name.
    pub fn fresh(&self) -> ObjectMeta {
        let mut metadata =
            ObjectMeta { namespace: Some(self.namespace.to_owned()), ..ObjectMeta::default() };
        self.impose(&mut metadata);
        metadata
    }

    /// Returns the metadata for an update. What others have added stays, and what is ours is corrected.
    pub fn repaired(&self, metadata: &ObjectMeta) -> ObjectMeta {
        // If an update has no managed fields, the API server keeps the existing ones.
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

/// The value of the annotation that names the owner of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerMark(String);

impl OwnerMark {
    /// The mark of a registration. It contains the namespace. So a copy of the object in another namespace, made by a
    /// restore or a GitOps tool, can be told from an object that the operator has created.
    pub fn of(owner: &Owner) -> Self {
        let Owner { namespace, name, uid } = owner;
        Self(format!("{namespace}:{name}/{uid}"))
    }

    /// The mark of a registration on the Service that it has created. It also contains the name of the Service, so that
    /// no registration owns a copy of the Service under another name.
    pub fn on_service(owner: &Owner, service: &str) -> Self {
        Self(format!("{}/{service}", Self::of(owner).0))
    }

    /// The value of the annotation.
    pub fn value(&self) -> &str {
        &self.0
    }

    /// Whether an object has this mark, and no other owner with which the object would be deleted.
    pub fn is_on(&self, metadata: &ObjectMeta) -> bool {
        owned_by(metadata) == Some(self.0.as_str())
            && !metadata.owner_references.iter().flatten().any(is_superseded)
    }

    /// Puts the mark on an object. Owner references stay, except those that it supersedes ([`is_superseded`]).
    pub fn put_on(&self, metadata: &mut ObjectMeta) {
        enforce(&mut metadata.annotations, &[(OWNED_BY_ANNOTATION, Some(&self.0))]);
        metadata.owner_references = remaining_owners(metadata);
    }
}

/// The parsed value of the annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked<'a> {
    /// The namespace of the registration. Earlier versions did not write it.
    pub namespace: Option<&'a str>,
    /// The name of the registration.
    pub name: &'a str,
    /// The uid of the registration.
    pub uid: &'a str,
    /// The name of the Service, if the object is a Service.
    pub service: Option<&'a str>,
}

impl<'a> Marked<'a> {
    /// Parses the value of the annotation.
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

/// The value of the annotation, if an object has it.
pub fn owned_by(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(OWNED_BY_ANNOTATION).map(String::as_str)
}

/// The namespace that an object was copied from: the namespace in its annotation, if it differs from that of the
/// object.
pub fn copied_from(metadata: &ObjectMeta) -> Option<&str> {
    let namespace = Marked::read(owned_by(metadata)?)?.namespace?;
    (metadata.namespace.as_deref() != Some(namespace)).then_some(namespace)
}

/// The owner references that stay beside our annotation. None if none of them stays.
pub fn remaining_owners(metadata: &ObjectMeta) -> Option<Vec<OwnerReference>> {
    let references = metadata.owner_references.iter().flatten();
    let kept: Vec<_> = references.filter(|it| !is_superseded(it)).cloned().collect();
    Some(kept).filter(|kept| !kept.is_empty())
}

/// Whether the annotation replaces an owner reference. This applies to a reference to a registration, as earlier
/// versions wrote it. It also applies to a reference to a controller, because the deletion of that controller would
/// delete an object that it does not own.
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
