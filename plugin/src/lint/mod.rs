//! Checks registrations that lie in files, without a cluster.
//!
//! [`document`] splits a file, [`schema`] and [`rules`] apply what the API server would apply, [`registration`] adds what
//! the operator checks, and [`advice`] names what is accepted and likely a mistake. Nothing here reads a file.

pub mod advice;
pub mod document;
pub mod finding;
pub mod mistake;
pub mod path;
pub mod places;
pub mod registration;
pub mod rules;
pub mod schema;
pub mod together;

use beatkeeper_core::vocabulary::address::OutsideRanges;

use document::Document;
use finding::Report;
use registration::Linter;

/// A file and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, as findings print it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Checks all registrations in some files. `namespace` is that of objects which name none. Addresses are compared with
/// `ranges`, if there are any.
pub fn lint(sources: &[Source], namespace: &str, ranges: Option<&OutsideRanges>) -> Report {
    let linter = Linter::new(namespace, ranges);
    let mut report = Report { files: sources.len(), ..Report::default() };
    let mut seen = together::Seen::default();
    for source in sources {
        for document in document::split(&source.text) {
            match document.objects() {
                Ok(objects) => {
                    let ours = objects.into_iter().filter(|object| linter.is_ours(&object.value));
                    for object in ours {
                        let place = Document::place(&source.name, &object);
                        let checked = linter.check(object);
                        report.registrations += 1;
                        report.add(&place, checked.mistakes);
                        if let Some(read) = checked.read {
                            let advice = advice::of(&read).into_iter();
                            let together = seen.add(&read, &place).into_iter();
                            report.add(&place, advice.chain(together));
                        }
                    }
                }
                Err(unreadable) => report.findings.push(unreadable.finding(&source.name)),
            }
        }
    }
    report.sort();
    report
}
