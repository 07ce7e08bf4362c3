//! Reads a ServiceRegistration, whatever it contains.
//!
//! The CRD rejects invalid values, but an older CRD may have accepted them, and the API server accepts times that the
//! operator's types cannot hold. Each field that cannot be read is left out and named in an annotation, from which
//! [`Registration::validate`](super::registration::Registration::validate) makes a problem. So the registration
//! stalls, and what it has published stays.

use beatkeeper_api::{ServiceRegistration, ServiceRegistrationSpec, ServiceRegistrationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// The annotation in which the reader tells the validator what could not be read.
pub(crate) const UNREADABLE_ANNOTATION: &str = "beatkeeper.dev/unreadable";

/// Reads a registration.
///
/// # Errors
/// If the name or the namespace cannot be read.
pub(crate) fn registration(value: &Value) -> Result<ServiceRegistration, serde_json::Error> {
    ServiceRegistration::deserialize(value).or_else(|_| salvage(value))
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
    let mut metadata: ObjectMeta = fields(&value["metadata"], |field, _| {
        problems.push(format!("metadata.{field} cannot be read"));
    });
    // Without these, the object cannot be identified.
    String::deserialize(&value["metadata"]["name"])?;
    String::deserialize(&value["metadata"]["namespace"])?;
    let status = status(&value["status"], &mut problems);
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
        status,
    })
}

/// Reads the fields of an object that can be read. Each other field is passed to `unread` and gets its default.
pub(crate) fn fields<T: DeserializeOwned + Default>(
    value: &Value,
    mut unread: impl FnMut(&str, &Value),
) -> T {
    let mut sound = Map::new();
    for (field, given) in value.as_object().into_iter().flatten() {
        if T::deserialize(json!({ field: given })).is_ok() {
            sound.insert(field.clone(), given.clone());
        } else {
            unread(field, given);
        }
    }
    T::deserialize(Value::Object(sound)).unwrap_or_default()
}

/// Reads the status. The operator writes it again, except for one list: the adopted instances that have not beaten are
/// not stored anywhere else. The name and the address of an entry are enough to keep it published.
fn status(value: &Value, problems: &mut Vec<String>) -> Option<ServiceRegistrationStatus> {
    value.as_object()?;
    let mut adopted = Vec::new();
    let mut status: ServiceRegistrationStatus = fields(value, |field, given| {
        if field != "adopted" {
            return;
        }
        for entry in given.as_array().into_iter().flatten() {
            let unnamed = json!({ "name": "", "address": "", "from": "" });
            let mut complete = unnamed.as_object().cloned().unwrap_or_default();
            for (field, given) in entry.as_object().into_iter().flatten() {
                let mut with = complete.clone();
                with.insert(field.clone(), given.clone());
                if readable_adopted(&with) {
                    complete = with;
                }
            }
            match serde_json::from_value::<beatkeeper_api::AdoptedInstance>(Value::Object(complete))
            {
                Ok(entry) if !entry.name.is_empty() && !entry.address.is_empty() => {
                    adopted.push(entry)
                }
                _ => problems.push("an entry of status.adopted cannot be read".to_owned()),
            }
        }
    });
    status.adopted.extend(adopted);
    Some(status)
}

fn readable_adopted(entry: &Map<String, Value>) -> bool {
    beatkeeper_api::AdoptedInstance::deserialize(Value::Object(entry.clone())).is_ok()
}

/// Whether a field can be read. This does not depend on other fields.
fn readable(field: &str, value: &Value) -> Result<(), serde_json::Error> {
    ServiceRegistrationSpec::deserialize(json!({ field: value })).map(|_| ())
}

/// The replacement of a field that cannot be read. It is chosen so that no instance is unpublished because of it.
fn instead(field: &str, value: &Value) -> Option<Value> {
    let elements = || {
        let all = value.as_array()?.iter();
        let sound = all.filter(|element| readable(field, &json!([element])).is_ok());
        Some(Value::Array(sound.cloned().collect()))
    };
    match field {
        // The replacement is not a duration either. For the ttl, it is therefore validated as the longest ttl.
        "ttl" | "interval" => Some(Value::String(value.to_string().chars().take(32).collect())),
        "ports" | "instances" => elements(),
        // A selector without an operator: no Pod may join, and none has to leave.
        "podSelector" => {
            Some(json!({ "matchExpressions": [{ "key": "unreadable", "operator": "" }] }))
        }
        // It is not known how many instances should be protected.
        "protection" => Some(json!({ "minReady": i32::MAX })),
        _ => None,
    }
}
