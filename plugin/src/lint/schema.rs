//! Applies the schema of the CustomResourceDefinition to an object, as the API server does: defaults, types, limits, keys
//! of lists, and rules. What the API server says of a mistake is said here in its words.
//!
//! A schema of Kubernetes is no JSON Schema: it has defaults that apply before anything is checked, and lists with keys.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use super::{mistake::Mistake, path::FieldPath, rules::Rules};

/// Fields of every object, which no schema names. The operator alone writes the status.
const COMMON: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The schema of registrations.
pub struct Schema {
    root: JSONSchemaProps,
    rules: Rules,
}

/// One pass through an object.
struct Walk<'a> {
    rules: &'a Rules,
    root: &'a FieldPath,
    found: Vec<Mistake>,
}

impl Schema {
    /// The schema of the CustomResourceDefinition that this program was built with.
    pub fn of_registrations() -> Self {
        let version = beatkeeper_api::crd().spec.versions.into_iter().next();
        let schema = version.and_then(|it| it.schema?.open_api_v3_schema);
        let mut root = schema.expect("the CustomResourceDefinition has a version with a schema");
        root.properties.get_or_insert_default().remove("status");
        Self { root, rules: Rules::new() }
    }

    /// Fills in the defaults of an object, and checks it.
    pub fn check(&self, object: &mut Value, root: &FieldPath) -> Vec<Mistake> {
        let mut walk = Walk { rules: &self.rules, root, found: Vec::new() };
        walk.node(&self.root, object, root);
        walk.found
    }
}

impl Walk<'_> {
    fn node(&mut self, schema: &JSONSchemaProps, value: &mut Value, path: &FieldPath) {
        if value.is_null() && schema.nullable == Some(true) {
            return;
        }
        if let Some(wanted) = mistyped(schema, value) {
            let what = format!("must be of type {wanted}, and is {}", type_of(value));
            self.found.push(Mistake::error(path.clone(), what, described(schema)).blocking());
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.list(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
        self.bounds(schema, value, path);
        if !self.found.iter().any(|it| it.blocks && it.path.is_in(path)) {
            self.found.extend(self.rules.broken(schema, value, path));
        }
    }

    fn object(
        &mut self,
        schema: &JSONSchemaProps,
        fields: &mut Map<String, Value>,
        path: &FieldPath,
    ) {
        let none = BTreeMap::new();
        let properties = schema.properties.as_ref().unwrap_or(&none);
        for (name, property) in properties {
            let Some(default) = &property.default else { continue };
            let is_unset = fields.get(name).is_none_or(Value::is_null);
            if is_unset && property.nullable != Some(true) {
                fields.insert(name.clone(), default.0.clone());
            }
        }
        for name in schema.required.iter().flatten().filter(|name| !fields.contains_key(*name)) {
            let remedy = properties.get(name).map(described).unwrap_or_default();
            let remedy = format!("Add it. {remedy}");
            let missing = Mistake::error(path.field(name), "Required value", remedy);
            self.found.push(missing.blocking());
        }
        for (name, value) in fields {
            let others = match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(&**schema),
                Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
            };
            match properties.get(name).or(others) {
                Some(schema) => self.node(schema, value, &path.field(name)),
                None if path == self.root && COMMON.contains(&&**name) => {}
                None => self.unknown(name, properties.keys(), path),
            }
        }
    }

    fn unknown<'k>(
        &mut self,
        name: &str,
        known: impl Iterator<Item = &'k String> + Clone,
        path: &FieldPath,
    ) {
        let similar = known.clone().map(|known| (strsim::jaro_winkler(name, known), known));
        let similar = similar.max_by(|(a, _), (b, _)| a.total_cmp(b));
        let remedy = match similar {
            Some((similarity, known)) if similarity > 0.8 => format!("Did you mean {known}?"),
            _ => {
                let known: Vec<&str> = known.map(String::as_str).collect();
                format!("Known are {}", known.join(", "))
            }
        };
        let what = "unknown field, which kubectl refuses and others drop";
        self.found.push(Mistake::error(path.field(name), what, remedy));
    }

    fn list(&mut self, schema: &JSONSchemaProps, items: &mut [Value], path: &FieldPath) {
        if let Some(most) = schema.max_items.filter(|most| items.len() as i64 > *most) {
            let what = format!("Too many: {}: must have at most {most} items", items.len());
            self.found.push(Mistake::error(path.clone(), what, "").blocking());
            return;
        }
        if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
            for (index, item) in items.iter_mut().enumerate() {
                self.node(schema, item, &path.index(index));
            }
        }
        let key = |item: &Value| match (schema.x_kubernetes_list_type.as_deref()?, item) {
            ("set", item) => Some(item.clone()),
            ("map", Value::Object(fields)) => {
                let keys = schema.x_kubernetes_list_map_keys.iter().flatten();
                let key =
                    keys.map(|key| (key.clone(), fields.get(key).cloned().unwrap_or_default()));
                Some(Value::Object(key.collect()))
            }
            _ => None,
        };
        let mut seen: Vec<Value> = Vec::new();
        for (index, key) in items.iter().enumerate().filter_map(|(n, it)| Some((n, key(it)?))) {
            if seen.contains(&key) {
                let what = format!("Duplicate value: {key}");
                self.found.push(Mistake::error(path.index(index), what, "Each may be there once"));
            } else {
                seen.push(key);
            }
        }
    }

    fn text(&mut self, schema: &JSONSchemaProps, text: &str, path: &FieldPath) {
        if let Some(most) = schema.max_length.filter(|most| text.chars().count() as i64 > *most) {
            let what = format!("Too long: may not be more than {most} bytes");
            self.found.push(Mistake::error(path.clone(), what, described(schema)).blocking());
        }
    }

    fn bounds(&mut self, schema: &JSONSchemaProps, value: &Value, path: &FieldPath) {
        let allowed: Vec<&Value> = schema.enum_.iter().flatten().map(|it| &it.0).collect();
        if !allowed.is_empty() && !allowed.contains(&value) {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            let what =
                format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
            self.found.push(Mistake::error(path.clone(), what, ""));
        }
        let Some(number) = value.as_f64() else { return };
        let least = schema.minimum.filter(|least| number < *least).map(|it| ("greater", it));
        let most = schema.maximum.filter(|most| number > *most).map(|it| ("less", it));
        for (word, bound) in [least, most].into_iter().flatten() {
            let what = format!("Invalid value: {value}: should be {word} than or equal to {bound}");
            self.found.push(Mistake::error(path.clone(), what, described(schema)));
        }
    }
}

