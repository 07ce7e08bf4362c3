//! Reading a ServiceRegistration whatever is in it.
//!
//! The declaration of the kind keeps nonsense out, but an older one may have let it in, and the API
//! server takes times that no type of ours can hold. With the plain type one such object, in any
//! namespace, would make every list and watch of registrations fail: one user could blind the
//! operator for all. So what cannot be read is left out, and named in an annotation from which
//! [`Registration::validate`](super::registration::Registration::validate) makes a problem.

use std::borrow::Cow;

use beatkeeper_api::{ServiceRegistration, ServiceRegistrationSpec};
use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Where the reader tells the validator what could not be read.
pub(super) const UNREADABLE_ANNOTATION: &str = "beatkeeper.dev/unreadable";

/// A ServiceRegistration, of which at least the metadata could be read.
#[derive(Debug, Clone)]
pub struct LenientRegistration(pub ServiceRegistration);

impl<'de> Deserialize<'de> for LenientRegistration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = ServiceRegistration::deserialize(&value).or_else(|_| salvage(&value));
        let mut registration = read.map_err(serde::de::Error::custom)?;
        // Who wrote which field nobody asks, and it takes more room than the fields.
        registration.metadata.managed_fields = None;
        Ok(Self(registration))
    }
}

impl Resource for LenientRegistration {
    type DynamicType = ();
    type Scope = <ServiceRegistration as Resource>::Scope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        ServiceRegistration::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        ServiceRegistration::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        ServiceRegistration::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        ServiceRegistration::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

fn salvage(value: &Value) -> Result<ServiceRegistration, serde_json::Error> {
    let mut problems = Vec::new();
    let mut spec = Map::new();
    for (field, given) in value["spec"].as_object().into_iter().flatten() {
        match readable(field, given) {
            Ok(()) => drop(spec.insert(field.clone(), given.clone())),
            Err(error) => {
                problems.push(format!("spec.{field} cannot be read: {error}"));
                spec.extend(instead(field, given).map(|value| (field.clone(), value)));
            }
        }
    }
    let mut metadata = ObjectMeta::deserialize(&value["metadata"])?;
    if !problems.is_empty() {
        let told = problems.join("; ");
        metadata
            .annotations
            .get_or_insert_default()
            .insert(UNREADABLE_ANNOTATION.to_owned(), told.chars().take(1000).collect());
    }
    Ok(ServiceRegistration {
        metadata,
        spec: ServiceRegistrationSpec::deserialize(Value::Object(spec))?,
        // It is ours, and is written anew.
        status: Option::deserialize(&value["status"]).ok().flatten(),
    })
}

/// Whether a field can be read. No field's reading depends on another's.
fn readable(field: &str, value: &Value) -> Result<(), serde_json::Error> {
    ServiceRegistrationSpec::deserialize(json!({ field: value })).map(|_| ())
}

/// What stands in for a field that cannot be read, such that nobody is unpublished for it.
fn instead(field: &str, value: &Value) -> Option<Value> {
    let elements = || {
        let all = value.as_array()?.iter();
        let sound = all.filter(|element| readable(field, &json!([element])).is_ok());
        Some(Value::Array(sound.cloned().collect()))
    };
    match field {
        // No duration either way: for the ttl that means the longest.
        "ttl" | "interval" => Some(Value::String(value.to_string().chars().take(32).collect())),
        "ports" | "instances" => elements(),
        // No operator: such a selector lets nobody join, and nobody has to leave.
        "podSelector" => {
            Some(json!({ "matchExpressions": [{ "key": "unreadable", "operator": "" }] }))
        }
        // How many were meant to be kept is not known.
        "protection" => Some(json!({ "minReady": i32::MAX })),
        _ => None,
    }
}
