//! Checks one object: all that the API server and the operator would refuse.

use beatkeeper_api::{
    GROUP, ServiceRegistration, VERSION,
    registration::{ADOPT_ANNOTATION, DRY_RUN_ANNOTATION},
};
use beatkeeper_core::{
    objects::{registration::Registration, spec_problem::SpecProblem},
    vocabulary::address::{self, Named, OutsideRanges},
};
use serde_json::{Value, json};

use super::{document::Object, mistake::Mistake, path::FieldPath, schema::Schema};

const KIND: &str = "ServiceRegistration";

/// What objects are checked against.
pub struct Linter<'a> {
    schema: Schema,
    /// The namespace of objects that name none.
    namespace: &'a str,
    /// The outside ranges of the operator, if they are known.
    ranges: Option<&'a OutsideRanges>,
}

/// An object, and what is wrong with it.
pub struct Checked {
    /// What would be refused.
    pub mistakes: Vec<Mistake>,
    /// The registration, if it can be read.
    pub read: Option<Read>,
}

/// A registration that can be read.
pub struct Read {
    /// As it was written, with defaults.
    pub object: ServiceRegistration,
    /// As the operator reads it.
    pub registration: Registration,
    /// Its place in the document.
    pub root: FieldPath,
}

impl Read {
    /// The place of a field of its spec.
    pub fn field(&self, name: &str) -> FieldPath {
        self.root.field("spec").field(name)
    }
}

impl<'a> Linter<'a> {
    /// Reads the schema.
    pub fn new(namespace: &'a str, ranges: Option<&'a OutsideRanges>) -> Self {
        Self { schema: Schema::of_registrations(), namespace, ranges }
    }

    /// Whether an object is a registration, or claims to be one.
    pub fn is_ours(&self, object: &Value) -> bool {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        text("kind") == KIND || text("apiVersion").split('/').next() == Some(GROUP)
    }

    /// Checks an object.
    pub fn check(&self, object: Object) -> Checked {
        let Object { mut value, root, places: _ } = object;
        if let Some(mistake) = another_kind(&value, &root) {
            return Checked { mistakes: vec![mistake], read: None };
        }
        let mut mistakes = metadata(&value, &root);
        complete(&mut value, self.namespace);
        let in_spec = self.schema.check(&mut value, &root);
        let (is_readable, is_fine) = (!in_spec.iter().any(|it| it.blocks), in_spec.is_empty());
        mistakes.extend(in_spec);
        if !is_readable {
            // What is wrong with the annotations is told even so.
            value["spec"] = json!({ "ttl": "3s", "interval": "1s", "ports": [{ "port": 1 }] });
        }
        let object: Result<ServiceRegistration, _> = serde_json::from_value(value);
        let Ok(object) = object else { return Checked { mistakes, read: None } };
        let registration = Registration::validate(&object);
        let read = Read { object, registration, root };
        mistakes.extend(of_operator(&read, is_fine));
        mistakes.extend(self.addresses(&read, &mistakes));
        let read = is_readable.then_some(read);
        Checked { mistakes, read }
    }

    /// The addresses that the operator would not publish. What the schema has refused is not told twice.
    fn addresses(&self, read: &Read, told: &[Mistake]) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let namespace = &read.registration.key.namespace;
        for (n, instance) in read.object.spec.instances.iter().enumerate() {
            for (m, text) in instance.addresses.iter().enumerate() {
                let path = read.field("instances").index(n).field("addresses").index(m);
                let named = Named::from(&**text);
                let Some(address) = named.address() else { continue };
                let refused = match self.ranges {
                    Some(ranges) => address::outside(&named, namespace, ranges, |_| None),
                    None => address::publishable(address),
                };
                if let (Err(error), false) = (refused, told.iter().any(|it| it.path == path)) {
                    mistakes.push(Mistake::error(path, error.to_string(), ""));
                }
            }
        }
        mistakes
    }
}

/// What is wrong if the object is of another kind or version.
fn another_kind(object: &Value, root: &FieldPath) -> Option<Mistake> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let wanted = format!("{GROUP}/{VERSION}");
    if text("kind") != KIND {
        let what = format!("{GROUP} has no kind {:?}", text("kind"));
        return Some(Mistake::error(root.field("kind"), what, format!("Write {KIND}")));
    }
    if text("apiVersion") != wanted {
        let what = format!("{:?} has no {KIND}", text("apiVersion"));
        return Some(Mistake::error(root.field("apiVersion"), what, format!("Write {wanted}")));
    }
    None
}

/// What is wrong with the name. That it is short enough is a rule of the schema.
fn metadata(object: &Value, root: &FieldPath) -> Vec<Mistake> {
    let path = root.field("metadata").field("name");
    let metadata = &object["metadata"];
    let wanted = "Give it a name of lower-case letters, digits and '-', such as greeter";
    match (&metadata["name"], &metadata["generateName"]) {
        (Value::String(name), _) if is_subdomain(name) => Vec::new(),
        (Value::Null, Value::String(_)) => Vec::new(),
        (Value::Null, _) => vec![Mistake::error(path, "Required value", wanted)],
        (name, _) => vec![Mistake::error(path, format!("Invalid value: {name}"), wanted)],
    }
}

/// Gives an object what the schema and the operator need of its metadata. What is missing has been told.
fn complete(object: &mut Value, namespace: &str) {
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    if !metadata["name"].is_string() {
        metadata["name"] = json!("generated");
    }
    if !metadata["namespace"].is_string() {
        metadata["namespace"] = json!(namespace);
    }
}

/// Whether a text can be the name of an object.
fn is_subdomain(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |label: &str| {
        label.starts_with(is_word)
            && label.ends_with(is_word)
            && label.chars().all(|c| is_word(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(fits)
}

/// What the operator finds. What is wrong with the spec it would tell in other words than the schema has done.
fn of_operator(read: &Read, spec_is_fine: bool) -> Vec<Mistake> {
    let annotation = |name| read.root.field("metadata").field("annotations").field(name);
    let problem = |problem: &SpecProblem| {
        let spec = |name: &str| (spec_is_fine).then(|| read.field(name));
        let path = match problem {
            SpecProblem::DryRun(_) => Some(annotation(DRY_RUN_ANNOTATION)),
            SpecProblem::Consent(_) => Some(annotation(ADOPT_ANNOTATION)),
            SpecProblem::Unreadable(_) => spec_is_fine.then(|| read.root.field("spec")),
            SpecProblem::NotADuration { field, .. } => spec(field),
            SpecProblem::TtlOutOfRange(_) => spec("ttl"),
            SpecProblem::IntervalOutOfRange { .. } => spec("interval"),
            SpecProblem::NoPorts => spec("ports"),
            SpecProblem::Port { index, .. } => spec("ports").map(|it| it.index(*index)),
            SpecProblem::PodSelector(_) => spec("podSelector"),
            SpecProblem::InstanceNameLength { index }
            | SpecProblem::InstanceTwice { index, .. } => {
                spec("instances").map(|it| it.index(*index).field("name"))
            }
        };
        Some(Mistake::error(path?, problem.to_string(), ""))
    };
    read.registration.problems.iter().filter_map(problem).collect()
}