/// The type that a value should have, if it has another one.
fn mistyped<'s>(schema: &'s JSONSchemaProps, value: &Value) -> Option<&'s str> {
    if schema.x_kubernetes_int_or_string == Some(true) {
        let fits = value.is_string() || value.is_i64() || value.is_u64();
        return (!fits).then_some("integer or string");
    }
    let wanted = schema.type_.as_deref()?;
    let fits = match (wanted, value) {
        ("number", Value::Number(_)) => true,
        (wanted, value) => wanted == type_of(value),
    };
    (!fits).then_some(wanted)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What the schema says of a field, as a remedy.
fn described(schema: &JSONSchemaProps) -> String {
    schema.description.as_deref().unwrap_or_default().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words of a schema that are applied here, and those that check nothing.
    const APPLIED: [&str; 20] = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minimum",
        "nullable",
        "properties",
        "required",
        "title",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
    ];

    fn words(schema: &JSONSchemaProps, all: &mut BTreeSet<String>) {
        let value = serde_json::to_value(schema).unwrap();
        all.extend(value.as_object().unwrap().keys().cloned());
        schema.properties.iter().flatten().for_each(|(_, it)| words(it, all));
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            words(items, all);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            words(values, all);
        }
    }

    #[test]
    fn every_word_of_the_schema_is_applied() {
        let mut all = BTreeSet::new();
        words(&Schema::of_registrations().root, &mut all);
        let unknown: Vec<&String> = all.iter().filter(|it| !APPLIED.contains(&&***it)).collect();
        assert_eq!(unknown, [""; 0], "the schema has words that nothing here applies");
    }

    fn check(mut object: Value) -> (Value, Vec<Mistake>) {
        let found = Schema::of_registrations().check(&mut object, &FieldPath::default());
        (object, found)
    }

    #[test]
    fn defaults_are_filled_in_and_an_explicit_null_counts_as_absent() {
        let object = serde_json::json!({
            "metadata": { "name": "greeter" }, "spec": { "ttl": null, "ports": [{ "port": 80 }] },
        });
        let (object, found) = check(object);
        assert_eq!(found, []);
        assert_eq!(object["spec"]["ttl"], beatkeeper_api::registration::DEFAULT_TTL);
        assert_eq!(object["spec"]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn a_mistyped_field_is_told_with_the_one_that_was_meant() {
        let spec = serde_json::json!({ "ttk": "3s", "xyzzy": 1, "ports": [{ "port": 80 }] });
        let (_, found) = check(serde_json::json!({ "metadata": { "name": "a" }, "spec": spec }));
        let told: Vec<(String, &str)> =
            found.iter().map(|it| (it.path.to_string(), &*it.remedy)).collect();
        assert_eq!(told[0], ("spec.ttk".to_owned(), "Did you mean ttl?"));
        assert!(told[1].1.starts_with("Known are carrier, instances, interval"), "{told:?}");
    }
}
