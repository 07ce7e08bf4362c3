//! Reads objects from the API server so that no unused field can stop a beat.
//!
//! The API server stores values that our types cannot hold: times beyond the year 9999, managed fields that
//! are nested hundreds of levels deep, or the fields of a future version. With the plain types such a field
//! would make the answer to a beat unreadable, although the beat was accepted. So only the used fields of
//! each object are decoded, and the rest is skipped.

use std::borrow::Cow;

use beatkeeper_api::{
    InstanceStatus, ServiceRegistration, ServiceRegistrationSpec, ServiceRegistrationStatus,
    heartbeat::{HEALTH_ANNOTATION, NOTE_ANNOTATION, REGISTRATION_LABEL},
    keep::Keep::{self, All, Each, Entries, Fields, Time},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{Resource, api::ObjectMeta};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed, Error},
};
use serde_json::{Value, json};

/// A kind of object of which only a part is read.
pub trait Readable: DeserializeOwned {
    /// The fields of an object that are kept. Every field that is used anywhere has to be named here.
    const KEEP: Keep;

    /// Makes the object from the kept fields.
    ///
    /// # Errors
    /// The value is no object of this kind.
    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(kept)
    }
}

/// An object of which only the used fields were read. It is serialised unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<K>(pub K);

impl<'de, K: Readable> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kept = K::KEEP.deserialize(deserializer)?;
        // Without a name, the value is not an object of this kind. No message shows its contents.
        let named = kept["metadata"]["name"].is_string();
        let read = if named { K::of(&kept).ok() } else { None };
        read.map(Self)
            .ok_or_else(|| D::Error::custom("it is no object of the kind that was asked for"))
    }
}

impl<K: Serialize> Serialize for Read<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<K: Resource> Resource for Read<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// The fields that identify an object.
const IDENTITY: Keep =
    Fields(&[("name", All), ("namespace", All), ("uid", All), ("resourceVersion", All)]);

impl Readable for Lease {
    const KEEP: Keep = Fields(&[
        ("apiVersion", All),
        ("kind", All),
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("uid", All),
                ("resourceVersion", All),
                ("labels", Entries(|name| name == REGISTRATION_LABEL)),
                ("annotations", Entries(|name| name.starts_with("beatkeeper.dev/"))),
                (
                    "ownerReferences",
                    Each(&Fields(&[
                        ("apiVersion", All),
                        ("kind", All),
                        ("name", All),
                        ("uid", All),
                    ])),
                ),
                ("managedFields", Each(&MANAGED)),
            ]),
        ),
        (
            "spec",
            Fields(&[
                ("holderIdentity", All),
                ("leaseDurationSeconds", All),
                ("leaseTransitions", All),
                ("renewTime", Time),
            ]),
        ),
    ]);
}

/// The managed fields that show which manager has changed the fields that a heartbeat loop uses.
const MANAGED: Keep = Fields(&[
    ("manager", All),
    (
        "fieldsV1",
        Fields(&[
            ("f:metadata", Fields(&[("f:annotations", Entries(told_by_an_instance))])),
            ("f:spec", Fields(&[("f:renewTime", Fields(&[]))])),
        ]),
    ),
]);

fn told_by_an_instance(field: &str) -> bool {
    field
        .strip_prefix("f:")
        .is_some_and(|annotation| [HEALTH_ANNOTATION, NOTE_ANNOTATION].contains(&annotation))
}

impl Readable for Pod {
    const KEEP: Keep = Fields(&[("apiVersion", All), ("kind", All), ("metadata", IDENTITY)]);
}

impl Readable for EndpointSlice {
    const KEEP: Keep = Fields(&[
        ("apiVersion", All),
        ("kind", All),
        ("metadata", IDENTITY),
        (
            "endpoints",
            Each(&Fields(&[
                ("addresses", All),
                ("conditions", Fields(&[("ready", All), ("serving", All), ("terminating", All)])),
                ("nodeName", All),
                ("zone", All),
                ("targetRef", Fields(&[("kind", All), ("name", All)])),
            ])),
        ),
        ("ports", Each(&Fields(&[("name", All), ("port", All), ("protocol", All)]))),
    ]);
}

impl Readable for ServiceRegistration {
    const KEEP: Keep = Fields(&[
        ("metadata", IDENTITY),
        (
            "spec",
            Fields(&[("serviceName", All), ("ttl", All), ("interval", All), ("carrier", All)]),
        ),
        (
            "status",
            Fields(&[
                ("total", All),
                (
                    "conditions",
                    Each(&Fields(&[
                        ("type", All),
                        ("status", All),
                        ("reason", All),
                        ("message", All),
                        ("lastTransitionTime", Time),
                    ])),
                ),
                (
                    "instances",
                    Each(&Fields(&[
                        ("name", All),
                        ("state", All),
                        ("addresses", All),
                        ("since", Time),
                        ("lastBeat", Time),
                        ("reason", All),
                        ("message", All),
                    ])),
                ),
            ]),
        ),
    ]);

    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        let metadata = ObjectMeta::deserialize(&kept["metadata"])?;
        let status = &kept["status"];
        Ok(Self {
            metadata,
            spec: spec(&kept["spec"])?,
            status: status.is_object().then(|| ServiceRegistrationStatus {
                total: i32::deserialize(&status["total"]).unwrap_or_default(),
                conditions: sound(&status["conditions"]),
                instances: sound::<InstanceStatus>(&status["instances"]),
                ..ServiceRegistrationStatus::default()
            }),
        })
    }
}

/// The current CRD allows only text in these fields, but an older one may have let other values in. Such a
/// value is turned into text. It is then no valid duration, and is reported like any other invalid text.
fn spec(kept: &Value) -> Result<ServiceRegistrationSpec, serde_json::Error> {
    let mut texts = json!({});
    for (field, given) in kept.as_object().into_iter().flatten() {
        texts[field] = match given {
            Value::Null => continue,
            Value::String(text) => json!(text),
            other => json!(other.to_string()),
        };
    }
    ServiceRegistrationSpec::deserialize(texts)
}

/// Returns the elements of a list that can be read.
fn sound<T: DeserializeOwned>(list: &Value) -> Vec<T> {
    list.as_array().into_iter().flatten().filter_map(|one| T::deserialize(one).ok()).collect()
}

#[cfg(test)]
mod tests;
