//! The modelled API server: objects as JSON with one rising resourceVersion, conditional writes, and one log of
//! changes per kind for the watches.

use std::{collections::BTreeMap, sync::Arc};

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::wire::{Refusal, Selector};

/// A namespace and a name.
pub type Key = (String, String);

/// One version of an object.
#[derive(Debug)]
pub struct Stored {
    pub value: Value,
    /// `value` as text. It is kept because it is sent many times.
    pub text: Bytes,
    pub version: u64,
}

/// A change of an object. At least one of the two states is present.
#[derive(Debug, Clone)]
pub struct Change {
    pub before: Option<Arc<Stored>>,
    pub after: Option<Arc<Stored>>,
    pub version: u64,
}

#[derive(Debug, Default)]
pub struct Kind {
    pub objects: BTreeMap<Key, Arc<Stored>>,
    pub log: Vec<Change>,
}

/// All objects.
#[derive(Debug, Default)]
pub struct Store {
    version: u64,
    made: u64,
    kinds: BTreeMap<&'static str, Kind>,
}

pub type Reply = Result<Arc<Stored>, Refusal>;

/// The preconditions of a delete.
#[derive(Debug, Default, Clone)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub version: Option<String>,
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn kind(&mut self, resource: &'static str) -> &mut Kind {
        self.kinds.entry(resource).or_default()
    }

    pub fn get(&self, resource: &'static str, key: &Key) -> Option<&Arc<Stored>> {
        self.kinds.get(resource)?.objects.get(key)
    }

    pub fn list<'a>(
        &'a self,
        resource: &'static str,
        namespace: Option<&'a str>,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Arc<Stored>> {
        let all = self.kinds.get(resource).into_iter().flat_map(|kind| &kind.objects);
        all.filter(move |((within, _), object)| {
            namespace.is_none_or(|namespace| namespace == within) && selector.selects(object)
        })
        .map(|(_, object)| object)
    }

    pub fn create(
        &mut self,
        resource: &'static str,
        namespace: &str,
        mut value: Value,
        dry_run: bool,
    ) -> Reply {
        self.made += 1;
        let metadata = metadata(&mut value);
        if metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
            let name = format!("{prefix}{:05}", self.made);
            metadata.insert("name".to_owned(), json!(name));
        }
        let name = text(metadata, "name");
        let key = (namespace.to_owned(), name);
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert("uid".to_owned(), json!(format!("uid-{:06}", self.made)));
        metadata.insert("creationTimestamp".to_owned(), json!("2027-01-15T08:00:00Z"));
        metadata.insert("generation".to_owned(), json!(1));
        metadata.remove("resourceVersion");
        if self.get(resource, &key).is_some() {
            return Err(Refusal::exists(&key.1));
        }
        if has_status(resource) {
            value.as_object_mut().into_iter().for_each(|object| drop(object.remove("status")));
        }
        Ok(self.put(resource, key, value, None, dry_run))
    }

    /// Updates an object: `change` modifies a copy of it.
    pub fn update(
        &mut self,
        resource: &'static str,
        key: &Key,
        of_status: bool,
        dry_run: bool,
        change: impl FnOnce(&mut Value),
    ) -> Reply {
        let Some(before) = self.get(resource, key).cloned() else {
            return Err(Refusal::absent(&key.1));
        };
        let mut next = before.value.clone();
        change(&mut next);
        let known = &before.value["metadata"];
        for field in ["resourceVersion", "uid"] {
            let wanted = &next["metadata"][field];
            if !wanted.is_null() && *wanted != known[field] {
                return Err(Refusal::conflict(&key.1));
            }
        }
        if of_status {
            let status = next["status"].take();
            next = before.value.clone();
            next["status"] = status;
        } else if has_status(resource) {
            match before.value.get("status") {
                Some(status) => next["status"] = status.clone(),
                None => drop(next.as_object_mut().map(|object| object.remove("status"))),
            }
        }
        let grows = next.get("spec") != before.value.get("spec");
        let metadata = metadata(&mut next);
        for field in ["uid", "name", "namespace", "creationTimestamp", "resourceVersion"] {
            metadata.insert(field.to_owned(), known[field].clone());
        }
        let generation = known["generation"].as_u64().unwrap_or(1) + u64::from(grows);
        metadata.insert("generation".to_owned(), json!(generation));
        if next == before.value {
            return Ok(before);
        }
        Ok(self.put(resource, key.clone(), next, Some(before), dry_run))
    }

    pub fn delete(
        &mut self,
        resource: &'static str,
        key: &Key,
        only: &Preconditions,
    ) -> Result<(), Refusal> {
        let Some(before) = self.get(resource, key).cloned() else {
            return Err(Refusal::absent(&key.1));
        };
        let is = |field: &str, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| before.value["metadata"][field] == wanted)
        };
        if !is("uid", &only.uid) || !is("resourceVersion", &only.version) {
            return Err(Refusal::conflict(&key.1));
        }
        self.version += 1;
        let mut value = before.value.clone();
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(stored(value, self.version));
        let version = self.version;
        let kind = self.kind(resource);
        kind.objects.remove(key);
        kind.log.push(Change { before: Some(last), after: None, version });
        Ok(())
    }

    fn put(
        &mut self,
        resource: &'static str,
        key: Key,
        mut value: Value,
        before: Option<Arc<Stored>>,
        dry_run: bool,
    ) -> Arc<Stored> {
        let version = self.version + 1;
        metadata(&mut value).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let after = Arc::new(stored(value, version));
        if !dry_run {
            self.version = version;
            let kind = self.kind(resource);
            kind.objects.insert(key, after.clone());
            kind.log.push(Change { before, after: Some(after.clone()), version });
        }
        after
    }
}

fn stored(value: Value, version: u64) -> Stored {
    let text = serde_json::to_vec(&value).expect("JSON");
    Stored { value, text: text.into(), version }
}

/// Whether a kind has a subresource for its status.
fn has_status(resource: &str) -> bool {
    matches!(resource, "serviceregistrations" | "pods" | "services")
}

pub fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    let object = value.as_object_mut().expect("an object");
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut().expect("metadata")
}

fn text(object: &Map<String, Value>, field: &str) -> String {
    object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Applies a merge patch as defined in RFC 7386.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().expect("an object");
    for (name, value) in patch {
        if value.is_null() {
            object.remove(&name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), value);
        }
    }
}
