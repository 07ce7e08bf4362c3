//! The documents of a file, split as kubectl splits them, and the objects in them.

use serde_json::Value;

use super::{
    finding::{Finding, Place},
    mistake::Level,
    path::FieldPath,
    places::Places,
};

/// A document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The line of the file in which it begins, from 1.
    first: usize,
    text: String,
}

/// An object of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The object.
    pub value: Value,
    /// Its place in the document, which may be a list.
    pub root: FieldPath,
    /// The lines of the document.
    pub places: Places,
}

/// A document that is no YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    line: usize,
    what: String,
    is_template: bool,
}

/// Splits a file. A document that cannot be read does not hide the others.
pub fn split(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = vec![Document { first: 1, text: String::new() }];
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let last = documents.last_mut().expect("there is always a document");
        match line.strip_prefix("---") {
            Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => {
                documents.push(Document { first: n + 1, text: rest.to_owned() });
            }
            _ => last.text.push_str(line),
        }
    }
    documents
}

impl Document {
    /// The objects in the document: one, none, or those of a list.
    ///
    /// # Errors
    /// [`Unreadable`], if it is no YAML.
    pub fn objects(&self) -> Result<Vec<Object>, Unreadable> {
        let Self { first, text } = self;
        let options = serde_saphyr::options! { with_snippet: false };
        let value: Value = serde_saphyr::from_str_with_options::<Option<Value>>(text, options)
            .map_err(|error| Unreadable {
                line: first + error.location().map_or(1, |at| at.line() as usize).max(1) - 1,
                what: one_line(&error.to_string()),
                is_template: text.contains("{{"),
            })?
            .unwrap_or_default();
        let places = Places::of(text, *first);
        let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        let root = FieldPath::default();
        match value {
            Value::Object(mut fields) if is_list => {
                let items = fields.remove("items").unwrap_or_default();
                let items = match items {
                    Value::Array(items) => items,
                    _ => Vec::new(),
                };
                let root = root.field("items");
                let object =
                    |(n, value)| Object { value, root: root.index(n), places: places.clone() };
                Ok(items.into_iter().enumerate().map(object).collect())
            }
            value => Ok(vec![Object { value, root, places }]),
        }
    }

    /// Where an object of this file is.
    pub fn place(file: &str, object: &Object) -> Place {
        let Object { value, root, places } = object;
        let metadata = &value["metadata"];
        let text = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
        let name = text("name").or(text("generateName")).unwrap_or("without a name");
        let namespace = text("namespace").map(|it| format!("{it}/")).unwrap_or_default();
        let object = beatkeeper_api::text::plain(&format!("ServiceRegistration {namespace}{name}"))
            .into_owned();
        Place { file: file.to_owned(), object, root: root.clone(), places: places.clone() }
    }
}

/// The first line of a text, without what ends it.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    beatkeeper_api::text::plain(line.trim_end_matches(['.', ':'])).into_owned()
}

impl Unreadable {
    /// What is found in the file.
    pub fn finding(self, file: &str) -> Finding {
        let Self { line, what, is_template } = self;
        let remedy = match is_template {
            true => "It has {{. If it is a template, let lint -f - read what it renders",
            false => "Correct the YAML; the mistake may be in a line before",
        };
        Finding {
            level: Level::Error,
            file: file.to_owned(),
            line,
            object: String::new(),
            field: String::new(),
            what: format!("this is no YAML: {what}"),
            remedy: remedy.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_split_at_lines_of_three_hyphens() {
        let text = "a: 1\n--- # next\nb: |\n  ---\n  text\n---\n---x: 1\n";
        let documents = split(text);
        let starts: Vec<(usize, &str)> = documents.iter().map(|it| (it.first, &*it.text)).collect();
        assert_eq!(
            starts,
            [(1, "a: 1\n"), (2, " # next\nb: |\n  ---\n  text\n"), (6, "\n---x: 1\n")]
        );
    }

    #[test]
    fn a_list_has_the_objects_of_its_items_and_an_empty_document_none() {
        let text = "kind: List\nitems:\n- kind: A\n- kind: B\n";
        let objects = split(text)[0].objects().unwrap();
        let kinds: Vec<&Value> = objects.iter().map(|it| &it.value["kind"]).collect();
        assert_eq!(kinds, ["A", "B"]);
        assert_eq!(objects[1].places.line(&objects[1].root), 4);
        assert_eq!(split("# nothing\n")[0].objects().unwrap()[0].value, Value::Null);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        let text = "a: 1\n---\nb: [1\nc: 2\n";
        let wrong = split(text)[1].objects().unwrap_err();
        assert!((3..=5).contains(&wrong.line), "{wrong:?}");
        let finding = wrong.finding("x.yaml");
        assert!(finding.what.starts_with("this is no YAML: "), "{finding:?}");
        assert!(!finding.what.contains('\n'));
    }
}
