//! The page about what is tested names tests that exist, each at its actual level.

use std::collections::BTreeSet;

use beatkeeper_structure::files;

const PAGE: &str = include_str!("../../../../docs/reliability.md");

/// A test that a row of the page names, with its level.
struct Named<'a> {
    file: &'a str,
    test: &'a str,
    level: &'a str,
}

/// The rows of the tables with tests and their levels, with the first column: the number of a
/// failure, or nothing if it is that of the row before.
fn rows() -> Vec<(&'static str, Vec<Named<'static>>)> {
    let rows = PAGE.lines().filter_map(|line| {
        let cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
        let &[number, _, tests, level] = cells.collect::<Vec<_>>().as_slice() else { return None };
        let quoted = tests.split('`').skip(1).step_by(2);
        let named = quoted.filter_map(|name| name.split_once("::"));
        let named = named.map(|(file, test)| Named { file, test, level }).collect::<Vec<_>>();
        (!named.is_empty()).then_some((number, named))
    });
    rows.collect()
}

/// The level of the tests in a folder.
fn level_of(path: &str) -> &'static str {
    let begins = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    match path {
        _ if begins(&["tests/control_plane/"]) => "3",
        _ if begins(&["core/", "api/", "tests/structure/"]) => "1",
        _ => "2",
    }
}

#[test]
fn every_test_that_the_page_names_exists_on_its_level() {
    let folders = [
        "src",
        "api/src",
        "client/src",
        "core/src",
        "gateway",
        "tests/control_plane",
        "tests/structure",
    ];
    let sources: Vec<_> = folders
        .into_iter()
        .flat_map(files::rust)
        .map(|path| (files::read(&path).expect("a source"), path))
        .collect();
    let mut wrong = Vec::new();
    for Named { file, test, level } in rows().into_iter().flat_map(|(_, named)| named) {
        let (name, begins) = (format!("/{file}.rs"), format!("fn {test}("));
        let places =
            sources.iter().filter(|(text, path)| path.ends_with(&name) && text.contains(&begins));
        let levels: BTreeSet<&str> = places.map(|(_, path)| level_of(path)).collect();
        if !levels.contains(level) {
            wrong.push(format!("{file}::{test} is not on level {level}: {levels:?}"));
        }
    }
    assert!(wrong.is_empty(), "docs/reliability.md:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_failure_has_a_test() {
    let numbers = rows().into_iter().filter_map(|(number, _)| number.parse().ok());
    assert_eq!(numbers.collect::<Vec<u32>>(), (1..=38).collect::<Vec<_>>());
}
