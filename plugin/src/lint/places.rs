//! In which line of a document each field is.

use std::collections::HashMap;

use granit_parser::{Event, Parser};

use super::path::FieldPath;

/// The lines of the fields of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    lines: HashMap<String, usize>,
    /// The line of the file in which the document begins, from 1.
    first: usize,
}

/// An object or a list that is being read.
struct Open {
    path: FieldPath,
    inside: Inside,
}

enum Inside {
    /// An object, and the place of the value that comes next; `None` if a name comes next.
    Object(Option<FieldPath>),
    /// A list, and the number of its elements so far.
    List(usize),
}

impl Places {
    /// Reads the lines of a document that begins in line `first` of its file. What cannot be read has no line of its own.
    pub fn of(text: &str, first: usize) -> Self {
        let mut places = Self { lines: HashMap::new(), first };
        let mut open: Vec<Open> = Vec::new();
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
                open.pop();
            } else if event.is_node() {
                let name = event.scalar().map(|(text, _)| text);
                let path = places.enter(&mut open, name, span.start.line());
                let inside = match event {
                    Event::MappingStart(..) => Inside::Object(None),
                    Event::SequenceStart(..) => Inside::List(0),
                    _ => continue,
                };
                open.push(Open { path, inside });
            }
        }
        places
    }

    /// The place of the node that begins. The line of a field is that of its name.
    fn enter(&mut self, open: &mut [Open], name: Option<&str>, line: usize) -> FieldPath {
        let Some(outer) = open.last_mut() else { return FieldPath::default() };
        let path = match &mut outer.inside {
            Inside::Object(next) => match next.take() {
                Some(path) => return path,
                // A name that is no text names nothing of ours.
                None => next.insert(outer.path.field(name.unwrap_or("?"))).clone(),
            },
            Inside::List(next) => {
                let index = *next;
                *next += 1;
                outer.path.index(index)
            }
        };
        self.lines.entry(path.to_string()).or_insert(line);
        path
    }

    /// The line of a field in its file, from 1; that of what contains it, if it is not there.
    pub fn line(&self, path: &FieldPath) -> usize {
        let line = path.outwards().find_map(|path| self.lines.get(&path.to_string()));
        self.first + line.map_or(0, |line| line - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_the_line_of_its_name_and_a_missing_one_that_of_what_lacks_it() {
        let text = "kind: X\nspec:\n  ttl: 30s\n  ports:\n  - name: a\n    port: 80\n  - { name: b,\n      port: 81 }\n";
        let places = Places::of(text, 10);
        let spec = FieldPath::of(&["spec"]);
        let ports = spec.field("ports");
        for (path, line) in [
            (FieldPath::of(&["kind"]), 10),
            (spec.field("ttl"), 12),
            (spec.field("interval"), 11),
            (ports.index(0), 14),
            (ports.index(0).field("port"), 15),
            (ports.index(1).field("port"), 17),
            (ports.index(7), 13),
            (FieldPath::of(&["metadata", "name"]), 10),
        ] {
            assert_eq!(places.line(&path), line, "{path}");
        }
    }

    #[test]
    fn a_document_that_breaks_off_has_the_lines_of_what_comes_before() {
        let places = Places::of("spec:\n  ttl: [\n", 1);
        assert_eq!(places.line(&FieldPath::of(&["spec", "ttl"])), 2);
    }
}
