//! What was found in files.

use super::{
    mistake::{Level, Mistake},
    path::FieldPath,
    places::Places,
};

/// A mistake, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The name of the file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The object, such as `ServiceRegistration shop/greeter`; empty for a document that cannot be read.
    pub object: String,
    /// The field, such as `spec.ttl`; empty for the whole object.
    pub field: String,
    /// What is wrong, as a sentence without a full stop.
    pub what: String,
    /// What to do; empty if the sentence says it.
    pub remedy: String,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name of the file.
    pub file: String,
    /// The object, such as `ServiceRegistration shop/greeter`.
    pub object: String,
    /// The place of the object in its document.
    pub root: FieldPath,
    /// The lines of the document.
    pub places: Places,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, in the order of the files and lines.
    pub findings: Vec<Finding>,
    /// The number of registrations that were checked.
    pub registrations: usize,
    /// The number of files that were read.
    pub files: usize,
}

impl Report {
    /// Adds the mistakes of an object.
    pub fn add(&mut self, place: &Place, mistakes: impl IntoIterator<Item = Mistake>) {
        let Place { file, object, root, places } = place;
        for Mistake { level, path, what, remedy, blocks: _ } in mistakes {
            let line = places.line(&path);
            let field = path.below(root).to_string();
            let (file, object) = (file.clone(), object.clone());
            self.findings.push(Finding { level, file, line, object, field, what, remedy });
        }
    }

    /// Brings the findings of each file into the order of their lines. The files stay in theirs.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for finding in &self.findings {
            if !files.contains(&finding.file) {
                files.push(finding.file.clone());
            }
        }
        let order = |file: &String| files.iter().position(|known| known == file);
        self.findings.sort_by_key(|it| (order(&it.file), it.line, it.level));
    }

    /// How many findings of a level there are.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|it| it.level == level).count()
    }
}
