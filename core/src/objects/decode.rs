//! Reads objects as the API server sends them, so that an unusual object affects only itself.
//!
//! The API server stores values that the operator's types cannot hold: times after the year 9999 or just before its
//! end, managed fields that are nested hundreds of levels deep, and whatever a future version adds. With the plain
//! types, one such object in any namespace would make every list and watch of its kind fail. One user could then stop
//! the operator for everyone. So each object of a list and each event of a watch is parsed separately, and only the
//! fields that are used ([`Keep`]). The other fields are skipped and not decoded. An object that still cannot be
//! parsed becomes [`Unreadable`]: its name is known, and nothing is decided from its unknown contents.

#[cfg(test)]
pub(crate) mod examples;
mod identity;
mod kinds;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed},
};
use serde_json::{Value, json};

pub use beatkeeper_api::keep::Keep;

use crate::{
    objects::marks::{Marked, OWNED_BY_ANNOTATION, SERVICE_NAME_LABEL},
    vocabulary::{key::Key, version::Version},
};

/// A kind of object that is read in this way.
pub trait Decode: DeserializeOwned {
    /// The name of the kind, for messages.
    const KIND: &'static str;
    /// The fields that are kept of an object. Every field that is used anywhere must be named here.
    const KEEP: Keep;

    /// Makes the object from the fields that were kept.
    ///
    /// # Errors
    /// If a part that is used cannot be parsed.
    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(kept)
    }
}

/// An object of a list or an event, or the reason why it cannot be read.
pub type Decoded<K> = Result<K, Box<Unreadable>>;

/// An object that exists and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its kind.
    pub kind: &'static str,
    /// Namespace and name. The name is empty if it cannot be read either.
    pub key: Key,
    /// Its resourceVersion.
    pub version: Version,
    /// The Service that its label names, if it is a slice.
    pub service: Option<String>,
    /// The name of the ServiceRegistration that it belongs to, from the operator's annotation or an owner reference.
    pub owner: Option<String>,
    /// Which part cannot be read, and why. The text contains no contents of the object.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key, why, .. } = self;
        write!(f, "{kind} {key} cannot be read: {why}")
    }
}

/// An event of a watch.
#[derive(Debug)]
pub struct Event<K> {
    /// ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
    pub kind: String,
    /// The resourceVersion of its object.
    pub version: Option<String>,
    /// Its object. Meaningless for a bookmark or an error.
    pub object: Decoded<K>,
}

/// Describes an event that contains an object.
struct Around<K>(std::marker::PhantomData<K>);

impl<K: Decode> Around<K> {
    const KEEP: Keep = Keep::Fields(&[("type", Keep::All), ("object", K::KEEP)]);
    const IDENTITY: Keep = Keep::Fields(&[("type", Keep::All), ("object", identity::IDENTITY)]);
}

/// Reads one object.
///
/// # Errors
/// [`Unreadable`], with as much of its identity as can be read.
pub fn read<K: Decode>(json: &[u8]) -> Decoded<K> {
    object(kept(K::KEEP, json), || kept(identity::IDENTITY, json).unwrap_or_default())
}

/// Reads an event of a watch.
///
/// # Errors
/// If the JSON is not an event. An unreadable object in the event is not an error here.
pub fn read_event<K: Decode>(json: &[u8]) -> Result<Event<K>, serde_json::Error> {
    let whole = kept(Around::<K>::KEEP, json);
    let identity = || kept(Around::<K>::IDENTITY, json).unwrap_or_default();
    let envelope = whole.as_ref().map_or_else(|_| identity(), |_| Value::Null);
    let told = whole.as_ref().unwrap_or(&envelope);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let version = text(&told["object"]["metadata"]["resourceVersion"]);
    let kind = String::deserialize(&told["type"])?;
    let read = whole.map(|mut whole| whole["object"].take());
    Ok(Event { kind, version, object: object(read, || identity()["object"].take()) })
}

fn kept(keep: Keep, json: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let kept = keep.deserialize(&mut reader)?;
    reader.end()?;
    Ok(kept)
}

fn object<K: Decode>(
    kept: Result<Value, serde_json::Error>,
    identity: impl FnOnce() -> Value,
) -> Decoded<K> {
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) => return Err(Box::new(unreadable::<K>(&identity(), None, &error))),
    };
    K::of(&kept).map_err(|error| {
        Box::new(unreadable::<K>(&identity(), culprit::<K>(&kept).as_deref(), &error))
    })
}

/// What is known of an object that cannot be read.
fn unreadable<K: Decode>(
    identity: &Value,
    part: Option<&str>,
    error: &serde_json::Error,
) -> Unreadable {
    let metadata = &identity["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&metadata["namespace"]);
    let marked = metadata["annotations"][OWNED_BY_ANNOTATION].as_str().and_then(Marked::read);
    // A copy from another namespace does not belong to a registration of this namespace.
    let marked = marked.filter(|marked| marked.namespace.is_none_or(|it| it == namespace));
    let owners = metadata["ownerReferences"].as_array();
    let owner = owners.into_iter().flatten().find(|owner| owner["kind"] == "ServiceRegistration");
    let owner = marked
        .map(|marked| marked.name.to_owned())
        .or_else(|| owner.map(|owner| text(&owner["name"])));
    let part = part.map_or_else(String::new, |part| format!("{part}: "));
    Unreadable {
        kind: K::KIND,
        key: Key::new(namespace, text(&metadata["name"])),
        version: metadata["resourceVersion"]
            .as_str()
            .map_or(Version(0), |version| Version::of(Some(version))),
        service: metadata["labels"][SERVICE_NAME_LABEL].as_str().map(str::to_owned),
        owner,
        why: format!("{part}{}", without_contents(error)),
    }
}

/// The first part of an object that cannot be read even alone.
fn culprit<K: Decode>(whole: &Value) -> Option<String> {
    let Keep::Fields(sections) = K::KEEP else { return None };
    let fails = |part: Value| K::of(&part).is_err();
    for (section, keep) in sections {
        let given = &whole[section];
        let Keep::Fields(fields) = keep else {
            if !given.is_null() && fails(json!({ *section: given, "metadata": {} })) {
                return Some((*section).to_owned());
            }
            continue;
        };
        let alone = |field: &str| match *section {
            "metadata" => json!({ "metadata": { field: &given[field] } }),
            section => json!({ section: { field: &given[field] }, "metadata": {} }),
        };
        let found = fields.iter().find(|(field, _)| !given[field].is_null() && fails(alone(field)));
        if let Some((field, _)) = found {
            return Some(format!("{section}.{field}"));
        }
    }
    None
}

/// The message of a parse error without the quoted contents, which may be secret.
fn without_contents(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let mut told = String::new();
    for (position, part) in text.split(['"', '`']).enumerate() {
        told.push_str(if position % 2 == 0 { part } else { "…" });
    }
    told.chars().take(200).collect()
}

/// An object that is read leniently when a client of kube reads one, as the answer to a read or a write. It is
/// serialized like the object itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Lenient<K>(pub K);

impl<'de, K: Decode> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kept = K::KEEP.deserialize(deserializer)?;
        let read = K::of(&kept).map(Self);
        read.map_err(|error| serde::de::Error::custom(without_contents(&error)))
    }
}

impl<K: Serialize> Serialize for Lenient<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<K: Resource> Resource for Lenient<K> {
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
