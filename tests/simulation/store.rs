//! The modelled store: objects as JSON with one rising resourceVersion, conditional writes, and one log of
//! changes per kind for the watches.

use std::{cell::OnceCell, collections::BTreeMap, rc::Rc};

use beatkeeper_api::ServiceRegistrationStatus;
use beatkeeper_core::{objects::marks::SERVICE_NAME_LABEL, vocabulary::key::Key};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::{
    object::{ENDPOINTS, Object, SERVICES, SLICES},
    wire::Refusal,
};

/// The plural name of a kind, as in a path.
pub type Resource = &'static str;

/// One version of an object.
pub struct Stored {
    pub resource: Resource,
    pub value: Value,
    /// `value` as text. It is kept because it is sent many times.
    pub text: Bytes,
    object: OnceCell<Object>,
}

impl Stored {
    fn new(resource: Resource, value: Value) -> Rc<Self> {
        let text = serde_json::to_vec(&value).expect("JSON").into();
        Rc::new(Self { resource, value, text, object: OnceCell::new() })
    }

    /// The object with its type.
    pub fn object(&self) -> &Object {
        self.object.get_or_init(|| Object::read(self.resource, &self.value))
    }

    pub fn key(&self) -> Key {
        let text = |field: &str| self.value["metadata"][field].as_str().unwrap_or_default();
        Key::new(text("namespace"), text("name"))
    }

    pub fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap_or_default()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.value["metadata"]["labels"].get(name)?.as_str()
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value["metadata"]["annotations"].get(name)?.as_str()
    }

    /// The Service that an object belongs to, if it is one of a Service.
    pub fn service(&self) -> Option<Key> {
        let Key { namespace, name } = self.key();
        match self.resource {
            SLICES => Some(Key::new(namespace, self.label(SERVICE_NAME_LABEL)?)),
            ENDPOINTS | SERVICES => Some(Key { namespace, name }),
            _ => None,
        }
    }

    /// This object with the resourceVersion of its deletion.
    pub fn deleted_at(&self, version: u64) -> Rc<Self> {
        let mut value = self.value.clone();
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        Self::new(self.resource, value)
    }
}

/// A change of an object. At least one of the two states is present.
#[derive(Clone)]
pub struct Change {
    pub before: Option<Rc<Stored>>,
    pub after: Option<Rc<Stored>>,
    pub version: u64,
}

impl Change {
    /// The later of the two states.
    pub fn latest(&self) -> &Rc<Stored> {
        self.after.as_ref().or(self.before.as_ref()).expect("a change has a state")
    }
}

type Objects = BTreeMap<Resource, BTreeMap<Key, Rc<Stored>>>;

type Logs = BTreeMap<Resource, Vec<Change>>;

/// An earlier state of the store, and the changes that led to it.
pub struct Backup {
    objects: Objects,
    version: u64,
    log: Logs,
}

/// The distance between two versions. In each history all versions have another remainder modulo this number,
/// so versions of different histories are never equal. Otherwise, an object could have the same version in two
/// histories, and no condition can distinguish these two states.
const STEP: u64 = 16;

/// All objects.
#[derive(Default)]
pub struct Store {
    objects: Objects,
    version: u64,
    log: Logs,
    made: u64,
    restored: u64,
}

