//! Labels and annotations of the published objects, and their ownership.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    objects::marks::{
        ENDPOINTS_MANAGED_BY_LABEL, HEADLESS_LABEL, MANAGER, OVER_CAPACITY_ANNOTATION, OwnerMark,
        SERVICE_NAME_LABEL, SKIP_MIRROR_LABEL, SLICE_MANAGED_BY_LABEL, TRIGGER_TIME_ANNOTATION,
        TRUNCATED, enforce,
    },
    plan::target::Target,
};

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

fn obeys(map: Option<&BTreeMap<String, String>>, rules: &[Rule<'_>]) -> bool {
    rules.iter().all(|(key, value)| map.and_then(|map| map.get(*key)).map(String::as_str) == *value)
}
