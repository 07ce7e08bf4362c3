//! The labels and annotations of the published objects, and the registration that owns them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

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

/// Annotation of an object of others: the moment at which a takeover of the object began. The takeover removes it. It
/// stays on an object if the takeover was given up.
pub const TAKING_OVER_ANNOTATION: &str = "beatkeeper.dev/taking-over";

/// Annotation: the moment of the change that led to the last write.
pub const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Annotation of an Endpoints object that does not have room for every address.
pub const OVER_CAPACITY_ANNOTATION: &str = "endpoints.kubernetes.io/over-capacity";

/// Value of [`OVER_CAPACITY_ANNOTATION`].
pub const TRUNCATED: &str = "truncated";

/// The suffix of the names of Kubernetes' own controllers.
const CLUSTERS: &str = "-controller.k8s.io";

/// The ServiceRegistration that owns what is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Namespace of the registration, and of everything that it owns.
    pub namespace: String,
    /// Name of the registration.
    pub name: String,
    /// Uid of the registration.
    pub uid: String,
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

/// Sets each key to its value; None removes it.
pub(crate) fn enforce(
    map: &mut Option<BTreeMap<String, String>>,
    rules: &[(&'static str, Option<&str>)],
) {
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

/// A label of an object.
pub fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Uid and name of the ServiceRegistration that an object belongs to. They come from the operator's annotation, or
/// from the owner reference that earlier versions wrote.
pub fn owner_of(metadata: &ObjectMeta) -> Option<(&str, &str)> {
    if let Some(Marked { uid, name, .. }) = mark_of(metadata) {
        return Some((uid, name));
    }
    metadata
        .owner_references
        .iter()
        .flatten()
        // A reference without `controller` only asks for the object to be deleted with the registration.
        .find(|owner| owner.controller == Some(true) && is_registration(owner))
        .map(|owner| (owner.uid.as_str(), owner.name.as_str()))
}

/// The content of the operator's annotation on an object; `None` if it was copied from another object.
pub fn mark_of(metadata: &ObjectMeta) -> Option<Marked<'_>> {
    let marked = Marked::read(owned_by(metadata)?)?;
    // The cluster's controller copies annotations from Endpoints to the slices that it mirrors.
    let mirrored = label(metadata, SLICE_MANAGED_BY_LABEL).is_some_and(|it| it.ends_with(CLUSTERS));
    // On a Service: no registration owns a copy of the Service under another name.
    let renamed = marked.service.is_some_and(|service| metadata.name.as_deref() != Some(service));
    let copied = mirrored || renamed || copied_from(metadata).is_some();
    (!copied).then_some(marked)
}
