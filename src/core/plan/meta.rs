//! Labels, owner references and annotations of what we publish.

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
    owner: OwnerReference,
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
            owner: reference(target.owner),
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
            owner: reference(target.owner),
            trigger_time: target.trigger_time,
        }
    }

    /// Whether an object has it. The trigger time is not looked at: it is no reason to write.
    pub fn is_met(&self, metadata: &ObjectMeta) -> bool {
        obeys(metadata.labels.as_ref(), &self.labels)
            && obeys(metadata.annotations.as_ref(), &self.annotations)
            && self.owner_is_met(metadata.owner_references.as_deref().unwrap_or_default())
    }

    fn owner_is_met(&self, references: &[OwnerReference]) -> bool {
        let mut ours = references.iter().filter(|reference| self.replaces(reference));
        ours.next() == Some(&self.owner) && ours.next().is_none()
    }

    /// Whether our owner reference takes the place of this one: it is ours; or that of an earlier
    /// registration of the same name, whose end would otherwise take the object along; or that of
    /// another controller, since an object has only one and the API server refuses a second.
    fn replaces(&self, other: &OwnerReference) -> bool {
        let group = |api_version: &str| api_version.split('/').next().map(str::to_owned);
        other.uid == self.owner.uid
            || (other.kind == self.owner.kind
                && group(&other.api_version) == group(&self.owner.api_version))
            || other.controller == Some(true)
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
        let references = metadata.owner_references.get_or_insert_default();
        if !self.owner_is_met(references) {
            references.retain(|reference| !self.replaces(reference));
            references.push(self.owner.clone());
        }
    }
}

/// The reference to the registration by which what it publishes goes with it.
pub fn reference(owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", beatkeeper_api::GROUP, beatkeeper_api::VERSION),
        kind: "ServiceRegistration".to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
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
