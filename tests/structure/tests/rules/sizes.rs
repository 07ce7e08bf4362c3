//! A file and a function fit into a head.

use beatkeeper_structure::{
    allowed::{self, Counts},
    files, functions,
};

/// How many lines a file may have.
const FILE: usize = 400;

/// How many lines of code the body of a function may have.
const FUNCTION: usize = 60;

/// What is longer than it may be. A place on the list may be as long as the list says, and leaves the list when it is
/// short enough.
fn wrong(name: &str, found: &Counts, limit: usize) -> Vec<String> {
    let allowed = allowed::list(name);
    let bound = |place: &String| allowed.get(place).copied().unwrap_or(limit);
    let grown = found.iter().filter(|(place, lines)| **lines > bound(place));
    let grown = grown
        .map(|(place, lines)| format!("{place}: {lines} lines, and {} are allowed", bound(place)));
    let short =
        allowed.keys().filter(|&place| found.get(place).is_none_or(|lines| *lines <= limit));
    let short = short.map(|place| {
        format!("{place}: short enough; remove it from tests/structure/allowed/{name}.txt")
    });
    grown.chain(short).collect()
}

#[test]
fn no_file_has_more_than_400_lines() {
    let length = |file: String| {
        let lines = files::read(&file).expect("a source").lines().count();
        (file, lines)
    };
    let found: Counts = files::rust("").into_iter().map(length).collect();
    let wrong = wrong("long-files", &found, FILE);
    assert!(wrong.is_empty(), "files are too long:\n  {}", wrong.join("\n  "));
}

#[test]
fn no_function_has_more_than_60_lines() {
    let mut found = Counts::new();
    for file in files::rust("") {
        let text = files::read(&file).expect("a source");
        for (function, lines) in functions::lengths(&text) {
            let longest = found.entry(format!("{file} {function}")).or_default();
            *longest = lines.max(*longest);
        }
    }
    let wrong = wrong("long-functions", &found, FUNCTION);
    assert!(wrong.is_empty(), "functions are too long:\n  {}", wrong.join("\n  "));
}
