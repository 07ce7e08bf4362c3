//! The page about what is tested names tests that exist, each at its actual level.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../../docs/reliability.md");

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

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// The level of the tests in a folder.
fn level_of(path: &Path) -> &'static str {
    let path = path.to_str().unwrap();
    match path {
        _ if path.contains("/tests/control_plane/") => "3",
        _ if ["/core/", "/api/", "/tests/structure/"].iter().any(|it| path.contains(it)) => "1",
        _ => "2",
    }
}

#[test]
fn every_test_that_the_page_names_exists_on_its_level() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "api/src", "client/src", "core/src", "tests/control_plane", "tests/structure"]
        .iter()
        .for_each(|folder| sources(&root.join(folder), &mut files));
    for (_, named) in rows() {
        for Named { file, test, level } in named {
            let begins = format!("fn {test}(");
            let places = files.iter().filter(|path| {
                path.file_stem().is_some_and(|stem| stem == file)
                    && fs::read_to_string(path).unwrap().contains(&begins)
            });
            let levels: BTreeSet<&str> = places.map(|path| level_of(path)).collect();
            assert!(levels.contains(level), "{file}::{test} is not on level {level}: {levels:?}");
        }
    }
}

#[test]
fn every_failure_has_a_test() {
    let numbers = rows().into_iter().filter_map(|(number, _)| number.parse().ok());
    assert_eq!(numbers.collect::<Vec<u32>>(), (1..=38).collect::<Vec<_>>());
}