/// The answer to a request that reads or writes one object.
pub type Outcome = Result<Rc<Stored>, Refusal>;

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

    pub fn log(&self, resource: Resource) -> &[Change] {
        self.log.get(resource).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn get(&self, resource: Resource, key: &Key) -> Option<&Rc<Stored>> {
        self.objects.get(resource)?.get(key)
    }

    pub fn all(&self, resource: Resource) -> impl Iterator<Item = &Rc<Stored>> {
        self.objects.get(resource).into_iter().flat_map(BTreeMap::values)
    }

    /// The objects that existed when the log had this length.
    pub fn as_of(&self, resource: Resource, length: usize) -> Vec<Rc<Stored>> {
        let mut objects = BTreeMap::new();
        for change in &self.log(resource)[..length] {
            let key = change.latest().key();
            match &change.after {
                Some(object) => objects.insert(key, object.clone()),
                None => objects.remove(&key),
            };
        }
        objects.into_values().collect()
    }

    pub fn back_up(&self) -> Backup {
        Backup { objects: self.objects.clone(), version: self.version, log: self.log.clone() }
    }

    /// Goes back to an earlier state. With `caught_up`, the versions have reached those of the former history, as after
    /// writes by other clients.
    pub fn restore(&mut self, backup: Backup, caught_up: bool) {
        self.restored += 1;
        let version = if caught_up { self.version + STEP } else { backup.version };
        self.objects = backup.objects;
        self.version = version / STEP * STEP + self.restored % STEP;
        self.log = backup.log;
    }

    pub fn create(
        &mut self,
        resource: Resource,
        namespace: &str,
        mut value: Value,
        dry_run: bool,
    ) -> Outcome {
        self.made += 1;
        let made = self.made;
        let metadata = metadata(&mut value);
        if metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
            let name = format!("{prefix}{made:05}");
            metadata.insert("name".to_owned(), json!(name));
        }
        let key = Key::new(namespace, metadata["name"].as_str().unwrap_or_default());
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert("uid".to_owned(), json!(format!("uid-{made}")));
        let seconds = i64::try_from(1_700_000_000 + made).expect("small");
        let created = jiff::Timestamp::from_second(seconds).expect("in range");
        metadata.insert("creationTimestamp".to_owned(), json!(created.to_string()));
        metadata.insert("generation".to_owned(), json!(1));
        metadata.remove("resourceVersion");
        if self.get(resource, &key).is_some() {
            return Err(Refusal::exists(&key.name));
        }
        if has_status(resource) {
            value.as_object_mut().into_iter().for_each(|object| drop(object.remove("status")));
        }
        match resource {
            "services" => default_service(&mut value),
            // The default in the CRD.
            "serviceregistrations" => value["status"] = json!(ServiceRegistrationStatus::pending()),
            _ => {}
        }
        Ok(self.put(resource, key, value, None, dry_run))
    }

    /// Updates an object: `change` modifies a copy of it.
    pub fn update(
        &mut self,
        resource: Resource,
        key: &Key,
        of_status: bool,
        dry_run: bool,
        change: impl FnOnce(&mut Value),
    ) -> Outcome {
        let Some(before) = self.get(resource, key).cloned() else {
            return Err(Refusal::absent(&key.name));
        };
        let mut next = before.value.clone();
        change(&mut next);
        let known = &before.value["metadata"];
        for field in ["resourceVersion", "uid"] {
            let wanted = &next["metadata"][field];
            if !wanted.is_null() && *wanted != known[field] {
                return Err(Refusal::conflict(&key.name));
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
        if resource == "services" {
            default_service(&mut next);
        }
        let grows = next.get("spec") != before.value.get("spec");
        let metadata = metadata(&mut next);
        for field in ["uid", "name", "namespace", "creationTimestamp", "resourceVersion"] {
            metadata.insert(field.to_owned(), known[field].clone());
        }
        let generation = known["generation"].as_u64().unwrap_or(1) + u64::from(grows);
        metadata.insert("generation".to_owned(), json!(generation));
        // A write that changes nothing is not stored.
        if next == before.value {
            return Ok(before);
        }
        Ok(self.put(resource, key.clone(), next, Some(before), dry_run))
    }

    pub fn delete(&mut self, resource: Resource, key: &Key, only: &Preconditions) -> Outcome {
        let Some(before) = self.get(resource, key).cloned() else {
            return Err(Refusal::absent(&key.name));
        };
        let is = |field: &str, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| before.value["metadata"][field] == wanted)
        };
        if !is("uid", &only.uid) || !is("resourceVersion", &only.version) {
            return Err(Refusal::conflict(&key.name));
        }
        self.version += STEP;
        let version = self.version;
        self.objects.entry(resource).or_default().remove(key);
        let change = Change { before: Some(before.clone()), after: None, version };
        self.log.entry(resource).or_default().push(change);
        Ok(before)
    }

    fn put(
        &mut self,
        resource: Resource,
        key: Key,
        mut value: Value,
        before: Option<Rc<Stored>>,
        dry_run: bool,
    ) -> Rc<Stored> {
        let version = self.version + STEP;
        metadata(&mut value).insert("resourceVersion".to_owned(), json!(version.to_string()));
        let after = Stored::new(resource, value);
        if !dry_run {
            self.version = version;
            self.objects.entry(resource).or_default().insert(key, after.clone());
            let change = Change { before, after: Some(after.clone()), version };
            self.log.entry(resource).or_default().push(change);
        }
        after
    }
}

/// Whether a kind has a subresource for its status.
fn has_status(resource: &str) -> bool {
    matches!(resource, "serviceregistrations" | "pods" | "services")
}

/// Sets the fields that the API server sets if they are absent.
fn default_service(service: &mut Value) {
    let spec = &mut service["spec"];
    if spec.get("ipFamilies").is_none() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if port.get("protocol").is_none() {
            port["protocol"] = json!("TCP");
        }
        if port.get("targetPort").is_none() {
            port["targetPort"] = port["port"].clone();
        }
    }
}

fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    let object = value.as_object_mut().expect("an object");
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut().expect("metadata")
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
