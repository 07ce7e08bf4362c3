//! The pages of the repository name files and folders. A page that names a file that has moved
//! misleads its readers.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folders with which a path in backticks begins.
const FOLDERS: [&str; 11] = [
    "api/", "bench/", "charts/", "client/", "core/", "crds/", "demo/", "docs/", "scripts/", "src/",
    "tests/",
];

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|it| it == "md") {
            found.push(path);
        }
    }
}

/// The paths in backticks, except for patterns that stand for several paths.
fn named(page: &str) -> impl Iterator<Item = &str> {
    let quoted = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|text| {
        FOLDERS.iter().any(|folder| text.starts_with(folder))
            && !text.contains([' ', '*', '<', '{', '…', ':'])
    })
}

#[test]
fn every_path_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    pages(&root.join("docs"), &mut found);
    let mut seen = 0;
    for page in found {
        let text = fs::read_to_string(&page).unwrap();
        for path in named(&text) {
            seen += 1;
            assert!(root.join(path).exists(), "{} names {path}", page.display());
        }
    }
    assert!(seen > 100, "the pages were looked for in the wrong place: {seen}");
}
