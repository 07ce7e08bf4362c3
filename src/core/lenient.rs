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
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value, json};

/// Where the reader tells the validator what could not be read.
pub(super) const UNREADABLE_ANNOTATION: &str = "beatkeeper.dev/unreadable";

/// A ServiceRegistration, of which at least the metadata could be read.
#[derive(Debug, Clone)]
pub struct LenientRegistration(pub ServiceRegistration);

impl<'de> Deserialize<'de> for LenientRegistration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object { metadata, mut rest } = Object::deserialize(deserializer)?;
        rest.insert("metadata".to_owned(), Value::Object(metadata.rest));
        let value = Value::Object(rest);
        let read = ServiceRegistration::deserialize(&value).or_else(|_| salvage(&value));
        read.map(Self).map_err(serde::de::Error::custom)
    }
}

/// As it comes, but for who wrote which field: nobody asks for that, and with a line for each instance in
/// the status it takes more room than all else.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "managedFields", default)]
    _managers: IgnoredAny,
    #[serde(flatten)]
    rest: Map<String, Value>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wrote_which_field_is_passed_over_whatever_it_says() {
        let registration: LenientRegistration = serde_json::from_value(json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "name": "greeter", "resourceVersion": "7", "managedFields": [{ "fieldsV1": 7 }, 7] },
            "spec": { "ports": [{ "port": 80 }] },
            "status": { "ready": 1 },
        }))
        .expect("a registration");
        let ServiceRegistration { metadata, spec, status } = registration.0;
        assert_eq!(
            (metadata.managed_fields, metadata.resource_version.as_deref()),
            (None, Some("7"))
        );
        assert_eq!((spec.ports.len(), status.expect("a status").ready), (1, 1));
    }
}
